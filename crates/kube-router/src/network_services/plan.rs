//! From one virtual server's key to the rows it takes.
//!
//! Pure: the winner of the contest, its backends and the node go in, claims come out. The order in which the rows may
//! come and go stands here too (`after`): firewall members first, then the virtual server with its real servers, then
//! the address that attracts traffic, and the reverse on removal.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::{
    Family, Forwarding, Key, Member, Name, RealServer, Route, RouteKind, Row, Scope, SetKey, VirtualServer,
    VirtualServerKey,
};

use super::backends::Backend;
use super::frontends::Kind;
use crate::kube::model::{Service, ServicePort};
use crate::names;
use crate::node::ThisNode;
use crate::options::Options;

/// The link of service addresses: one copy of its name for the rows of all virtual servers.
static DUMMY: LazyLock<Name> = LazyLock::new(|| Name::from(names::link::DUMMY));
static SETS_V4: LazyLock<Sets> = LazyLock::new(|| Sets::of(Family::V4));
static SETS_V6: LazyLock<Sets> = LazyLock::new(|| Sets::of(Family::V6));

/// One copy of the key of each set that virtual servers have members in.
struct Sets {
    hairpin: Arc<SetKey>,
    local_ips: Arc<SetKey>,
    service_ips: Arc<SetKey>,
    service_ports: Arc<SetKey>,
}

impl Sets {
    fn of(family: Family) -> Sets {
        Sets {
            hairpin: set(names::set::HAIRPIN, family),
            local_ips: set(names::set::LOCAL_IPS, family),
            service_ips: set(names::set::SERVICE_IPS, family),
            service_ports: set(names::set::SERVICE_PORTS, family),
        }
    }
}

fn sets(family: Family) -> &'static Sets {
    match family {
        Family::V4 => &SETS_V4,
        Family::V6 => &SETS_V6,
    }
}

/// Everything that decides what one virtual server looks like.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Which.
    pub key: VirtualServerKey,
    /// Kind of its address.
    pub kind: Kind,
    /// The Service that won it.
    pub service: &'a Service,
    /// Its port there.
    pub port: &'a ServicePort,
    /// Who serves it.
    pub backends: &'a BTreeMap<(IpAddr, u16), Backend>,
    /// Real servers removed from it that still have connections to finish.
    pub draining: &'a [(IpAddr, u16)],
}

/// The rows of a virtual server. O(backends).
pub fn claims(asked: &Asked<'_>, node: &ThisNode, options: &Options) -> Vec<Claim> {
    let VirtualServerKey::Address { ip, protocol, port } = asked.key else { return Vec::new() };
    let serves_here = asked.backends.values().any(|backend| backend.local);
    if asked.kind.local_only(asked.service) && !serves_here && asked.draining.is_empty() {
        return Vec::new();
    }
    let family = Family::of(&ip);
    let mut claims = Vec::with_capacity(asked.backends.len() + 5);
    let sets = sets(family);
    let address_port = member(&sets.service_ports, Member::IpPort(ip, protocol, port));
    let address = member(&sets.service_ips, Member::Ip(ip));
    let server = Key::VirtualServer(asked.key);
    if asked.kind != Kind::NodePort && !node.has_ip(ip) {
        let address_row = dummy_address(ip).after([server.clone(), address.key.clone()]);
        claims.push(local_route(ip, node).after([address_row.key.clone()]));
        claims.push(address_row);
    }
    let ledger = address_port.key.clone();
    // The firewall refuses other ports of a service address unless it knows the address for the node's own.
    let own = node.is_local(ip).then(|| member(&sets.local_ips, Member::Ip(ip)).key);
    claims.push(address.after(own.into_iter().chain([ledger.clone()])));
    claims.push(address_port);
    // By the set of service ports a successor knows whose a virtual server is: there is none without its member.
    claims.push(Claim::new(server, Row::VirtualServer(virtual_server(asked.service).into())).after([ledger]));
    claims.extend(real_servers(asked));
    if asked.kind.hairpins(asked.service, options.service_proxy.hairpin) {
        claims.extend(hairpin_members(asked, &sets.hairpin));
    }
    claims
}

fn virtual_server(service: &Service) -> VirtualServer {
    VirtualServer {
        scheduler: service.wishes.scheduler.clone(),
        scheduler_flags: service.wishes.scheduler_flags,
        persistence: service.affinity,
    }
}

fn real_servers(asked: &Asked<'_>) -> impl Iterator<Item = Claim> {
    let serving = asked.backends.iter().map(|((ip, port), backend)| (*ip, *port, backend.weight));
    let back = |ip: &IpAddr, port: &u16| asked.backends.contains_key(&(*ip, *port));
    let leaving = asked.draining.iter().filter(move |(ip, port)| !back(ip, port));
    let leaving = leaving.map(|(ip, port)| (*ip, *port, 0));
    serving.chain(leaving).map(|(ip, port, weight)| {
        let row = RealServer { weight, forwarding: Forwarding::Masquerade };
        Claim::new(Key::RealServer(asked.key, ip, port), Row::RealServer(row))
    })
}

/// Pods of this node that may come back to themselves: (pod, protocol:port, pod).
fn hairpin_members(asked: &Asked<'_>, set: &Arc<SetKey>) -> impl Iterator<Item = Claim> {
    let local = asked.backends.iter().filter(|(_, backend)| backend.local);
    local.map(move |((ip, port), _)| member(set, Member::IpPortIp(*ip, asked.port.protocol, *port, *ip)))
}

fn dummy_address(ip: IpAddr) -> Claim {
    let key = Key::Address { link: DUMMY.clone(), net: host(ip) };
    // The kernel derives an IPv6 address's scope from its prefix and reports it as universe.
    let scope = if ip.is_ipv4() { Scope::Link } else { Scope::Universe };
    Claim::new(key, Row::Address { scope })
}

/// The local route of a VIP names the node's address as source, so that the node itself never speaks from a VIP.
fn local_route(ip: IpAddr, node: &ThisNode) -> Claim {
    let link = Some(DUMMY.clone());
    let key = Key::Route { table: names::route::TABLE_LOCAL, destination: host(ip), link: link.clone() };
    let route = Route {
        kind: RouteKind::Local,
        link,
        via: None,
        source: node.best_ip(Family::of(&ip)),
        scope: if ip.is_ipv4() { Scope::Host } else { Scope::Universe },
        protocol: names::route::PROTOCOL_KERNEL,
    };
    Claim::new(key, Row::Route(Box::new(route)))
}

/// The key of one of our sets, for all its members.
pub fn set(name: &str, family: Family) -> Arc<SetKey> {
    Arc::new(SetKey { family, name: name.into() })
}

/// A member of one of our sets.
pub fn member(set: &Arc<SetKey>, member: Member) -> Claim {
    Claim::new(Key::Member(set.clone(), member), Row::Member)
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

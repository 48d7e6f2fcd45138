//! Whose a row in the kernel is, when nobody here wants it.
//!
//! Read after a restart, from the kernel alone:
//!
//! - Sets, chains, rules and most links are told by their names (the lanes read no others). A tunnel is ours if it has
//!   the form of our names, too: others call theirs `tun-…` as well.
//! - A route of our protocol is ours in table main, whatever it leads to: those to nodes of the same subnet go by the
//!   node's own link and have nothing else that tells them, here as upstream. In other tables it must lead through a
//!   link of ours; table 77 is ours as a whole.
//! - A UDP port of tunnels is ours if a tunnel of ours sends to it, or if it is the one tunnels are to have.
//! - A virtual server is ours if its address is on `kube-dummy-if`, or it is in the ledger (the set of service ports,
//!   which Go kube-router fills too), or it is a local address with a port of the NodePort range. What lies in
//!   `--excluded-cidrs` is never ours, nor anything of the kernel's own making.
//!
//! The clean-up goes further, for nobody comes after it: the bridge of the pods goes if no pod is attached, and what a Go
//! kube-router leaves of direct server return, as far as [`direct_return`] proves it.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use linux::reconciler::Reconciler;
use linux::row::{Family, Key, Link, LinkKind, Member, Name, Route, Row, VirtualServerKey};

use crate::names;
use crate::network_services::direct_return;
use crate::node::ThisNode;
use crate::options::{Encap, Options};
use crate::owner::Owner;

/// The rule, as far as options decide it.
#[derive(Debug, Clone)]
pub struct Ownership {
    excluded: Vec<IpNet>,
    node_ports: RangeInclusive<u16>,
    /// The UDP port of tunnels that is ours without one.
    udp_port: Option<u16>,
    /// Nobody of us is to come after this.
    clean_up: bool,
    /// Marks of others seen since the last judgement, and before it.
    strange: [Marks; 2],
}

/// What tells whose a virtual server is.
#[derive(Debug, Clone, Default)]
struct Marks {
    addresses: BTreeSet<IpAddr>,
    ports: HashSet<VirtualServerKey>,
    /// Marks that packets are given for direct server return; seen by the clean-up only.
    packets: HashSet<(Family, u32)>,
}

/// The rule with what the kernel holds at the moment.
#[derive(Debug)]
pub struct Ledger<'a> {
    rule: &'a Ownership,
    marks: Marks,
    local: BTreeSet<IpAddr>,
    /// What is attached to the bridge of the pods.
    attached: Vec<Name>,
    /// UDP ports that tunnels of ours send to.
    udp_ports: BTreeSet<u16>,
}

impl Ownership {
    /// From the command line.
    pub fn new(options: &Options) -> Ownership {
        Ownership {
            excluded: options.service_proxy.excluded.clone(),
            node_ports: options.service_ips.node_ports.clone(),
            udp_port: match options.routes.encap {
                Encap::Fou(port) => Some(port),
                Encap::IpIp => None,
            },
            clean_up: false,
            strange: Default::default(),
        }
    }

    /// The same for whoever cleans up: nothing of ours is wanted any more, whichever kube-router wrote it.
    pub fn at_clean_up(options: &Options) -> Ownership {
        let udp_port = Some(options.routes.encap_port);
        Ownership { udp_port, clean_up: true, ..Ownership::new(options) }
    }

    /// Remembers the marks in a reading that nobody here wants: their own lane removes them, and would take the evidence
    /// away before the virtual servers are read that came with them. O(rows).
    pub fn note(&mut self, known: &Reconciler<Owner>, reading: &[(Key, Row)]) {
        let [recent, _] = &mut self.strange;
        for (key, _) in reading {
            if Marks::has_place_for(key) && known.desired(key).is_none() {
                recent.enter(key);
            }
        }
    }

    /// Virtual servers were judged. What was remembered before the judgement before is over; what is newer may concern
    /// a virtual server that this reading had passed already.
    pub fn judged(&mut self) {
        let [recent, older] = &mut self.strange;
        *older = std::mem::take(recent);
    }

    /// With what other lanes have read, and this reading. O(rows).
    pub fn of<'a>(
        &'a self,
        known: &Reconciler<Owner>,
        reading: &[(Key, Row)],
        node: &ThisNode,
    ) -> Ledger<'a> {
        let mut ledger = Ledger {
            rule: self,
            marks: Marks::default(),
            local: node.facts.addresses.iter().map(|(_, net)| net.addr()).collect(),
            attached: reading.iter().filter_map(|(key, _)| bridge_port(key)).collect(),
            udp_ports: reading.iter().filter_map(|(key, row)| tunnel_port(key, row)).collect(),
        };
        // Only a reading of IPVS asks the ledger.
        if reading.iter().any(|(key, _)| matches!(key, Key::VirtualServer(_))) {
            known.actual_rows().for_each(|(key, _)| ledger.marks.enter(key));
        }
        ledger
    }
}

impl Marks {
    fn has_place_for(key: &Key) -> bool {
        matches!(key, Key::Address { .. } | Key::Member(..))
    }

    fn tell(&self, server: &VirtualServerKey, ip: &IpAddr) -> bool {
        self.addresses.contains(ip) || self.ports.contains(server)
    }

    fn enter(&mut self, key: &Key) {
        match key {
            Key::Address { link, net } if **link == *names::link::DUMMY => {
                self.addresses.insert(net.addr());
            }
            Key::Member(set, Member::IpPort(ip, protocol, port))
                if *set.name == *names::set::SERVICE_PORTS =>
            {
                self.ports.insert(VirtualServerKey::Address { ip: *ip, protocol: *protocol, port: *port });
            }
            // Such rules are in a reading only where the clean-up asked for them.
            Key::ForeignRule(chain, rule) => {
                let mark = direct_return::mark(chain, rule);
                self.packets.extend(mark.map(|mark| (chain.family, mark)));
            }
            _ => {}
        }
    }
}

impl Ledger<'_> {
    /// Whether a row that nobody here wants is ours, to be removed.
    pub fn is_ours(&self, key: &Key, row: &Row) -> bool {
        match (key, row) {
            (Key::VirtualServer(server) | Key::RealServer(server, ..), _) => self.is_our_server(server),
            // Port modes were somebody's before they were ours.
            (Key::BridgePortHairpin(_), _) => false,
            // Pods are being made by the file without an agent, too.
            (Key::CniConfig, _) => false,
            (Key::Link(name), Row::Link(link)) => self.is_our_link(name, link),
            (Key::Route { table, destination, .. }, Row::Route(route)) => {
                is_our_route(*table, *destination, route)
            }
            (Key::PolicyRule(rule), _) => {
                !direct_return::TABLES.contains(&rule.table) || direct_return::is_rule(rule)
            }
            (Key::FouPort(_, port), _) => self.rule.udp_port == Some(*port) || self.udp_ports.contains(port),
            // Settings have no absence: adopting one saves writing it, dropping it changes nothing.
            (Key::IpvsTimeouts, _) => !self.rule.clean_up,
            _ => true,
        }
    }

    /// Why the clean-up leaves a row that kube-router made, with what to do about it.
    pub fn why_left(&self, key: &Key) -> Option<String> {
        let is_bridge = matches!(key, Key::Link(name) if **name == *names::link::BRIDGE);
        (is_bridge && self.rule.clean_up && !self.attached.is_empty()).then(|| {
            format!(
                "{key} stays, for pods would lose their network: attached are {}. Drain the node, then run this again",
                self.attached.join(", ")
            )
        })
    }

    fn is_our_link(&self, name: &Name, link: &Link) -> bool {
        if **name == *names::link::BRIDGE {
            // It outlives the agent; pods may be attached to it.
            return self.rule.clean_up && link.kind == LinkKind::Bridge && self.attached.is_empty();
        }
        !name.starts_with(names::link::TUNNEL_PREFIX) || is_our_tunnel(name, &link.kind)
    }

    fn is_our_server(&self, server: &VirtualServerKey) -> bool {
        let mut marks = self.rule.strange.iter().chain([&self.marks]);
        let (ip, port) = match server {
            VirtualServerKey::Address { ip, port, .. } => (ip, port),
            VirtualServerKey::Mark { family, mark } => {
                return marks.any(|marks| marks.packets.contains(&(*family, *mark)));
            }
        };
        let excluded = self.rule.excluded.iter().any(|net| net.contains(ip));
        let node_port = self.local.contains(ip) && self.rule.node_ports.contains(port);
        !excluded && (node_port || marks.any(|marks| marks.tell(server, ip)))
    }
}

/// What is attached to the bridge of the pods; only its ports are read.
fn bridge_port(key: &Key) -> Option<Name> {
    match key {
        Key::BridgePortHairpin(name) => Some(name.clone()),
        _ => None,
    }
}

/// The UDP port that a tunnel of ours sends to.
fn tunnel_port(key: &Key, row: &Row) -> Option<u16> {
    let (Key::Link(name), Row::Link(link)) = (key, row) else { return None };
    link.udp_port().filter(|_| is_our_tunnel(name, &link.kind)).map(|(_, port)| port)
}

/// Early Go kube-routers named a tunnel after its other end, without the dots.
fn is_our_tunnel(name: &str, kind: &LinkKind) -> bool {
    let LinkKind::Tunnel(tunnel) = kind else { return false };
    let after_its_end = || {
        let end = tunnel.remote.to_string().replace('.', "");
        name.strip_prefix(names::link::TUNNEL_PREFIX) == Some(end.as_str())
    };
    has_form_of_tunnel(name) || after_its_end()
}

/// The prefix and 11 hexadecimal digits.
fn has_form_of_tunnel(name: &str) -> bool {
    let digits = name.strip_prefix(names::link::TUNNEL_PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 11 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_our_route(table: u32, destination: IpNet, route: &Route) -> bool {
    let link = route.link.as_deref().unwrap_or_default();
    let fixed = [names::link::DUMMY, names::link::BRIDGE].contains(&link);
    let of_our_protocol = route.protocol == names::route::PROTOCOL;
    match table {
        names::route::TABLE_MAIN => of_our_protocol,
        names::route::TABLE_OVERLAY => true,
        // Host routes of service addresses; others are not read.
        names::route::TABLE_LOCAL if link == names::link::DUMMY => true,
        table if direct_return::TABLES.contains(&table) => direct_return::is_route(table, destination, route),
        _ => of_our_protocol && (fixed || has_form_of_tunnel(link)),
    }
}

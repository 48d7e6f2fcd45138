//! From a path another node advertised to rows: a route to its prefix, through a tunnel where one is due.
//!
//! Decided here, for one path alone: whether the next hop is reached directly, through a tunnel, or by the network
//! around the nodes without our help. Tunnels lead to nodes of the cluster only: a path of an outside router never
//! makes one (upstream's W15). Which path is best is decided by the speaker.
//!
//! | next hop | overlay off | subnet | full |
//! |---|---|---|---|
//! | a node, in a subnet of ours | via it | via it | tunnel |
//! | a node, elsewhere | none | tunnel | tunnel |
//! | another router, in a subnet of ours | via it | via it | via it |
//! | another router, elsewhere | none | none | none |
//!
//! What the node has by itself has no route either, whoever tells it: the networks its links are in, for such a route
//! would take the place of the kernel's own, and its pods' networks.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::{Family, Key, Link, LinkKind, Name, PolicyRuleKey, Route, RouteKind, Row, Scope, Tunnel};

use super::tunnel_name;
use crate::names;
use crate::node::ThisNode;
use crate::options::{Encap, Overlay, Routes};

/// What a route to a prefix takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The prefix.
    pub prefix: IpNet,
    /// Where packets to it are sent.
    pub next_hop: IpAddr,
    /// Whether a node of the cluster has that address.
    pub is_node: bool,
}

/// How a next hop is reached.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    Direct(&'a Name),
    Tunnel { local: IpAddr },
    Elsewhere,
}

/// The rows of one path. O(addresses of this node).
pub fn claims(learned: &Learned, node: &ThisNode, options: &Routes) -> Vec<Claim> {
    match way(learned, node, options.overlay) {
        Way::Elsewhere => Vec::new(),
        Way::Direct(link) => vec![via(learned, link)],
        Way::Tunnel { local } => tunnel(learned, local, node, options.encap),
    }
}

fn way<'a>(learned: &Learned, node: &'a ThisNode, overlay: Overlay) -> Way<'a> {
    if is_here(learned.prefix, node) {
        return Way::Elsewhere;
    }
    let direct = node.subnet_of(learned.next_hop);
    let wanted = learned.is_node
        && match overlay {
            Overlay::Off => false,
            Overlay::Subnet => direct.is_none(),
            Overlay::Full => true,
        };
    match (node.best_ip(Family::of(&learned.next_hop)), direct) {
        (Some(local), _) if wanted => Way::Tunnel { local },
        (_, Some(link)) => Way::Direct(link),
        _ => Way::Elsewhere,
    }
}

/// Whether packets to a prefix stay on this node or one of its links without a route of ours.
fn is_here(prefix: IpNet, node: &ThisNode) -> bool {
    let connected = node.facts.addresses.iter().any(|(_, net)| net.trunc() == prefix);
    let own_address = prefix.prefix_len() == prefix.max_prefix_len() && node.has_ip(prefix.addr());
    connected || own_address || node.pod_cidrs(Family::of_net(&prefix)).any(|pods| pods.contains(&prefix))
}

fn via(learned: &Learned, link: &Name) -> Claim {
    let route = Route { via: Some(learned.next_hop), ..route(link) };
    claim(names::route::TABLE_MAIN, learned.prefix, route)
}

/// The tunnel with the way to its other end for pods, and the route through it. The route prefers the node's address,
/// so that what the node itself sends to pods comes from an address the other node knows.
fn tunnel(learned: &Learned, local: IpAddr, node: &ThisNode, encap: Encap) -> Vec<Claim> {
    let remote = learned.next_hop;
    let udp_port = match encap {
        Encap::IpIp => None,
        Encap::Fou(port) => Some(port),
    };
    let name = node.tunnel_between(local, remote).cloned().unwrap_or_else(|| tunnel_name(remote));
    let kind = LinkKind::Tunnel(Tunnel { local, remote, udp_port });
    let mut claims: Vec<Claim> = udp_port
        .map(|port| Claim::new(Key::FouPort(Family::of(&local), port), Row::FouPort))
        .into_iter()
        .collect();
    let link = Row::Link(Box::new(Link { kind, up: true, mtu: None }));
    claims.push(Claim::new(Key::Link(name.clone()), link));
    claims.push(claim(names::route::TABLE_OVERLAY, IpNet::from(remote), route(&name)));
    let source = node.best_ip(Family::of_net(&learned.prefix));
    claims.push(claim(names::route::TABLE_MAIN, learned.prefix, Route { source, ..route(&name) }));
    claims
}

/// Rules by which this node's pods reach other nodes through the tunnels, too: their answers come back that way.
pub fn rules(node: &ThisNode, overlay: Overlay) -> Vec<Claim> {
    if overlay == Overlay::Off {
        return Vec::new();
    }
    let of = |family| {
        node.pod_cidrs(family).map(move |net| {
            let table = names::route::TABLE_OVERLAY;
            let rule = PolicyRuleKey { family, priority: None, from: Some(net), mark: None, table };
            Claim::new(Key::PolicyRule(rule), Row::PolicyRule)
        })
    };
    node.families().flat_map(of).collect()
}

fn route(link: &Name) -> Route {
    Route {
        kind: RouteKind::Unicast,
        link: Some(link.clone()),
        via: None,
        source: None,
        scope: Scope::Universe,
        protocol: names::route::PROTOCOL,
    }
}

fn claim(table: u32, destination: IpNet, route: Route) -> Claim {
    Claim::new(Key::Route { table, destination, link: None }, Row::Route(Box::new(route)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::annotations::RoutingAnnotations;
    use crate::kube::model::Node;
    use crate::node::Facts;
    use crate::options::Options;

    #[test]
    fn what_the_node_has_by_itself_gets_no_route() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let object = Node {
            name: "here".into(),
            internal_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: vec![net("10.244.1.0/24"), net("fd44:1::/64")],
            routing: Arc::new(RoutingAnnotations::default()),
        };
        let addresses = vec![("eth0".into(), net("10.0.0.1/24")), ("eth0".into(), net("fd00::1/64"))];
        let facts = Facts { addresses, ..Facts::default() };
        let node = ThisNode { name: "here".into(), object: Some(object), facts };
        let options = Options::from_flags(&[] as &[&str]).unwrap().routes;
        let has_route = |prefix: &str, next_hop: &str| {
            let next_hop = next_hop.parse().unwrap();
            !claims(&Learned { prefix: net(prefix), next_hop, is_node: false }, &node, &options).is_empty()
        };
        for (prefix, next_hop, routed) in [
            ("10.0.0.0/24", "10.0.0.254", false),
            ("10.0.0.1/32", "10.0.0.254", false),
            ("10.244.1.0/24", "10.0.0.254", false),
            ("10.244.1.128/25", "10.0.0.254", false),
            ("10.0.0.0/16", "10.0.0.254", true),
            ("10.0.0.128/25", "10.0.0.254", true),
            ("10.244.0.0/16", "10.0.0.254", true),
            ("0.0.0.0/0", "10.0.0.254", true),
            ("fd00::/64", "fd00::fe", false),
            ("fd44:1::7/128", "fd00::fe", false),
            ("fd44:2::/64", "fd00::fe", true),
        ] {
            assert_eq!(has_route(prefix, next_hop), routed, "{prefix}");
        }
    }
}

//! What pod routing needs of the node itself, whoever its peers are: the bridge of the pods, the CNI configuration,
//! kernel settings, and that forwarded traffic of pods is let through.

use std::sync::Arc;

use ipnet::IpNet;
use linux::cni::CniConfig;
use linux::reconciler::Claim;
use linux::row::{
    ChainKey, Family, FilterTable, Key, Link, LinkKind, Name, Position, Route, RouteKind, Row, Scope,
};
use linux::rule::{Action, Match, Rule};

use super::{egress, overlay};
use crate::names;
use crate::node::ThisNode;
use crate::options::Options;

/// Settings of one family below /proc/sys.
fn settings(family: Family) -> [(&'static str, &'static str); 2] {
    match family {
        Family::V4 => [("net/ipv4/ip_forward", "1"), ("net/bridge/bridge-nf-call-iptables", "1")],
        Family::V6 => [("net/ipv6/conf/all/forwarding", "1"), ("net/bridge/bridge-nf-call-ip6tables", "1")],
    }
}

/// Written before anything IPv6, where IPv6 is asked for.
const IPV6_ON: (&str, &str) = ("net/ipv6/conf/all/disable_ipv6", "0");

/// Packets are answered with "unreachable" (`RTN_UNREACHABLE`).
const UNREACHABLE: u8 = 7;

/// Paths of all settings.
pub fn setting_paths() -> impl Iterator<Item = &'static str> {
    let of_families = Family::ALL.into_iter().flat_map(settings);
    of_families.chain([IPV6_ON]).map(|(path, _)| path)
}

/// The rows. O(families + pod prefixes).
pub fn claims(node: &ThisNode, options: &Options) -> Vec<Claim> {
    let mtu = options.routes.auto_mtu.then(|| node.mtu()).flatten();
    let bridge = Link { kind: LinkKind::Bridge, up: true, mtu };
    let mut claims = vec![Claim::new(Key::Link(names::link::BRIDGE.into()), Row::Link(Box::new(bridge)))];
    if options.routes.cni {
        claims.push(cni(node, mtu));
        let waits = options.routes.cni_wait_for_policy;
        claims.extend(waits.then(|| Claim::new(Key::CniPlugin(names::CNI_PLUGIN.into()), Row::CniPlugin)));
    }
    if options.families.ipv6 {
        claims.push(sysctl(IPV6_ON));
    }
    let hears = hears_advertisements(node);
    for family in node.families() {
        let before = hears.iter().filter(|_| family == Family::V6).map(|claim| claim.key.clone());
        claims.extend(settings(family).map(|setting| sysctl(setting).after(before.clone())));
        claims.extend(forward(family, node));
        claims.extend(egress::claims(family, node, options));
    }
    claims.extend(hears);
    claims.extend(overlay::rules(node, options.routes.overlay));
    claims.extend(discards(node, options));
    claims
}

/// The setting by which the node's own link goes on to hear router advertisements, where it has heard them so far (1
/// without forwarding): a kernel that forwards needs 2 for it, and drops the default route it has from them when
/// forwarding begins. No other link: pods may be behind it, and would name themselves the node's router.
fn hears_advertisements(node: &ThisNode) -> Option<Claim> {
    let own = node.best_ip(Family::V6).and_then(|ip| node.link_of(ip));
    let hears = |link: &&Name| !node.facts.forwards_v6 && node.facts.accept_ra.get(*link) == Some(&1);
    own.filter(hears).map(|link| sysctl((&format!("net/ipv6/conf/{link}/accept_ra"), "2")))
}

/// Whoever tells a range attracts what is sent to any address in it. What no service has must end here: by the way to
/// everything it would come back. Service addresses of this node are local, which comes first. Not where another
/// program serves them, which may look at packets only after they have a route.
///
/// All ranges that may be told, whether or not one is: the annotations of any Service may ask for it, and then the route
/// is there before the first packet. It also stands before a path learned to exactly such a range: this plan is the
/// lesser owner of the row, and the reconciler says that the two disagree.
fn discards(node: &ThisNode, options: &Options) -> Vec<Claim> {
    if !options.bgp.advertise.aggregate || !options.controllers.service_proxy {
        return Vec::new();
    }
    let families: Vec<Family> = node.families().collect();
    let ranges = options.service_ips.ranges().filter(|range| families.contains(&Family::of_net(range)));
    let discard = |destination: IpNet| {
        let route = Route {
            kind: RouteKind::Other(UNREACHABLE),
            // As the kernel shows it.
            link: destination.addr().is_ipv6().then(|| Name::from("lo")),
            via: None,
            source: None,
            scope: Scope::Universe,
            protocol: names::route::PROTOCOL,
        };
        let key = Key::Route { table: names::route::TABLE_MAIN, destination, link: None };
        Claim::new(key, Row::Route(Box::new(route)))
    };
    ranges.map(discard).collect()
}

fn cni(node: &ThisNode, mtu: Option<u32>) -> Claim {
    let subnets = node.families().flat_map(|family| node.pod_cidrs(family)).map(|net| net.trunc()).collect();
    Claim::new(Key::CniConfig, Row::CniConfig(Arc::new(CniConfig { subnets, mtu })))
}

/// Accepts what comes from and goes to pods, and what leaves by the node's own link, where a policy of the FORWARD chain
/// would drop it. They stand behind the jump to network policy (upstream's W44).
fn forward(family: Family, node: &ThisNode) -> Vec<Claim> {
    let chain = ChainKey { family, table: FilterTable::Filter, name: "FORWARD".into() };
    let bridge = || Name::from(names::link::BRIDGE);
    let own = node.best_ip(family).and_then(|ip| node.link_of(ip)).cloned();
    let rules = [
        Some((Match::InLink(bridge()), names::comment::PODS_OUTBOUND)),
        Some((Match::OutLink(bridge()), names::comment::PODS_INBOUND)),
        own.map(|link| (Match::OutLink(link), names::comment::NODE_PORT_OUTBOUND)),
    ];
    let accept = |(condition, comment): (Match, &str)| {
        let rule = Rule::new([condition], Action::Accept).comment(comment);
        Claim::new(
            Key::ForeignRule(chain.clone(), rule),
            Row::ForeignRule(Position::First(names::rank::PODS)),
        )
    };
    rules.into_iter().flatten().map(accept).collect()
}

fn sysctl((path, value): (&str, &str)) -> Claim {
    Claim::new(Key::Sysctl(Name::from(path)), Row::Sysctl(Name::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::RoutingAnnotations;
    use crate::kube::model::Node;
    use crate::node::Facts;

    #[test]
    fn router_advertisements_are_heard_before_forwarding_begins_and_after() {
        let options = Options::from_flags(&[] as &[&str]).unwrap();
        let object = Node {
            name: "here".into(),
            internal_ips: vec!["fd00::1".parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: vec!["fd44:1::/64".parse().unwrap()],
            routing: Arc::new(RoutingAnnotations::default()),
        };
        let path = |link: &str| Key::Sysctl(format!("net/ipv6/conf/{link}/accept_ra").into());
        let plan = |accept_ra: u8, forwards_v6| {
            let facts = Facts {
                addresses: [("eth0", "fd00::1/64"), (names::link::BRIDGE, "fd44:1::1/64")]
                    .map(|(link, net)| (link.into(), net.parse().unwrap()))
                    .into(),
                accept_ra: ["eth0", names::link::BRIDGE].map(|link| (link.into(), accept_ra)).into(),
                forwards_v6,
                ..Facts::default()
            };
            let node = ThisNode { name: "here".into(), object: Some(object.clone()), facts };
            let claims = claims(&node, &options);
            let forwarding = Key::Sysctl("net/ipv6/conf/all/forwarding".into());
            let waits = claims.iter().any(|one| one.key == forwarding && one.after == [path("eth0")]);
            assert!(!claims.iter().any(|one| one.key == path(names::link::BRIDGE)), "pods are behind it");
            (claims.iter().any(|one| one.key == path("eth0")), waits)
        };
        assert_eq!(plan(1, false), (true, true));
        assert_eq!(plan(1, true), (false, false), "it hears none as it is");
        assert_eq!(plan(0, false), (false, false));
        assert_eq!(plan(2, false), (false, false));
    }
}

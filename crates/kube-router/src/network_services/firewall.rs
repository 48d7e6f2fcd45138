//! Rules, sets and settings the service proxy needs whatever Services exist.
//!
//! Decided here: the service firewall in INPUT, what is masqueraded on its way to a real server, and how hairpin
//! traffic is recognised. All rules look into sets, so that Services and endpoints change members, never rules; only
//! the hairpin chain names Services, one rule for each address and port that may hairpin.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::{
    ChainKey, Family, FilterTable, Key, Member, Name, Position, Row, SetHeader, SetKey, SetKind,
};
use linux::rule::{Action, Direction, IpvsMatch, Match, Rule};

use super::plan::{member, set};
use super::scope;
use crate::names;
use crate::node::ThisNode;
use crate::options::Options;

/// Room in each of our sets. Only a limit: the kernel's table grows with its members.
const SET_ROOM: u32 = 1 << 20;

/// Sets of one family, all of them, whether rules use them or not: they are also the ledger of what is ours.
pub fn sets(family: Family) -> impl Iterator<Item = Claim> {
    let kinds = [
        (names::set::LOCAL_IPS, SetKind::HashIp),
        (names::set::SERVICE_IPS, SetKind::HashIp),
        (names::set::SERVICE_PORTS, SetKind::HashIpPort),
        (names::set::HAIRPIN, SetKind::HashIpPortIp),
        (names::set::NODE_PODS, SetKind::HashIp),
    ];
    kinds.into_iter().map(move |(name, kind)| {
        let header = SetHeader { kind, max_members: SET_ROOM, timeout: None };
        Claim::new(Key::Set(SetKey { family, name: name.into() }), Row::Set(header))
    })
}

/// Addresses of the node, which the firewall does not mistake for service addresses, in the families that have sets
/// (`::1` is on every node). O(addresses).
pub fn local_ips(node: &ThisNode) -> Vec<Claim> {
    let of = |family| {
        let set = set(names::set::LOCAL_IPS, family);
        node.local_ips(family).map(move |ip| member(&set, Member::Ip(ip)))
    };
    node.families().flat_map(of).collect()
}

/// The service firewall: what is sent to a service address is accepted on service ports, answered for the ICMP that
/// keeps connections working, and refused otherwise.
pub fn service_firewall(family: Family) -> Vec<Claim> {
    let chain = chain(family, FilterTable::Filter, names::chain::SERVICES);
    let mut rules: Vec<Rule> = icmp_types(family)
        .iter()
        .map(|(kind, comment)| Rule::new([Match::IcmpType(*kind)], Action::Accept).comment(comment))
        .collect();
    let both = vec![Direction::Destination, Direction::Destination];
    rules.push(
        Rule::new([in_set(names::set::SERVICE_PORTS, both, false)], Action::Accept)
            .comment(names::comment::SERVICES_ACCEPT),
    );
    rules.push(
        Rule::new([in_set(names::set::LOCAL_IPS, vec![Direction::Destination], true)], Action::Reject)
            .comment(names::comment::SERVICES_REJECT),
    );
    let jump = Rule::new(
        [in_set(names::set::SERVICE_IPS, vec![Direction::Destination], false)],
        Action::Jump(names::chain::SERVICES.into()),
    )
    .comment(names::comment::SERVICES_JUMP);
    vec![
        Claim::new(Key::Chain(chain), Row::Chain(Arc::from(rules))),
        foreign(family, FilterTable::Filter, "INPUT", jump),
    ]
}

/// Source NAT on the way to real servers, where replies would otherwise not come back through this node.
///
/// With pod routing by us, upstream's rule: what neither comes from nor goes to this node's pods. Without it every
/// connection to another node's backend, unless the client is this node or one of its pods: its replies return here
/// anyway, and a rewritten source would blind policies.
pub fn masquerade(family: Family, node: &ThisNode, options: &Options) -> Vec<Claim> {
    let Some(to) = node.best_ip(family) else { return Vec::new() };
    let action = Action::SourceNat { to, random_fully: node.facts.random_fully };
    let through_ipvs = Match::Ipvs(IpvsMatch {
        ipvs: true,
        original_direction: true,
        masquerade: true,
        ..IpvsMatch::default()
    });
    let rule = |matches: Vec<Match>| {
        let rule = Rule::new(matches, action.clone()).comment(names::comment::MASQUERADE);
        foreign(family, FilterTable::Nat, "POSTROUTING", rule)
    };
    let mut claims = Vec::new();
    if options.service_proxy.masquerade_all {
        claims.push(rule(vec![through_ipvs.clone()]));
    }
    let not_from_node = Match::LocalAddress { direction: Direction::Source, not: true };
    let nets = pod_nets(family, node, options);
    for net in &nets {
        let mut matches = vec![
            Match::Source { net: *net, not: true },
            Match::Destination { net: *net, not: true },
            through_ipvs.clone(),
        ];
        if !options.controllers.routes {
            matches.push(not_from_node.clone());
        }
        claims.push(rule(matches));
    }
    if nets.is_empty() && !options.controllers.routes {
        let pods = |direction| in_set(names::set::NODE_PODS, vec![direction], true);
        let matches =
            vec![through_ipvs, not_from_node, pods(Direction::Source), pods(Direction::Destination)];
        claims.push(rule(matches));
    }
    claims
}

/// The address a connection through a virtual server gets on its way to a real server, if the rules of [`masquerade`] give
/// it one. O(pod prefixes + addresses).
pub fn masqueraded_as(
    source: IpAddr,
    to: IpAddr,
    node: &ThisNode,
    options: &Options,
    is_pod_here: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let family = Family::of(&source);
    let own = node.best_ip(family)?;
    let elsewhere = options.controllers.routes || !node.has_ip(source);
    let nets = pod_nets(family, node, options);
    let by_net = nets.iter().any(|net| !net.contains(&source) && !net.contains(&to)) && elsewhere;
    let by_pod = || {
        let unknown = nets.is_empty() && !options.controllers.routes;
        unknown && elsewhere && !is_pod_here(source) && !is_pod_here(to)
    };
    (options.service_proxy.masquerade_all || by_net || by_pod()).then_some(own)
}

/// Pods of this node, by which local traffic is told where no pod prefix is known, in the families that have sets.
/// O(pods of this node).
pub fn node_pods(ips: impl Iterator<Item = IpAddr>, node: &ThisNode) -> Vec<Claim> {
    let sets: Vec<_> = node.families().map(|family| set(names::set::NODE_PODS, family)).collect();
    ips.filter_map(|ip| {
        let set = sets.iter().find(|set| set.family == Family::of(&ip))?;
        Some(member(set, Member::Ip(ip)))
    })
    .collect()
}

/// This node's pod prefixes; where its Node object does not say, the range given by `--cluster-cidr`.
fn pod_nets(family: Family, node: &ThisNode, options: &Options) -> Vec<IpNet> {
    let own: Vec<IpNet> = node.pod_cidrs(family).map(|net| net.trunc()).collect();
    // The range of the whole cluster does not tell this node's pods from another's; without pod routing they must be.
    if !own.is_empty() || !options.controllers.routes {
        return own;
    }
    let given = options.pod_cidrs.iter().filter(|net| Family::of_net(net) == family);
    given.map(IpNet::trunc).collect()
}

/// The hairpin chain and its jump. Only packets of the hairpin set, (pod, port, the same pod), enter it; the chain
/// tells by the virtual server they came through which address the pod shall see. O(addresses that hairpin).
pub fn hairpin(family: Family, addresses: &BTreeSet<(IpAddr, u16)>) -> Vec<Claim> {
    let mine = addresses.iter().filter(|(ip, _)| Family::of(ip) == family);
    let rules: Vec<Rule> = mine
        .map(|(ip, port)| {
            let through =
                IpvsMatch { address: Some(IpNet::from(*ip)), port: Some(*port), ..IpvsMatch::default() };
            Rule::new([Match::Ipvs(through)], Action::SourceNat { to: *ip, random_fully: false })
        })
        .collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let directions = vec![Direction::Source, Direction::Destination, Direction::Destination];
    let through = IpvsMatch { original_direction: true, ..IpvsMatch::default() };
    let jump = Rule::new(
        [in_set(names::set::HAIRPIN, directions, false), Match::Ipvs(through)],
        Action::Jump(names::chain::HAIRPIN.into()),
    );
    let chain = chain(family, FilterTable::Nat, names::chain::HAIRPIN);
    vec![
        Claim::new(Key::Chain(chain), Row::Chain(Arc::from(rules))),
        foreign(family, FilterTable::Nat, "POSTROUTING", jump),
    ]
}

/// ICMP that is always let in to service addresses: type and comment.
fn icmp_types(family: Family) -> &'static [(u8, &'static str)] {
    match family {
        Family::V4 => &names::icmp::ALLOWED_V4,
        Family::V6 => &names::icmp::ALLOWED_V6,
    }
}

fn in_set(name: &str, directions: Vec<Direction>, not: bool) -> Match {
    Match::Set { name: name.into(), directions, not }
}

fn chain(family: Family, table: FilterTable, name: &str) -> ChainKey {
    ChainKey { family, table, name: Name::from(name) }
}

/// A rule in a chain of the kernel's, at the place by which it is also recognised after a restart.
fn foreign(family: Family, table: FilterTable, name: &str, rule: Rule) -> Claim {
    let chain = chain(family, table, name);
    let position = scope::place(&chain, &rule).unwrap_or(Position::Anywhere);
    Claim::new(Key::ForeignRule(chain, rule), Row::ForeignRule(position))
}

//! What there is whatever policies say: the ways in, the chains every pod shares, and who may pass without being asked.
//!
//! Upstream's rules, with three differences. Flows a change of policy has forbidden are refused before established ones
//! are accepted. ICMPv6 "packet too big" passes. And bridged packets have no jumps of their own: those for all packets
//! match them as well.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::{ChainKey, Family, Key, Member, Name, Position, Protocol, Row, SetKey, SetKind};
use linux::rule::{Action, ConntrackState, Direction, Match, Rule};

use super::{
    chain_claim, chain_key, comment, from, in_set, jump, passed_its_pod, permit, pod_chain, set_claim,
    shared, to,
};
use crate::kube::model::ObjectName;
use crate::names::{self, chain, mark};
use crate::network_policy::{compile as policy, hash};
use crate::node::ThisNode;
use crate::options::Options;

/// Built-in chains with our jump at their head, and where it leads.
const WAYS: [(&str, &str); 3] =
    [("INPUT", chain::INPUT), ("FORWARD", chain::FORWARD), ("OUTPUT", chain::OUTPUT)];

/// Our first chains, and which directions are judged there, in this order: what reaches the node's own sockets reaches no
/// pod. Where both are, ingress comes first ([`shared`] relies on it).
pub(in crate::network_policy) const FIRST: [(&str, &[policy::Direction]); 3] = [
    (chain::INPUT, &[policy::Direction::Egress]),
    (chain::FORWARD, &policy::Direction::ALL),
    (chain::OUTPUT, &policy::Direction::ALL),
];

/// A pod of this node with an address of the family.
pub(in crate::network_policy) type PodHere = (ObjectName, IpAddr);

/// Where a rule in a chain that is not ours belongs, if it is one of our jumps.
pub fn place(chain: &ChainKey, rule: &Rule) -> Option<Position> {
    let way = WAYS.iter().find(|(built_in, _)| **built_in == *chain.name)?;
    let ours = rule.jump_target().is_some_and(|target| **target == *way.1);
    ours.then_some(Position::First(names::rank::POLICY))
}

/// The rows of one family; `enforced` says that packets meet them already. O(pods of this node).
pub(in crate::network_policy) fn claims(
    family: Family,
    pods: &[PodHere],
    enforced: bool,
    node: &ThisNode,
    options: &Options,
) -> Vec<Claim> {
    let deny = options.network_policy.default_deny;
    let mut claims = vec![
        chain_claim(family, chain::POLICY_COMMON, common(family)),
        chain_claim(family, chain::POLICY_DEFAULT, default()),
        chain_claim(family, chain::POLICY_TAIL, tail(family, deny, node)),
    ];
    for (name, directions) in FIRST {
        let mut rules = if name == chain::INPUT { exempt(family, options) } else { Vec::new() };
        if node.facts.verdict_maps {
            let dispatch = |direction: &policy::Direction| Rule::new([], jump(shared::dispatch(*direction)));
            rules.extend(directions.iter().map(dispatch));
        } else {
            rules.extend(jumps(pods, directions));
        }
        rules.extend(verdict());
        claims.push(chain_claim(family, name, rules));
    }
    if node.facts.verdict_maps {
        claims.extend(shared::dispatchers(family));
    }
    claims.extend(ways_in(family));
    if deny {
        claims.push(set_claim(family, names::set::LOCAL_PODS.into(), SetKind::HashIp));
        let set = local_pods(family);
        for (id, ip) in pods {
            // In once its chain is there; out before that goes. Where nothing is enforced yet, all are in before the
            // rule that refuses others is: they are running, and go on.
            let programmed = match (enforced, node.facts.verdict_maps) {
                (false, _) => Vec::new(),
                (true, true) => {
                    policy::Direction::ALL.map(|direction| shared::verdict_key(*ip, direction)).to_vec()
                }
                (true, false) => vec![Key::Chain(chain_key(family, pod_chain(id)))],
            };
            claims.push(Claim::new(Key::Member(set.clone(), Member::Ip(*ip)), Row::Member).after(programmed));
        }
    }
    claims
}

/// The jumps from the kernel's own chains.
pub(in crate::network_policy) fn ways_in(family: Family) -> impl Iterator<Item = Claim> {
    WAYS.into_iter().map(move |(built_in, target)| {
        let arguments = ["-m", "comment", "--comment", names::comment::POLICY_JUMP, "-j", target];
        let rule = placed(built_in, &arguments, Rule::new([], jump(target)), names::comment::POLICY_JUMP);
        let key = chain_key(family, built_in.into());
        Claim::new(Key::ForeignRule(key, rule), Row::ForeignRule(Position::First(names::rank::POLICY)))
    })
}

/// The set of pods whose rules are there, with default-deny.
pub(in crate::network_policy) fn local_pods(family: Family) -> Arc<SetKey> {
    Arc::new(SetKey { family, name: names::set::LOCAL_PODS.into() })
}

/// What every pod accepts or drops before its policies.
fn common(family: Family) -> Vec<Rule> {
    let states = |states: &[ConntrackState]| Match::ConntrackState(states.to_vec());
    let forbidden =
        Match::ConnectionMark { value: mark::FLOW_FORBIDDEN, mask: mark::FLOW_FORBIDDEN, not: false };
    let mut rules = vec![
        Rule::new([states(&[ConntrackState::Invalid])], Action::Drop)
            .comment("\"rule to drop invalid state for pod\""),
        Rule::new([forbidden], Action::Reject).comment("rule to refuse flows that policies forbid by now"),
        Rule::new([states(&[ConntrackState::Related, ConntrackState::Established])], Action::Accept)
            .comment("\"rule for stateful firewall for pod\""),
    ];
    let types: &[(u8, &str)] = match family {
        Family::V4 => &names::icmp::ALLOWED_V4,
        Family::V6 => &names::icmp::ALLOWED_V6,
    };
    rules.extend(
        types.iter().map(|(kind, text)| Rule::new([Match::IcmpType(*kind)], Action::Accept).comment(text)),
    );
    rules
}

fn default() -> Vec<Rule> {
    vec![Rule::new([], permit()).comment("rule to mark traffic matching a network policy")]
}

/// The verdict after all pods. With default-deny, what belongs to this node's pods but passed no pod's chain is refused:
/// by pod prefix, or where none is known by the bridge pods are on.
fn tail(family: Family, deny: bool, node: &ThisNode) -> Vec<Rule> {
    let accept = Rule::new([passed_its_pod()], Action::Accept).comment("accept netpol-ok");
    if !deny {
        return vec![accept];
    }
    let nets: Vec<IpNet> = node.pod_cidrs(family).map(|net| net.trunc()).collect();
    let ends: Vec<(Match, Direction)> = if nets.is_empty() {
        let bridge = Name::from(names::link::BRIDGE);
        vec![
            (Match::InLink(bridge.clone()), Direction::Source),
            (Match::OutLink(bridge), Direction::Destination),
        ]
    } else {
        let ends = |net: IpNet| [(from(net), Direction::Source), (to(net), Direction::Destination)];
        nets.into_iter().flat_map(ends).collect()
    };
    let unprogrammed = ends.iter().map(|(end, direction)| {
        let missing = in_set(names::set::LOCAL_PODS.into(), &[*direction], true);
        Rule::new([end.clone(), missing], Action::Reject)
            .comment("reject unprogrammed local pod (default-deny)")
    });
    let unmarked = ends
        .iter()
        .map(|(end, _)| Rule::new([end.clone()], Action::Reject).comment("reject pre-netpol (default-deny)"));
    unprogrammed.chain([accept]).chain(unmarked).collect()
}

/// What is not judged on its way in, because it is judged on its way out: IPVS takes it up after INPUT and sends it on to
/// a pod through OUTPUT.
fn exempt(family: Family, options: &Options) -> Vec<Rule> {
    let ips = &options.service_ips;
    let mut rules = Vec::new();
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().copied().filter(|net| Family::of_net(net) == family).collect()
    };
    for net in of_family(&ips.cluster) {
        rules.push(range(net, "allow traffic to primary/secondary cluster IP range"));
    }
    let (first, last) = (*ips.node_ports.start(), *ips.node_ports.end());
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        rules.push(node_ports(protocol, first, last));
    }
    for net in of_family(&ips.external) {
        rules.push(range(net, &format!("allow traffic to external IP range: {net}")));
    }
    for net in of_family(&ips.load_balancer) {
        rules.push(range(net, &format!("allow traffic to load balancer IP range: {net}")));
    }
    rules
}

fn range(net: IpNet, text: &str) -> Rule {
    let shown = net.to_string();
    let arguments = ["-m", "comment", "--comment", text, "-d", &shown, "-j", "RETURN"];
    placed(chain::INPUT, &arguments, Rule::new([to(net.trunc())], Action::Return), text)
}

fn node_ports(protocol: Protocol, first: u16, last: u16) -> Rule {
    let (name, ports) = (protocol.as_str(), format!("{first}:{last}"));
    let text = format!("allow LOCAL {} traffic to node ports", name.to_uppercase());
    let arguments = [
        "-p",
        name,
        "-m",
        "comment",
        "--comment",
        &text,
        "-m",
        "addrtype",
        "--dst-type",
        "LOCAL",
        "-m",
        "multiport",
        "--dports",
        &ports,
        "-j",
        "RETURN",
    ];
    let matches = [
        Match::Protocol(protocol),
        Match::LocalAddress { direction: Direction::Destination, not: false },
        Match::DestinationPorts(first, last),
    ];
    placed(chain::INPUT, &arguments, Rule::new(matches, Action::Return), &text)
}

/// A rule whose place matters: upstream finds it by the hash in its comment.
fn placed(chain: &str, arguments: &[&str], rule: Rule, text: &str) -> Rule {
    rule.comment(&format!("{text} - {}", hash::of_rule(chain, arguments)))
}

/// The jumps of every pod.
pub(in crate::network_policy) fn jumps(pods: &[PodHere], directions: &[policy::Direction]) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(pods.len() * directions.len());
    for (id, ip) in pods {
        for direction in directions {
            let (end, what) = match direction {
                policy::Direction::Ingress => (to(*ip), "in"),
                policy::Direction::Egress => (from(*ip), "out"),
            };
            rules.push(Rule::new([end], Action::Jump(pod_chain(id))).comment(&comment(id, what)));
        }
    }
    rules
}

/// What is left to say when every pod has been asked.
fn verdict() -> [Rule; 2] {
    [
        Rule::new([], jump(chain::POLICY_TAIL)).comment(names::comment::POLICY_TAIL),
        Rule::new([passed_its_pod()], Action::Accept).comment(names::comment::POLICY_ACCEPT),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(rule: &Rule) -> String {
        let Rule::Known(rule) = rule else { panic!("a rule of ours") };
        rule.comment.as_ref().unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    /// Values computed by another program from upstream's rule.
    #[test]
    fn placed_rules_have_upstreams_suffixes() {
        let cidr = |text: &str| text.parse::<IpNet>().unwrap();
        let flags = ["--service-external-ip-range=198.51.100.0/24", "--loadbalancer-ip-range=10.255.0.0/16"];
        let rules = exempt(Family::V4, &Options::from_flags(&flags).unwrap());
        let suffixes: Vec<String> = rules.iter().map(suffix).collect();
        assert_eq!(
            suffixes,
            [
                "BVHX2PIHDXXEO43X",
                "LR7XO7NXDBGQJD2M",
                "76UCBPIZNGJNWNUZ",
                "YU47VQ3DEDE3VDG7",
                "GPSEI22COO7LUPQG",
                "TXV2FCYZD26TN5T3"
            ]
        );
        assert_eq!(
            suffix(&range(cidr("10.96.0.0/12"), "allow traffic to primary/secondary cluster IP range")),
            suffixes[0]
        );
    }
}

//! Pod egress: what pods send out of the cluster leaves with the address of their node.
//!
//! Decided here: what counts as inside. The rule looks into two sets, the pod networks and the addresses of nodes that
//! have one; each node brings its own members, so that a new node is inside at once (upstream's W12).

use linux::reconciler::Claim;
use linux::row::{ChainKey, Family, FilterTable, Key, Member, Position, Row, SetHeader, SetKey, SetKind};
use linux::rule::{Action, Direction, Match, Rule};

use crate::kube::model::Node;
use crate::names;
use crate::node::ThisNode;
use crate::options::Options;

/// Room in each set. Only a limit: the kernel's table grows with its members.
const SET_ROOM: u32 = 1 << 20;

/// The sets of one family, and the rule if pod egress is on. `--cluster-cidr` is inside, too.
pub fn claims(family: Family, node: &ThisNode, options: &Options) -> Vec<Claim> {
    let set = |name: &str, kind| {
        let header = SetHeader { kind, max_members: SET_ROOM, timeout: None };
        Claim::new(Key::Set(SetKey { family, name: name.into() }), Row::Set(header))
    };
    let mut claims =
        vec![set(names::set::POD_SUBNETS, SetKind::HashNet), set(names::set::NODE_IPS, SetKind::HashIp)];
    let given = options.pod_cidrs.iter().filter(|net| Family::of_net(net) == family);
    claims.extend(given.map(|net| member(names::set::POD_SUBNETS, family, Member::Net(net.trunc()))));
    if options.routes.pod_egress {
        claims.push(masquerade(family, node));
    }
    claims
}

fn masquerade(family: Family, node: &ThisNode) -> Claim {
    let inside =
        |name: &str, direction, not| Match::Set { name: name.into(), directions: vec![direction], not };
    let matches = [
        inside(names::set::POD_SUBNETS, Direction::Source, false),
        inside(names::set::POD_SUBNETS, Direction::Destination, true),
        inside(names::set::NODE_IPS, Direction::Destination, true),
    ];
    let rule = Rule::new(matches, Action::Masquerade { random_fully: node.facts.random_fully });
    let chain = ChainKey { family, table: FilterTable::Nat, name: "POSTROUTING".into() };
    Claim::new(Key::ForeignRule(chain, rule), Row::ForeignRule(Position::Anywhere))
}

/// What one node has inside, in the families this node has sets for: its pod networks, and its addresses if it has
/// such a network.
pub fn members(other: &Node, here: &ThisNode) -> Vec<Claim> {
    let families: Vec<Family> = here.families().collect();
    let nets = other.pod_cidrs.iter().map(|net| net.trunc());
    let nets = nets.map(|net| (Family::of_net(&net), names::set::POD_SUBNETS, Member::Net(net)));
    let ips = other.internal_ips.iter().chain(&other.external_ips).filter(|_| !other.pod_cidrs.is_empty());
    let ips = ips.map(|ip| (Family::of(ip), names::set::NODE_IPS, Member::Ip(*ip)));
    let known = nets.chain(ips).filter(|(family, ..)| families.contains(family));
    known.map(|(family, set, inside)| member(set, family, inside)).collect()
}

fn member(set: &str, family: Family, member: Member) -> Claim {
    Claim::new(Key::Member(SetKey { family, name: set.into() }.into(), member), Row::Member)
}

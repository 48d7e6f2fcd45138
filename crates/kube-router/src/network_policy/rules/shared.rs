//! The chains of pods where the packet filter finds a pod's chain by its address in a map (nftables).
//!
//! A packet then enters a chain in one direction only, so the chain need not say which pod it is of, and pods restricted
//! by the same policies share it. How many pods a node has makes no difference to a packet.
//!
//! No policy keeps a pod from itself, but a shared chain cannot tell a pod from others: on its way to a pod that some
//! policy isolates, in either direction, a packet passes a short chain of that pod alone first. What it accepts is not
//! asked about egress any more, for every chain that judges both directions begins with ingress.
//!
//! While the kernel replaces an entry of a map, a packet on another processor may find neither the old one nor the new
//! one. So who finds none looks again: the kernel has by then begun to show the new state (decision 0036).

use std::net::IpAddr;

use linux::reconciler::Claim;
use linux::row::{Family, Key, Name, Row, SetKey};
use linux::rule::{Action, Direction as End, Match, Rule};

use super::{chain_claim, chain_key, from, jump, permitted, policy_chain};
use crate::names::{self, chain, mark};
use crate::network_policy::compile::{Compiled, Direction};
use crate::network_policy::hash::Hash;

/// The map of a direction, by pod address.
pub(super) fn map(direction: Direction) -> Name {
    match direction {
        Direction::Ingress => names::set::POD_INGRESS.into(),
        Direction::Egress => names::set::POD_EGRESS.into(),
    }
}

/// The chain that looks for the packet's pod in a direction.
pub(in crate::network_policy) fn dispatch(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => chain::POD_INGRESS,
        Direction::Egress => chain::POD_EGRESS,
    }
}

/// The chains that look for the packet's pod, and the maps they look into.
pub(super) fn dispatchers(family: Family) -> impl Iterator<Item = Claim> {
    Direction::ALL.into_iter().flat_map(move |direction| {
        let of = match direction {
            Direction::Ingress => End::Destination,
            Direction::Egress => End::Source,
        };
        // What is found returns to the caller of this chain: the second look is that of packets which found nothing.
        let look = Rule::new([], Action::VerdictMap { map: map(direction), of });
        let rules = vec![look.clone(), look.comment("again, if it is being replaced")];
        let key = Key::VerdictMap(SetKey { family, name: map(direction) });
        [Claim::new(key, Row::VerdictMap), chain_claim(family, dispatch(direction), rules)]
    })
}

/// A pod's places in the maps, and the chains they lead to. O(policies that select the pod).
pub(in crate::network_policy) fn claims(ip: IpAddr, policies: &[&Compiled]) -> Vec<Claim> {
    let family = Family::of(&ip);
    let isolated = |direction| policies.iter().any(|policy| policy.permits(direction).is_some());
    let is_isolated = Direction::ALL.into_iter().any(isolated);
    let mut claims = Vec::new();
    for direction in Direction::ALL {
        let isolating: Vec<&Compiled> =
            policies.iter().copied().filter(|policy| policy.permits(direction).is_some()).collect();
        let (hash, name) = chain_name(direction, &isolating);
        // The map lets go of this chain before it goes; until then the chains it jumps to must stay.
        let jumped_to = isolating.iter().map(|policy| policy_chain(&policy.id, direction));
        let jumped_to = jumped_to.map(|name| Key::Chain(chain_key(family, name))).collect::<Vec<_>>();
        claims.push(chain_claim(family, &name, rules(direction, &isolating, &hash)).after(jumped_to));
        let first = if is_isolated && direction == Direction::Ingress {
            let (own, claim) = to_itself(ip, &hash, &name);
            claims.push(claim);
            own
        } else {
            name
        };
        let key = Key::Verdict(SetKey { family, name: map(direction) }, ip);
        claims.push(Claim::new(key, Row::Verdict(first)));
    }
    claims
}

/// The chain of one pod that lets it reach itself and leads on to the shared one. It, too, is named after what is in it,
/// and never changes: another shared chain is another chain here, and the map goes from one to the other at once.
fn to_itself(ip: IpAddr, hash: &str, shared: &Name) -> (Name, Claim) {
    let family = Family::of(&ip);
    let own = Hash::new().fields(["itself", &ip.to_string(), hash].into_iter()).finish();
    let name = Name::from(format!("{}{own}", chain::POD_PREFIX));
    let rules = vec![
        Rule::new([from(ip)], Action::Accept).comment("to itself"),
        Rule::new([], jump(shared)).comment("pods restricted alike"),
    ];
    let shared = Key::Chain(chain_key(family, shared.clone()));
    let claim = chain_claim(family, &name, rules).after([shared]);
    (name, claim)
}

/// Named after what is in it.
fn chain_name(direction: Direction, isolating: &[&Compiled]) -> (String, Name) {
    let ids = isolating.iter().flat_map(|policy| [&*policy.id.namespace, &*policy.id.name]);
    let fields: Vec<&str> = ["pods", direction.as_str()].into_iter().chain(ids).collect();
    let hash = Hash::new().fields(fields.into_iter()).finish();
    let name = format!("{}{hash}", chain::POD_PREFIX).into();
    (hash, name)
}

fn rules(direction: Direction, isolating: &[&Compiled], hash: &str) -> Vec<Rule> {
    let mut rules = vec![Rule::new([], jump(chain::POLICY_COMMON)).comment("common netpol rules")];
    if direction == Direction::Ingress {
        let own_node = Match::LocalAddress { direction: End::Source, not: false };
        rules.push(Rule::new([own_node], Action::Accept).comment("from local node"));
    }
    if isolating.is_empty() {
        let text = format!("default {}", direction.as_str());
        rules.push(Rule::new([], jump(chain::POLICY_DEFAULT)).comment(&text));
    }
    for policy in isolating {
        let target = policy_chain(&policy.id, direction);
        rules.push(Rule::new([], Action::Jump(target)).comment(&super::comment(&policy.id, "policy")));
    }
    let way = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    let log = Action::Log { group: names::NFLOG_GROUP, prefix: Some(format!("{way} {hash}").into()) };
    let limit = Match::Limit { per_minute: 10, burst: 10 };
    rules.push(Rule::new([permitted(true), limit], log).comment("log-drop"));
    rules.push(Rule::new([permitted(true)], Action::Reject).comment("reject"));
    rules.push(Rule::new([], Action::Mark { value: 0, mask: mark::POLICY_PERMITS }));
    let passed = Action::Mark { value: mark::POD_PASSED, mask: mark::POD_PASSED };
    rules.push(Rule::new([], passed).comment("set netpol-ok mark"));
    rules
}

/// The row by which a pod counts as programmed in a direction.
pub(in crate::network_policy) fn verdict_key(ip: IpAddr, direction: Direction) -> Key {
    Key::Verdict(SetKey { family: Family::of(&ip), name: map(direction) }, ip)
}

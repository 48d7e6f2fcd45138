//! The chain of a pod: what reaches it, and what it sends.
//!
//! A packet enters by the pod's address as source or destination. Each direction that some policy isolates needs the mark
//! of one of that direction's policies; the other gets the mark for nothing. Between two pods of this node a packet
//! passes both chains, and each takes the mark off again.

use std::net::IpAddr;

use linux::reconciler::Claim;
use linux::row::Family;
use linux::rule::{Action, Direction as End, Match, Rule};

use super::{chain_claim, comment, from, jump, permitted, pod_chain, pod_hash, policy_chain, to};
use crate::kube::model::ObjectName;
use crate::names::{self, chain, mark};
use crate::network_policy::compile::{Compiled, Direction};

/// The chain in the family of one of its addresses. O(policies that select the pod).
pub(in crate::network_policy) fn claim(id: &ObjectName, ip: IpAddr, policies: &[&Compiled]) -> Claim {
    let end = |direction| match direction {
        Direction::Ingress => to(ip),
        Direction::Egress => from(ip),
    };
    let isolated = |direction| policies.iter().any(|policy| policy.permits(direction).is_some());
    let own_node = Match::LocalAddress { direction: End::Source, not: false };
    let mut rules = vec![
        Rule::new([], jump(chain::POLICY_COMMON)).comment("common netpol rules"),
        Rule::new([to(ip), own_node], Action::Accept).comment("from local node"),
    ];
    for direction in [Direction::Egress, Direction::Ingress] {
        if !isolated(direction) {
            let text = format!("default {}", direction.as_str());
            rules.push(Rule::new([end(direction)], jump(chain::POLICY_DEFAULT)).comment(&text));
        }
    }
    if Direction::ALL.into_iter().all(isolated) {
        // No policy keeps a pod from itself. Where one direction is free, its mark does for this.
        rules.push(Rule::new([from(ip), to(ip)], jump(chain::POLICY_DEFAULT)).comment("to itself"));
    }
    for policy in policies {
        for direction in Direction::ALL {
            if policy.permits(direction).is_some() {
                let target = policy_chain(&policy.id, direction);
                let rule = Rule::new([end(direction)], Action::Jump(target));
                rules.push(rule.comment(&comment(&policy.id, "policy")));
            }
        }
    }
    rules.extend(refusal(id, end(Direction::Ingress), end(Direction::Egress)));
    rules.push(Rule::new([], Action::Mark { value: 0, mask: mark::POLICY_PERMITS }));
    let passed = Action::Mark { value: mark::POD_PASSED, mask: mark::POD_PASSED };
    rules.push(Rule::new([], passed).comment("set netpol-ok mark"));
    chain_claim(Family::of(&ip), &pod_chain(id), rules)
}

/// What is not permitted is logged, ten packets a minute, and refused. The log's prefix says which way it went and, by
/// the hash in its chain's name, which pod refused it.
fn refusal(id: &ObjectName, ingress: Match, egress: Match) -> Vec<Rule> {
    let log = |end: Match, way: &str| {
        let matches = [end, permitted(true), Match::Limit { per_minute: 10, burst: 10 }];
        let prefix = format!("{way} {}", pod_hash(id));
        Rule::new(matches, Action::Log { group: names::NFLOG_GROUP, prefix: Some(prefix.into()) })
            .comment(&comment(id, "log-drop"))
    };
    vec![
        log(ingress, "in"),
        log(egress, "out"),
        Rule::new([permitted(true)], Action::Reject).comment(&comment(id, "reject")),
    ]
}

//! Whether a pod may be let go: everything that decides about its packets is in the kernel.
//!
//! Decided here: which rows that is. The chains that lead to a pod's own are looked at for this pod's rules only, so pods
//! that come and go beside it hold up nobody.

use std::net::IpAddr;

use linux::reconciler::{Claim, Reconciler};
use linux::row::{Family, Key, Member, Row};

use super::NetworkPolicies;
use super::compile::{Compiled, Direction};
use super::rules::{chain_key, frame, members, pod_chain, policy_chain, shared};
use crate::core::Inputs;
use crate::kube::model::{ObjectName, Pod};
use crate::names::chain;
use crate::owner::Owner;

type Rows = Reconciler<Owner>;

impl NetworkPolicies {
    /// Whether every packet from and to this pod of this node is judged by the policies that select it, and policies here
    /// that name it as a peer know it. O(policies that select it + rules of this node's first chains).
    pub(super) fn is_guarded(&self, pod: &Pod, inputs: Inputs<'_>, rows: &Rows) -> bool {
        let Some((known, group)) = self.index().pod(&pod.id) else { return false };
        if !known.here || *known.ips() != *pod.ips {
            return false;
        }
        let policies = self.index().policies_of(group);
        let maps = inputs.node.facts.verdict_maps;
        let listed = members::claims(&pod.id, self.index()).iter().all(|claim| rows.stands(&claim.key));
        listed
            && self.families().filter_map(|family| known.ip(family)).all(|ip| {
                let led = if maps { is_mapped(ip, &policies, rows) } else { is_led_to(&pod.id, ip, rows) };
                let let_in = !inputs.options.network_policy.default_deny
                    || rows.stands(&Key::Member(frame::local_pods(Family::of(&ip)), Member::Ip(ip)));
                led && let_in && judges(Family::of(&ip), &policies, rows)
            })
    }
}

/// The chains that every pod shares and those of its policies are there.
fn judges(family: Family, policies: &[&Compiled], rows: &Rows) -> bool {
    let shared = [chain::POLICY_COMMON, chain::POLICY_DEFAULT, chain::POLICY_TAIL];
    let shared = shared.into_iter().map(Into::into);
    let own = policies.iter().flat_map(|policy| {
        let isolated = Direction::ALL.into_iter().filter(|direction| policy.permits(*direction).is_some());
        isolated.map(|direction| policy_chain(&policy.id, direction))
    });
    let mut chains = shared.chain(own).map(|name| Key::Chain(chain_key(family, name)));
    chains.all(|key| rows.stands(&key)) && frame::ways_in(family).all(|claim| rows.stands(&claim.key))
}

/// Every first chain has the jumps to the pod's own, which is there.
fn is_led_to(id: &ObjectName, ip: IpAddr, rows: &Rows) -> bool {
    let family = Family::of(&ip);
    let leads = |(way, directions): (&str, &[Direction])| {
        let Some(Row::Chain(there)) = rows.actual(&Key::Chain(chain_key(family, way.into()))) else {
            return false;
        };
        frame::jumps(&[(id.clone(), ip)], directions).iter().all(|jump| there.contains(jump))
    };
    frame::FIRST.into_iter().all(leads) && rows.stands(&Key::Chain(chain_key(family, pod_chain(id))))
}

/// The maps lead to the pod's verdict.
fn is_mapped(ip: IpAddr, policies: &[&Compiled], rows: &Rows) -> bool {
    let firsts = frame::FIRST.into_iter().map(|(way, _)| way).chain(Direction::ALL.map(shared::dispatch));
    let firsts = firsts.map(|name| Key::Chain(chain_key(Family::of(&ip), name.into())));
    // Another pod may still have the address in the API, and its verdict be the one that stands.
    let own = |claim: &Claim| rows.stands(&claim.key) && rows.actual(&claim.key) == Some(&claim.row);
    firsts.into_iter().all(|key| rows.stands(&key)) && shared::claims(ip, policies).iter().all(own)
}

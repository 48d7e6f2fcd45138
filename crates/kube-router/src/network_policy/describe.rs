//! What network policy tells of itself: which policies restrict each pod, and what they say of a packet.
//!
//! Decided here: who enforces an answer. Each node enforces the policies of its own pods; of others this node knows what
//! their nodes should do.

use std::net::IpAddr;

use linux::reconciler::Reconciler;
use linux::row::{ChainKey, Family, FilterTable, Key};

use super::compile::Direction;
use super::evaluate::{Judgement, Packet};
use super::index::{Index, KnownPod};
use super::rules::{pod_chain, shared};
use crate::core::Inputs;
use crate::explain::{Explanation, Outcome, PathHop, PolicyHop};
use crate::kube::model::ObjectName;
use crate::node::ThisNode;
use crate::owner::Owner;
use crate::status::PodState;

/// The pods of this node. O(pods of this node × policies that select them).
pub(super) fn pods(index: &Index, node: &ThisNode, rows: &Reconciler<Owner>) -> Vec<PodState> {
    let state = |pod: &KnownPod| {
        let policies = index.pod(pod.id()).map(|(_, group)| index.policies_of(group)).unwrap_or_default();
        let restricting = |direction| {
            let policies = policies.iter().filter(|policy| policy.permits(direction).is_some());
            policies.map(|policy| policy.id.to_string()).collect()
        };
        PodState {
            pod: pod.id().to_string(),
            addresses: pod.ips().iter().map(ToString::to_string).collect(),
            ingress: restricting(Direction::Ingress),
            egress: restricting(Direction::Egress),
            programmed: keys(pod, index, node).iter().all(|key| rows.actual(key).is_some()),
        }
    };
    index.pods_here().into_iter().map(state).collect()
}

/// The rows by which a pod counts as programmed.
fn keys(pod: &KnownPod, index: &Index, node: &ThisNode) -> Vec<Key> {
    let families = Family::ALL.into_iter().filter(|family| index.enforces(*family));
    let ips = families.filter_map(|family| pod.ip(family));
    if node.facts.verdict_maps {
        ips.flat_map(|ip| Direction::ALL.map(|direction| shared::verdict_key(ip, direction))).collect()
    } else {
        let chain =
            |ip| ChainKey { family: Family::of(&ip), table: FilterTable::Filter, name: pod_chain(pod.id()) };
        ips.map(|ip| Key::Chain(chain(ip))).collect()
    }
}

/// Adds what policies say to each path of an explanation. O(paths × policies of both ends).
pub(super) fn judge(index: &Index, inputs: Inputs<'_>, explanation: &mut Explanation) {
    for path in &mut explanation.paths {
        if !index.enforces(Family::of(&path.destination)) {
            continue;
        }
        let here = |ip: IpAddr| index.pods_at(ip).any(|(pod, _)| pod.here);
        // On another node a masqueraded packet comes from this one.
        let seen = if here(path.destination) { path.source } else { path.seen_as() };
        let (sent, received) = (packet(path, path.source, inputs), packet(path, seen, inputs));
        let (egress, ingress) = (index.evaluate(&sent).egress, index.evaluate(&received).ingress);
        path.egress = Some(hop(egress, here(path.source), node_of(index, path.source, inputs)));
        path.ingress = Some(hop(ingress, here(path.destination), node_of(index, path.destination, inputs)));
    }
}

fn packet(path: &PathHop, source: IpAddr, inputs: Inputs<'_>) -> Packet {
    let protocol = path.transport().filter(|_| path.port.is_some());
    Packet {
        source,
        destination: path.destination,
        protocol,
        port: path.port.unwrap_or_default(),
        from_own_node: is_own_node(path, source, inputs),
    }
}

/// Whether the source is the node that the destination is on.
fn is_own_node(path: &PathHop, source: IpAddr, inputs: Inputs<'_>) -> bool {
    let Inputs { store, node, .. } = inputs;
    match &path.destination_node {
        Some(name) if **name != *node.name => store
            .node(name)
            .is_some_and(|node| node.internal_ips.contains(&source) || node.external_ips.contains(&source)),
        _ => node.facts.addresses.iter().any(|(_, net)| net.addr() == source),
    }
}

fn node_of(index: &Index, ip: IpAddr, inputs: Inputs<'_>) -> Option<String> {
    let (pod, _) = index.pods_at(ip).next()?;
    Some(inputs.store.pod(pod.id())?.node.as_ref()?.to_string())
}

fn hop(judgement: Judgement, here: bool, node: Option<String>) -> PolicyHop {
    let names = |policies: Vec<ObjectName>| policies.iter().map(ToString::to_string).collect();
    let (outcome, policies) = match judgement {
        Judgement::NoPod => (Outcome::NoPod, Vec::new()),
        Judgement::NotIsolated => (Outcome::NotIsolated, Vec::new()),
        Judgement::Exempt => (Outcome::Exempt, Vec::new()),
        Judgement::Permitted(policies) => (Outcome::Permitted, names(policies)),
        Judgement::Refused(policies) => (Outcome::Refused, names(policies)),
    };
    PolicyHop { outcome, policies, enforced_here: here, node }
}

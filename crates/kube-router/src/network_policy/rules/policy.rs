//! The chains of a policy, one for each direction it isolates, and the sets they look into.
//!
//! A chain is entered only by packets of pods the policy selects, in its direction, so it asks for the other end and the
//! port alone. What is permitted is marked and goes back; the pod's chain refuses what comes back unmarked.

use std::collections::BTreeSet;
use std::sync::Arc;

use linux::reconciler::Claim;
use linux::row::{Family, Key, Member, Name, Row, SetKey, SetKind as KernelSet};
use linux::rule::{Action, Direction as End, Match, Rule};

use super::{chain_claim, comment, in_set, permit, permitted, policy_chain, set_claim};
use crate::kube::model::{PolicyPort, PortRange};
use crate::names::set;
use crate::network_policy::blocks::Blocks;
use crate::network_policy::compile::{Compiled, Direction, Peers, Permit, ports_set};
use crate::network_policy::hash::Hash;
use crate::network_policy::index::Index;
use crate::network_policy::selections::{SelectionNumber, SetKind, SetOf};

/// Everything a policy in force needs in a family. O(peers × ports + prefixes).
pub(in crate::network_policy) fn claims(policy: &Compiled, family: Family, index: &Index) -> Vec<Claim> {
    let mut claims = Vec::new();
    for SetOf { selection, kind } in policy.sets() {
        let Some(name) = set_name(index, selection, &kind) else { continue };
        let kind = match kind {
            SetKind::Addresses => KernelSet::HashIp,
            SetKind::Ports { .. } => KernelSet::HashIpPort,
        };
        claims.push(set_claim(family, name, kind));
    }
    for direction in Direction::ALL {
        let Some(permits) = policy.permits(direction) else { continue };
        let mut chain = Chain { policy, family, direction, index, rules: Vec::new(), seen: BTreeSet::new() };
        for permit in permits {
            if let Peers::These { blocks, .. } = &permit.peers {
                claims.extend(block_claims(blocks, family));
            }
            chain.add(permit);
        }
        let Chain { rules, .. } = chain;
        claims.push(chain_claim(family, &policy_chain(&policy.id, direction), rules));
    }
    claims
}

/// A set for prefixes, named after them: policies that name the same share it, and another list is another set.
fn block_claims(blocks: &Blocks, family: Family) -> Vec<Claim> {
    let Some(name) = blocks_name(blocks, family) else { return Vec::new() };
    let key = Arc::new(SetKey { family, name: name.clone() });
    let members =
        blocks.of(family).map(|net| Claim::new(Key::Member(key.clone(), Member::Net(net)), Row::Member));
    [set_claim(family, name, KernelSet::HashNet)].into_iter().chain(members).collect()
}

fn blocks_name(blocks: &Blocks, family: Family) -> Option<Name> {
    let prefixes: Vec<String> = blocks.of(family).map(|net| net.to_string()).collect();
    let hash = Hash::new().field("blocks").fields(prefixes.iter().map(String::as_str)).finish();
    (!prefixes.is_empty()).then(|| format!("{}{hash}", set::SOURCE_PREFIX).into())
}

fn set_name(index: &Index, selection: SelectionNumber, kind: &SetKind) -> Option<Name> {
    let selection = index.selections.get(selection)?;
    Some(
        selection
            .sets
            .get(kind)
            .map_or_else(|| selection.set_name(kind), |needed| needed.key(Family::V4).name.clone()),
    )
}

/// A chain being written.
struct Chain<'a> {
    policy: &'a Compiled,
    family: Family,
    direction: Direction,
    index: &'a Index,
    rules: Vec<Rule>,
    seen: BTreeSet<Rule>,
}

impl Chain<'_> {
    fn add(&mut self, permit: &Permit) {
        let peer_end = match self.direction {
            Direction::Ingress => End::Source,
            Direction::Egress => End::Destination,
        };
        match &permit.peers {
            Peers::Anyone => self.add_ports(permit, None, None, "any"),
            Peers::These { selections, blocks } => {
                for selection in selections {
                    let peer = set_name(self.index, *selection, &SetKind::Addresses)
                        .map(|name| in_set(name, &[peer_end], false));
                    if peer.is_some() {
                        self.add_ports(permit, peer, Some(*selection), "pods");
                    }
                }
                if let Some(name) = blocks_name(blocks, self.family) {
                    self.add_ports(permit, Some(in_set(name, &[peer_end], false)), None, "cidr");
                }
            }
        }
    }

    /// A rule for each port; without ports, one for all.
    fn add_ports(
        &mut self,
        permit: &Permit,
        peer: Option<Match>,
        selection: Option<SelectionNumber>,
        what: &str,
    ) {
        let Some(ports) = &permit.ports else {
            self.push(peer.into_iter().collect(), what);
            return;
        };
        for port in ports {
            match &port.port {
                PortRange::Any => self.push_numbered(&peer, port, None, what),
                PortRange::Numbers(first, last) => {
                    self.push_numbered(&peer, port, Some((*first, *last)), what)
                }
                PortRange::Named(_) => self.push_named(&peer, selection, port, what),
            }
        }
    }

    fn push_numbered(
        &mut self,
        peer: &Option<Match>,
        port: &PolicyPort,
        range: Option<(u16, u16)>,
        what: &str,
    ) {
        let mut matches: Vec<Match> = peer.iter().cloned().collect();
        matches.push(Match::Protocol(port.protocol));
        matches.extend(range.map(|(first, last)| Match::DestinationPort(first, last)));
        self.push(matches, what);
    }

    /// The receiver's address and port are looked for together. On the way out that says who the peer is, too.
    fn push_named(
        &mut self,
        peer: &Option<Match>,
        selection: Option<SelectionNumber>,
        port: &PolicyPort,
        what: &str,
    ) {
        let owner = match (self.direction, selection) {
            (Direction::Ingress, _) => Some(self.policy.target),
            (Direction::Egress, Some(selection)) => Some(selection),
            (Direction::Egress, None) => self.policy.everyone,
        };
        let set = owner.and_then(|selection| ports_set(self.direction, selection, port));
        let Some(name) = set.and_then(|set| set_name(self.index, set.selection, &set.kind)) else { return };
        let by_port = self.direction == Direction::Egress && selection.is_some();
        let mut matches: Vec<Match> = peer.iter().filter(|_| !by_port).cloned().collect();
        matches.push(in_set(name, &[End::Destination, End::Destination], false));
        self.push(matches, &format!("{what} np"));
    }

    /// What it permits is marked and goes back.
    fn push(&mut self, matches: Vec<Match>, what: &str) {
        let text = format!("{} {what}", self.direction.as_str());
        let rule = Rule::new(matches, permit()).comment(&comment(&self.policy.id, &text));
        if self.seen.insert(rule.clone()) {
            self.rules.push(rule);
            self.rules.push(Rule::new([permitted(false)], Action::Return));
        }
    }
}

//! Running flows that a change of policy forbids, or permits again.
//!
//! The kernel's rules let a flow pass once its first packet was let pass. After rules or memberships have changed, flows
//! that touch the pods concerned are looked at, and judged as if they began now: those not permitted get a bit of their
//! mark set that the rules refuse before they accept established flows, those permitted lose it. Deleting the kernel's
//! entry would not do: the next packet of the answering side would begin a new flow, in a direction that may be permitted.
//!
//! Decided here: when to look (once the rules are in the kernel: a flow begun before that is then seen), and what is
//! forbidden. Looking and marking is done elsewhere ([`crate::core::Effect`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::conntrack::Flow;
use linux::row::Protocol;

use super::evaluate::Packet;
use super::index::Index;
use crate::core::Effect;
use crate::names::mark::FLOW_FORBIDDEN;
use crate::node::ThisNode;

/// How long looking may be put off while rules keep changing. It is then done once more when they have come to rest.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be looked at, and done.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Addresses whose flows are to be looked at when the rules are in the kernel.
    waiting: BTreeSet<IpAddr>,
    /// When they are looked at even if the rules are not.
    due: Option<Instant>,
    effects: Vec<Effect>,
}

impl Flows {
    /// The flows of these addresses may be permitted no more, or again. O(addresses).
    pub(super) fn look_at(&mut self, addresses: BTreeSet<IpAddr>, now: Instant) {
        if !addresses.is_empty() {
            self.waiting.extend(addresses);
            self.due.get_or_insert(now + PATIENCE);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + PATIENCE);
            self.effects.push(Effect::ReadFlows(self.waiting.iter().copied().collect()));
        }
    }

    /// Everything planned is in the kernel.
    pub(super) fn programmed(&mut self) {
        self.due = None;
        let addresses = std::mem::take(&mut self.waiting);
        if !addresses.is_empty() {
            self.effects.push(Effect::ReadFlows(addresses.into_iter().collect()));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Marks what is wrongly marked. O(flows × policies of their ends).
    pub(super) fn judge(&mut self, flows: Vec<Flow>, index: &Index, node: &ThisNode) {
        let (mut forbid, mut permit) = (Vec::new(), Vec::new());
        for flow in flows {
            let Some(packet) = first_packet(&flow, node) else { continue };
            let marked = flow.mark & FLOW_FORBIDDEN != 0;
            match (index.passes_here(&packet), marked) {
                (false, false) => forbid.push(flow),
                (true, true) => permit.push(flow),
                _ => {}
            }
        }
        for (flows, forbidden) in [(forbid, true), (permit, false)] {
            if !flows.is_empty() {
                self.effects.push(Effect::MarkFlows { flows, forbidden });
            }
        }
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// The first packet of a flow as rules saw it: on its way to the server that really has it, from the client that really
/// began it. `None` for protocols without ports: their requests are not refused, or have no policy but by address.
fn first_packet(flow: &Flow, node: &ThisNode) -> Option<Packet> {
    let protocol = Protocol::from_number(flow.original.protocol)?;
    let (source, _) = flow.original.source;
    let (destination, port) = flow.reply.source;
    let from_own_node = node.facts.addresses.iter().any(|(_, net)| net.addr() == source);
    Some(Packet { source, destination, protocol: Some(protocol), port, from_own_node })
}

//! Whether a packet passes, and which policies decide that.
//!
//! Answered from the compiled form: for pods of this node it is what the rules in the kernel do, for others what their
//! nodes should do. It serves as the oracle of tests, decides which running flows a change forbids, and explains.
//!
//! Not judged: replies and related packets, which pass with the flow they belong to, and the ICMP messages that always
//! pass ([`crate::names::icmp`]).

use std::net::IpAddr;

use linux::row::Protocol;

use super::compile::{Compiled, Direction, Peers, Permit};
use super::index::{Group, Index};
use crate::kube::model::{ObjectName, PolicyPort, PortRange};

/// The first packet of a flow, as it is after every translation of its destination and before any of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// Who receives it: a pod's address, never a Service's.
    pub destination: IpAddr,
    /// Its protocol; `None` if it is none that has ports.
    pub protocol: Option<Protocol>,
    /// Destination port; 0 without a protocol.
    pub port: u16,
    /// The source is an address of the node the destination is on.
    pub from_own_node: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// It passes both ends.
    pub allowed: bool,
    /// What the sender's policies say.
    pub egress: Judgement,
    /// What the receiver's policies say.
    pub ingress: Judgement,
}

/// What one end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// There is no pod with an address of its own at this end.
    NoPod,
    /// No policy restricts the pod in this direction.
    NotIsolated,
    /// The pod itself, or the node it runs on.
    Exempt,
    /// These policies permit it.
    Permitted(Vec<ObjectName>),
    /// These policies isolate the pod, and none permits it.
    Refused(Vec<ObjectName>),
}

impl Judgement {
    /// Whether the packet passes this end.
    pub fn passes(&self) -> bool {
        !matches!(self, Judgement::Refused(_))
    }
}

impl Index {
    /// See the module. O(policies of both pods × their rules).
    pub fn evaluate(&self, packet: &Packet) -> Verdict {
        let egress = self.judge(packet, Direction::Egress);
        let ingress = self.judge(packet, Direction::Ingress);
        Verdict { allowed: egress.passes() && ingress.passes(), egress, ingress }
    }

    /// Whether the rules of this node let a packet pass: those of pods that are here.
    pub fn passes_here(&self, packet: &Packet) -> bool {
        let here = |ip| self.pods_at(ip).any(|(pod, _)| pod.here);
        (!here(packet.source) || self.judge(packet, Direction::Egress).passes())
            && (!here(packet.destination) || self.judge(packet, Direction::Ingress).passes())
    }

    fn judge(&self, packet: &Packet, direction: Direction) -> Judgement {
        let (own, peer) = match direction {
            Direction::Ingress => (packet.destination, packet.source),
            Direction::Egress => (packet.source, packet.destination),
        };
        let mut pods = self.pods_at(own).peekable();
        if pods.peek().is_none() {
            return Judgement::NoPod;
        }
        if own == peer || direction == Direction::Ingress && packet.from_own_node {
            return Judgement::Exempt;
        }
        let policies: Vec<(&Compiled, &[Permit])> = pods
            .flat_map(|(_, group)| self.policies_of(group))
            .filter_map(|policy| Some((policy, policy.permits(direction)?)))
            .collect();
        if policies.is_empty() {
            return Judgement::NotIsolated;
        }
        let permits =
            |permits: &[Permit]| permits.iter().any(|permit| self.permits(permit, direction, peer, packet));
        let names = |policies: &mut dyn Iterator<Item = &(&Compiled, &[Permit])>| {
            policies.map(|(policy, _)| policy.id.clone()).collect::<Vec<_>>()
        };
        let permitting = names(&mut policies.iter().filter(|(_, list)| permits(list)));
        if permitting.is_empty() {
            Judgement::Refused(names(&mut policies.iter()))
        } else {
            Judgement::Permitted(permitting)
        }
    }

    fn permits(&self, permit: &Permit, direction: Direction, peer: IpAddr, packet: &Packet) -> bool {
        let port = |receiver: Option<&Group>| match &permit.ports {
            None => true,
            Some(ports) => ports.iter().any(|port| is_at(port, receiver, packet)),
        };
        let receivers = || self.pods_at(packet.destination).map(|(_, group)| group);
        let at_any_receiver = || port(None) || receivers().any(|group| port(Some(group)));
        match &permit.peers {
            Peers::Anyone => at_any_receiver(),
            Peers::These { selections, blocks } => {
                let selected =
                    |group: &Group| selections.iter().any(|selection| group.selections.contains(selection));
                // On the way out the peer and the receiver are one pod.
                let by_pod = self.pods_at(peer).any(|(_, group)| {
                    selected(group)
                        && match direction {
                            Direction::Ingress => at_any_receiver(),
                            Direction::Egress => port(Some(group)),
                        }
                });
                by_pod || blocks.contains(peer) && at_any_receiver()
            }
        }
    }
}

/// Whether a packet goes to this port of its receiver; a name is nothing to a receiver that is no pod.
fn is_at(port: &PolicyPort, receiver: Option<&Group>, packet: &Packet) -> bool {
    packet.protocol == Some(port.protocol)
        && match &port.port {
            PortRange::Any => true,
            PortRange::Numbers(first, last) => (*first..=*last).contains(&packet.port),
            PortRange::Named(name) => {
                receiver.and_then(|group| group.port(name, port.protocol)) == Some(packet.port)
            }
        }
}

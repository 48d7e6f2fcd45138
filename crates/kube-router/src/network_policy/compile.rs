//! A policy, compiled: selectors have become selections, blocks prefixes, and what is left is what permits.
//!
//! The compiled form is the one that chains are rendered from, and that [`super::evaluate`] answers from.

use std::collections::BTreeSet;

use ipnet::IpNet;
use linux::row::Family;

use super::blocks::Blocks;
use super::selections::{SelectionNumber, SetKind, SetOf};
use crate::kube::model::{NetworkPolicy, ObjectName, Peer, PolicyPort, PolicyRule, PortRange};

/// Which way packets go, as seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// `ingress` or `egress`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// A policy whose selections are numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Which policy.
    pub id: ObjectName,
    /// The pods it isolates.
    pub target: SelectionNumber,
    /// What it permits them to receive; `None` if it does not isolate them in this direction.
    pub ingress: Option<Vec<Permit>>,
    /// What it permits them to send.
    pub egress: Option<Vec<Permit>>,
    /// Every pod of every namespace, where a named port of just any destination is permitted.
    pub everyone: Option<SelectionNumber>,
    /// Blocks that are left out because their family is off, with their field.
    pub off: Box<[(Box<str>, IpNet)]>,
}

/// A rule: what is exchanged with one of the peers at one of the ports of whoever receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// With whom.
    pub peers: Peers,
    /// At which ports; `None` is everything, whatever the protocol.
    pub ports: Option<Vec<PolicyPort>>,
}

/// The other end of what is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Every address.
    Anyone,
    /// Pods, and addresses.
    These {
        /// Pods in one of these selections.
        selections: Vec<SelectionNumber>,
        /// Addresses in these blocks, whoever has them.
        blocks: Blocks,
    },
}

impl Compiled {
    /// What is permitted in a direction; `None` if the pods are not isolated in it.
    pub fn permits(&self, direction: Direction) -> Option<&[Permit]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Selections it names, each as often as it does.
    pub(super) fn selections(&self) -> impl Iterator<Item = SelectionNumber> {
        let permits = self.ingress.iter().chain(&self.egress).flatten();
        let peers = permits.flat_map(|permit| match &permit.peers {
            Peers::Anyone => &[][..],
            Peers::These { selections, .. } => selections.as_slice(),
        });
        peers.copied().chain([self.target]).chain(self.everyone)
    }

    /// The kernel sets of pods its chains look into. O(peers × ports).
    pub(super) fn sets(&self) -> BTreeSet<SetOf> {
        let mut sets = BTreeSet::new();
        for direction in Direction::ALL {
            for permit in self.permits(direction).unwrap_or_default() {
                self.sets_of(direction, permit, &mut sets);
            }
        }
        sets
    }

    fn sets_of(&self, direction: Direction, permit: &Permit, sets: &mut BTreeSet<SetOf>) {
        let ports = permit.ports.as_deref();
        let numbered = ports.is_none_or(|ports| ports.iter().any(|port| named(port).is_none()));
        let named_ports = || ports.unwrap_or_default().iter().filter(|port| named(port).is_some());
        if let Peers::These { selections, .. } = &permit.peers {
            // A named port of a peer is looked for in a set of the peer's ports, its address included.
            let by_address = numbered || direction == Direction::Ingress && named_ports().next().is_some();
            for selection in selections.iter().filter(|_| by_address) {
                sets.insert(SetOf { selection: *selection, kind: SetKind::Addresses });
            }
        }
        for port in named_ports() {
            for selection in self.owners_of_named_port(direction, &permit.peers) {
                sets.extend(ports_set(direction, selection, port));
            }
        }
    }

    /// Whose port a name means: the target's on the way in, the peers' on the way out.
    pub(super) fn owners_of_named_port(&self, direction: Direction, peers: &Peers) -> Vec<SelectionNumber> {
        match (direction, peers) {
            (Direction::Ingress, _) => vec![self.target],
            (Direction::Egress, Peers::Anyone) => self.everyone.into_iter().collect(),
            (Direction::Egress, Peers::These { selections, blocks }) => {
                let everyone = self.everyone.filter(|_| !blocks.is_empty());
                selections.iter().copied().chain(everyone).collect()
            }
        }
    }
}

/// The name of a port given by name.
pub(super) fn named(port: &PolicyPort) -> Option<&linux::row::Name> {
    match &port.port {
        PortRange::Named(name) => Some(name),
        PortRange::Any | PortRange::Numbers(..) => None,
    }
}

/// The set in which the pods of a selection have this named port.
pub(super) fn ports_set(
    direction: Direction,
    selection: SelectionNumber,
    port: &PolicyPort,
) -> Option<SetOf> {
    let name = named(port)?.clone();
    let kind = SetKind::Ports { name, protocol: port.protocol, here: direction == Direction::Ingress };
    Some(SetOf { selection, kind })
}

/// Whether a policy permits a named port to destinations it does not name as pods.
pub(super) fn asks_everyone(policy: &NetworkPolicy) -> bool {
    let rules = policy.egress.iter().flatten();
    rules.into_iter().any(|rule| {
        let names = rule.ports.iter().flatten().any(|port| named(port).is_some());
        let open = rule
            .peers
            .as_ref()
            .is_none_or(|peers| peers.iter().any(|peer| matches!(peer, Peer::Block { .. })));
        names && open
    })
}

/// The permits of rules; `select` gives each pod peer its number. Blocks of families that are off are left out.
pub(super) fn permits(
    rules: &[PolicyRule],
    enforced: &dyn Fn(Family) -> bool,
    select: &mut dyn FnMut(&Peer) -> Option<SelectionNumber>,
) -> Vec<Permit> {
    let mut permits = Vec::with_capacity(rules.len());
    for rule in rules {
        let peers = match &rule.peers {
            None => Peers::Anyone,
            Some(peers) => {
                let selections = peers.iter().filter_map(&mut *select).collect();
                let blocks = peers.iter().filter_map(|peer| match peer {
                    Peer::Block { net, except } if enforced(Family::of_net(net)) => {
                        Some((net, except.as_slice()))
                    }
                    _ => None,
                });
                Peers::These { selections, blocks: Blocks::new(blocks) }
            }
        };
        permits.push(Permit { peers, ports: rule.ports.clone() });
    }
    permits
}

/// Blocks of families that are off, with their field.
pub(super) fn blocks_off(
    policy: &NetworkPolicy,
    enforced: &dyn Fn(Family) -> bool,
) -> Box<[(Box<str>, IpNet)]> {
    let mut off = Vec::new();
    for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        for (place, rule) in rules.iter().flatten().enumerate() {
            for peer in rule.peers.iter().flatten() {
                if let Peer::Block { net, .. } = peer
                    && !enforced(Family::of_net(net))
                {
                    off.push((format!("spec.{direction}[{place}]").into(), *net));
                }
            }
        }
    }
    off.into()
}

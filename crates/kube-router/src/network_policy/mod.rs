//! The network policy controller: which packets reach pods, and which leave them.
//!
//! Decided here: which plans an event makes necessary. [`Index`] finds what an event touches and holds the policies in
//! compiled form, [`Index::evaluate`] answers from it, [`rules`] makes rows of it, and flows that run already are judged
//! by it. No I/O anywhere below this module.
//!
//! ```text
//! Namespaces, Pods ─► groups ──┐
//!                              ├─► selections ─► who is in which set ───────────► members
//! NetworkPolicies ─► compiled ─┘        └─► policies in force ─► chains of policies and pods
//!                        └─► evaluate ─► flows to cut
//! ```

mod blocks;
mod compile;
mod controller;
mod describe;
mod evaluate;
mod flows;
mod found;
mod guarded;
mod hash;
mod index;
mod matcher;
pub mod rules;
mod selections;
mod size;
mod touched;

use std::fmt;

use linux::row::Name;

pub use blocks::Blocks;
pub use compile::{Compiled, Direction, Peers, Permit};
pub use evaluate::{Judgement, Packet, Verdict};
pub use index::Index;
pub use touched::Touched;

use crate::core::Found;
use crate::kube::model::ObjectName;

/// Whose rows a plan of this controller makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What there is whatever policies say: the ways in, and the chains every pod shares.
    Frame,
    /// A policy in force here: its chains and sets.
    Policy(ObjectName),
    /// A pod of this node: its chain.
    Pod(ObjectName),
    /// A pod of any node: its addresses in the sets of policies.
    Members(ObjectName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Frame => f.write_str("network policy"),
            Subject::Policy(id) => write!(f, "network policy {id}"),
            Subject::Pod(id) => write!(f, "network policy of pod {id}"),
            Subject::Members(id) => write!(f, "set members of pod {id}"),
        }
    }
}

/// The controller: its indexes, and what is due to be planned.
#[derive(Debug)]
pub struct NetworkPolicies {
    index: Index,
    /// The index is this node's, and has everything that the store has.
    indexed: bool,
    touched: Touched,
    flows: flows::Flows,
    found: Vec<Found>,
    size: size::Size,
    /// Everything was in the kernel once.
    built: bool,
}

impl Default for NetworkPolicies {
    fn default() -> NetworkPolicies {
        NetworkPolicies {
            index: Index::new(Name::from(""), false, false),
            indexed: false,
            touched: Touched::default(),
            flows: flows::Flows::default(),
            found: Vec::new(),
            size: size::Size::default(),
            built: false,
        }
    }
}

impl NetworkPolicies {
    /// The policies in compiled form, to ask.
    pub fn index(&self) -> &Index {
        &self.index
    }
}

//! What a speaker has to say to its caller.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::attributes::Attributes;
use crate::family::Family;
use crate::rib::{Refusal, Standing};

/// News.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These are the selected paths to a prefix now. Said once after any number of changes; may say what was said
    /// before, if the changes came to nothing.
    Selected {
        /// The destination.
        prefix: IpNet,
        /// The best one first; none if there is no way any more.
        paths: SmallVec<[SelectedPath; 1]>,
    },
    /// Selection has begun in this family: at the start, or when the peers have told us everything after a restart. All
    /// that is selected by then has been said before. What was left in the kernel by a predecessor and is not selected may go.
    SelectionBegan(Family),
    /// Two peers of one AS say that they are the same router: one of them is wrong, and paths of either may be
    /// preferred.
    DuplicateRouterId {
        /// What both say.
        router_id: Ipv4Addr,
        /// Who they are, the one that came up later last.
        peers: [IpAddr; 2],
    },
}

/// A path that packets should take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPath {
    /// Whose it is; `None` for our own.
    pub peer: Option<IpAddr>,
    /// After the import policy.
    pub attributes: Arc<Attributes>,
}

/// A path as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The destination.
    pub prefix: IpNet,
    /// Whose it is; `None` for our own.
    pub peer: Option<IpAddr>,
    /// As received.
    pub learned: Arc<Attributes>,
    /// After the import policy; `None` if it was refused.
    pub accepted: Option<Arc<Attributes>>,
    /// Used, or why not.
    pub standing: Standing,
    /// The peer has restarted and not confirmed it yet.
    pub stale: bool,
}

/// What has been counted of a peer since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Announcements received, one for each prefix.
    pub announced: u64,
    /// Withdrawals received, one for each prefix.
    pub withdrawn: u64,
    /// How often it came up with the router id and AS number of another peer that was up.
    pub duplicate_router_id: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// Announcements that could not be used for this reason when they came.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.get(refusal as usize).copied().unwrap_or(0)
    }

    /// Counts one.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(count) = self.refused.get_mut(refusal as usize) {
            *count += 1;
        }
    }
}

//! How far a member of a group has been told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fixedbitset::FixedBitSet;

use super::log::Position;
use crate::rib::DestinationId;

/// One member's progress.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The peer's address, which is no next hop for itself.
    pub(crate) address: IpAddr,
    /// Destinations it has been told a path to, and has not been told that the path is gone.
    pub(crate) told: FixedBitSet,
    /// Where in the group's log it is.
    pub(crate) at: Position,
    /// The walk through the table that comes before the log.
    pub(crate) walk: Option<Walk>,
    /// Destinations to be looked at again for this member alone.
    pub(crate) again: BTreeSet<DestinationId>,
    /// The initial table ends with End-of-RIB (RFC 4724 section 2).
    pub(crate) end_of_rib_due: bool,
}

/// The rest of a walk by number.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) next: DestinationId,
    /// If given, only these are visited.
    pub(crate) only: Option<FixedBitSet>,
}

impl Feed {
    /// A new member that has been told nothing.
    pub(crate) fn new(address: IpAddr, at: Position) -> Self {
        Feed {
            address,
            told: FixedBitSet::new(),
            at,
            walk: Some(Walk { next: 0, only: None }),
            again: BTreeSet::new(),
            end_of_rib_due: true,
        }
    }

    /// Whether there may be something to tell, if the log ends there.
    pub(crate) fn is_behind(&self, end: Position) -> bool {
        self.walk.is_some() || self.at < end || !self.again.is_empty()
    }

    /// Records that it is told a path; says whether it had none.
    pub(crate) fn tell(&mut self, id: DestinationId) -> bool {
        let bit = id as usize;
        self.told.grow(bit + 1);
        !self.told.put(bit)
    }

    /// Records that it is told of the end of a path; says whether it had one.
    pub(crate) fn untell(&mut self, id: DestinationId) -> bool {
        let had = self.told.contains(id as usize);
        if had {
            self.told.set(id as usize, false);
        }
        had
    }
}

//! Which destinations each peer has told us a path to.
//!
//! A bit for each destination: an eighth of an octet for each path, and a session's end visits what the peer had, not
//! the table. Staleness (RFC 4724 section 4.2, RFC 7313 section 4) is a second set of bits.

use fixedbitset::FixedBitSet;

use super::DestinationId;

/// One peer's destinations in one family.
#[derive(Debug, Default)]
pub(crate) struct AdjIn {
    held: FixedBitSet,
    /// Those not confirmed since the peer restarted or was asked to repeat itself.
    stale: FixedBitSet,
    count: usize,
}

impl AdjIn {
    /// The peer told a path; it is fresh.
    pub(crate) fn insert(&mut self, id: DestinationId) {
        let bit = id as usize;
        self.held.grow(bit + 1);
        self.count += usize::from(!self.held.put(bit));
        self.set_fresh(bit);
    }

    /// The peer withdrew its path.
    pub(crate) fn remove(&mut self, id: DestinationId) {
        let bit = id as usize;
        if self.held.contains(bit) {
            self.held.set(bit, false);
            self.count -= 1;
            self.set_fresh(bit);
        }
    }

    fn set_fresh(&mut self, bit: usize) {
        if self.stale.contains(bit) {
            self.stale.set(bit, false);
        }
    }

    /// Everything there is has to be confirmed.
    pub(crate) fn mark_stale(&mut self) {
        self.stale.clone_from(&self.held);
    }

    /// Whether the path has yet to be confirmed.
    pub(crate) fn is_stale(&self, id: DestinationId) -> bool {
        self.stale.contains(id as usize)
    }

    /// What was not confirmed. O(table / 64 + found).
    pub(crate) fn stale(&self) -> Vec<DestinationId> {
        self.stale.ones().map(|bit| bit as DestinationId).collect()
    }

    /// How many were not confirmed. O(table / 64).
    pub(crate) fn stale_count(&self) -> usize {
        self.stale.count_ones(..)
    }

    /// All of it. O(table / 64 + found).
    pub(crate) fn held(&self) -> Vec<DestinationId> {
        self.held.ones().map(|bit| bit as DestinationId).collect()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

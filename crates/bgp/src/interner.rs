//! One copy of equal attributes.
//!
//! Paths share their attributes with many others: a router announces thousands of prefixes with one set. The table
//! holds each set once, and equality of interned attributes is equality of pointers.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::attributes::Attributes;

/// The copies. What nobody uses any more goes when the number of copies has doubled since the last look, so that an
/// addition costs O(1) on average and no path needs to give notice.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    copies: HashTable<Held>,
    hasher: DefaultHashBuilder,
    sweep_at: usize,
}

/// Attributes with their hash: to read them all again whenever the table grows would cost more than the room.
#[derive(Debug)]
struct Held {
    hash: u64,
    attributes: Arc<Attributes>,
}

/// Below this number of copies a sweep would free nothing worth the walk.
const SWEEP_MIN: usize = 1024;

impl Interner {
    /// The one copy of these attributes.
    pub(crate) fn intern(&mut self, attributes: Arc<Attributes>) -> Arc<Attributes> {
        let hash = self.hasher.hash_one(&*attributes);
        if self.copies.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sweep();
        }
        let is_it = |copy: &Held| copy.hash == hash && copy.attributes == attributes;
        match self.copies.entry(hash, is_it, |copy| copy.hash) {
            Entry::Occupied(there) => there.get().attributes.clone(),
            Entry::Vacant(place) => {
                place.insert(Held { hash, attributes: attributes.clone() });
                attributes
            }
        }
    }

    /// Lets go of copies nobody uses. O(copies).
    pub(crate) fn sweep(&mut self) {
        self.copies.retain(|copy| Arc::strong_count(&copy.attributes) > 1);
        self.sweep_at = self.copies.len() * 2;
        if self.copies.capacity() > 4 * self.copies.len().max(SWEEP_MIN) {
            self.copies.shrink_to(self.copies.len(), |copy| copy.hash);
        }
    }

    /// How many different attributes are held, the unused included.
    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn attributes(med: u32) -> Arc<Attributes> {
        let next_hop = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Arc::new(Attributes { med: Some(med), ..Attributes::local(next_hop) })
    }

    #[test]
    fn equal_attributes_are_one_copy() {
        let mut interner = Interner::default();
        let first = interner.intern(attributes(1));
        assert!(Arc::ptr_eq(&first, &interner.intern(attributes(1))));
        assert!(!Arc::ptr_eq(&first, &interner.intern(attributes(2))));
    }

    #[test]
    fn churn_does_not_pile_up() {
        let mut interner = Interner::default();
        let kept = interner.intern(attributes(0));
        for med in 1..100_000 {
            interner.intern(attributes(med));
        }
        assert!(interner.len() <= SWEEP_MIN + 1, "{}", interner.len());
        assert!(Arc::ptr_eq(&kept, &interner.intern(attributes(0))));
    }
}

//! Rows that cannot be written yet, by what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use crate::row::Key;

/// Who is looked at again once a key is there. At a start there is an entry for nearly every address; afterwards none.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<Key, Waiters>);

/// Nearly always one, which is kept without a set of its own: the smallest has room for eleven.
#[derive(Debug)]
enum Waiters {
    One(Key),
    Many(BTreeSet<Key>),
}

impl Waiting {
    /// `key` waits for `prerequisite`. O(log n).
    pub(super) fn park(&mut self, prerequisite: Key, key: Key) {
        use std::collections::btree_map::Entry;
        match self.0.entry(prerequisite) {
            Entry::Vacant(place) => {
                place.insert(Waiters::One(key));
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Waiters::One(first) if *first == key => {}
                Waiters::One(first) => {
                    let both = BTreeSet::from([first.clone(), key]);
                    place.insert(Waiters::Many(both));
                }
                Waiters::Many(all) => {
                    all.insert(key);
                }
            },
        }
    }

    /// `key` waits for `prerequisite` no longer. O(log n).
    pub(super) fn forget(&mut self, prerequisite: &Key, key: &Key) {
        let none_left = match self.0.get_mut(prerequisite) {
            None => false,
            Some(Waiters::One(first)) => first == key,
            Some(Waiters::Many(all)) => {
                all.remove(key);
                all.is_empty()
            }
        };
        if none_left {
            self.0.remove(prerequisite);
        }
    }

    /// Who waits for `prerequisite`. O(log n).
    pub(super) fn of(&self, prerequisite: &Key) -> impl Iterator<Item = &Key> {
        let (one, many) = match self.0.get(prerequisite) {
            None => (None, None),
            Some(Waiters::One(key)) => (Some(key), None),
            Some(Waiters::Many(all)) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Takes out everyone who waits for `prerequisite`.
    pub(super) fn take(&mut self, prerequisite: &Key) -> BTreeSet<Key> {
        match self.0.remove(prerequisite) {
            None => BTreeSet::new(),
            Some(Waiters::One(key)) => BTreeSet::from([key]),
            Some(Waiters::Many(all)) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Link(name.into())
    }

    #[test]
    fn everyone_who_waits_is_told_once() {
        let mut waiting = Waiting::default();
        for (prerequisite, waiter) in [("a", "x"), ("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("c", "x")]
        {
            waiting.park(key(prerequisite), key(waiter));
        }
        waiting.forget(&key("a"), &key("z"));
        waiting.forget(&key("b"), &key("x"));
        waiting.forget(&key("c"), &key("y"));
        assert_eq!(waiting.take(&key("a")), BTreeSet::from([key("x"), key("y")]));
        assert_eq!(waiting.take(&key("b")), BTreeSet::new());
        assert_eq!(waiting.take(&key("c")), BTreeSet::from([key("x")]));
        assert!(waiting.0.is_empty());
    }
}

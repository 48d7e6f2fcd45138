//! The books: what each change of what is wanted or there means for rows that wait for it, stand on it or are held by it.

use std::fmt::Debug;
use std::hash::Hash;

use super::claims::{Dropped, OwnerNumber};
use super::{Reconciler, TableCount, batch};
use crate::row::{Key, Row};

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    pub(super) fn want(&mut self, key: Key, mut row: Row, owner: &O, id: OwnerNumber) {
        let mut entry = self.entries.entry(key.clone()).or_default();
        if entry.desired().is_some_and(|wanted| *wanted != row) || self.disputes.has(&key) {
            row = self.agreed(&key, row, owner);
            entry = self.entries.entry(key.clone()).or_default();
        }
        entry.add_claimant(id);
        if entry.desired() != Some(&row) {
            let (returns, was_refused) = (entry.actual().is_some(), entry.refused().is_some());
            if entry.set_desired(Some(row)).is_none() {
                let released = entry.take_holding();
                self.count(&key).desired += 1;
                if returns {
                    released.iter().for_each(|key| self.release(key));
                    self.stays(&key);
                }
            }
            if was_refused {
                self.forget_refusal(&key);
            }
            if !returns && !was_refused {
                // Nearly every row of a start: it differs and does not rest, which need not be looked for again.
                self.queue(&key, true);
                return;
            }
        }
        self.touch(&key);
    }

    pub(super) fn unwant(&mut self, Dropped { key, owner, after }: Dropped, by: &O) {
        let counts_now = self.disputes.leave(&key, by);
        let known: Vec<Key> = after.into_iter().filter(|needed| self.entries.contains_key(needed)).collect();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.remove_claimant(owner);
        if entry.actual().is_some() {
            entry.hold(known);
        }
        if entry.claimants().next().is_some() {
            if counts_now.is_some() && counts_now.as_ref() != entry.desired() {
                entry.set_desired(counts_now);
                self.forget_refusal(&key);
                self.touch(&key);
            }
            return;
        }
        let held = if entry.actual().is_some() { entry.holding().to_vec() } else { Vec::new() };
        if entry.set_desired(None).is_some() {
            self.count(&key).desired -= 1;
        }
        for prerequisite in held {
            *self.holds.entry(prerequisite).or_default() += 1;
        }
        self.forget_refusal(&key);
        self.touch(&key);
    }

    /// A row that was to be removed is wanted after all: what waited for it may go on, and what would have died with it
    /// must be judged by itself.
    fn stays(&mut self, key: &Key) {
        let inside: Vec<Key> = batch::contents(&self.entries, key).cloned().collect();
        for key in inside {
            self.touch(&key);
        }
        self.wake(key);
    }

    pub(super) fn wake(&mut self, key: &Key) {
        for waiter in self.waiting.take(key) {
            self.touch(&waiter);
        }
    }

    /// Puts a key where it belongs now: pending, or out of the table.
    pub(super) fn touch(&mut self, key: &Key) {
        let Some(mut entry) = self.entries.get(key) else { return };
        if entry.refused().is_some() && !entry.differs() {
            // Somebody else brought about what was refused to us.
            self.forget_refusal(key);
            match self.entries.get(key) {
                Some(now) => entry = now,
                None => return,
            }
        }
        if entry.is_gone() {
            if let Some(state) = self.lanes.get_mut(&key.lane()) {
                state.pending.remove(key);
            }
            self.entries.remove(key);
            self.quarrels.forget(key);
            if let Some(container) = key.container() {
                self.waiting.forget(&container, key);
            }
            self.wake(key);
            if let (Key::Member(..), Some(set)) =
                (key, key.container().filter(|set| self.actual(set).is_some()))
            {
                // It was the last on its way into a set, perhaps.
                self.wake(&set);
            }
            return;
        }
        let due = entry.differs() && !entry.rests();
        self.queue(key, due);
    }

    /// Makes a key pending, or no longer.
    fn queue(&mut self, key: &Key, due: bool) {
        let Some(state) = self.lanes.get_mut(&key.lane()) else { return };
        if due && !state.in_flight.contains_key(key) {
            state.pending.insert(key.clone());
        } else {
            state.pending.remove(key);
        }
    }

    /// What a lane was told to do with a row is done, and the row no longer in flight.
    pub(super) fn succeeded(&mut self, key: &Key, now_there: Option<Row>) {
        let removed = now_there.is_none();
        let (as_wanted, was_refused) = self.set_actual(key, now_there);
        if was_refused {
            self.forget_refusal(key);
        }
        if removed {
            self.contents_died(key);
        }
        if !as_wanted {
            self.touch(key);
        }
    }

    /// Changes what is believed to be there, and with it what holds what. Says whether it is as wanted now, and whether an
    /// earlier change was refused: whoever needs to know need not look for the entry again.
    pub(super) fn set_actual(&mut self, key: &Key, row: Option<Row>) -> (bool, bool) {
        let needed_after = row.as_ref().map(|row| outside_needs(key, row)).unwrap_or_default();
        for needed in needed_after {
            *self.holds.entry(needed).or_default() += 1;
        }
        let entry = self.entries.entry(key.clone()).or_default();
        let is_there = row.is_some();
        let before = entry.set_actual(row);
        let needed_before = before.as_ref().map(|row| outside_needs(key, row)).unwrap_or_default();
        let appeared = before.is_none() && is_there;
        let vanished = before.is_some() && !is_there;
        let held = if vanished { entry.take_holding() } else { Vec::new() };
        // While the row is wanted, what its dropped claims stood on is only noted, not held.
        let released = if entry.desired().is_none() { held } else { Vec::new() };
        let standing = (entry.is_as_wanted(), entry.refused().is_some());
        let count = self.count(key);
        count.actual = count.actual + usize::from(appeared) - usize::from(vanished);
        for needed in needed_before.iter().chain(released.iter()) {
            self.release(needed);
        }
        if appeared {
            self.wake(key);
        }
        standing
    }

    pub(super) fn release(&mut self, key: &Key) {
        if let Some(count) = self.holds.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.holds.remove(key);
                self.touch(key);
            }
        }
    }

    pub(super) fn count(&mut self, key: &Key) -> &mut TableCount {
        self.counts.entry(key.table()).or_default()
    }
}

/// What may go only after a row, besides its container, which removal need not wait for.
fn outside_needs(key: &Key, row: &Row) -> Vec<Key> {
    // Of most rows there are: a member stands on nothing but its set.
    if matches!(row, Row::Member) {
        return Vec::new();
    }
    let container = key.container();
    row.holds(key).into_iter().filter(|needed| Some(needed) != container.as_ref()).collect()
}

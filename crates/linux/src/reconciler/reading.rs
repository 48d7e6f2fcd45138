//! What readings and notifications say is in the kernel.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use super::retry::pause;
use super::{Reconciler, batch};
use crate::row::{Key, LaneName, Row};

/// A reading beside what was believed.
#[derive(Default)]
struct Compared {
    /// Known rows that are not as believed, as they are.
    differing: Vec<(Key, Option<Row>)>,
    /// Rows nobody here knows.
    unknown: Vec<(Key, Row)>,
}

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// Takes in a reading of a lane's tables. Rows nobody here knows are adopted, to be removed if undesired, when
    /// `owned` says they are ours. O(rows of the lane).
    pub fn was_read(&mut self, lane: LaneName, rows: Vec<(Key, Row)>, owned: impl Fn(&Key, &Row) -> bool) {
        let first = self.lanes.get(&lane).is_some_and(|state| !state.adopted);
        let Compared { differing, unknown } = self.compare(lane, rows);
        for (key, there) in differing {
            if !first {
                self.count(&key).drifted += 1;
            }
            self.set_actual(&key, there);
            self.touch(&key);
        }
        for (key, row) in unknown {
            if owned(&key, &row) {
                self.set_actual(&key, Some(row));
                self.touch(&key);
            }
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = false;
            state.adopted = true;
            state.read_failures = 0;
            state.read_after = None;
        }
    }

    /// Walks a reading and what is known side by side, so that only what differs takes room of its own.
    fn compare(&self, lane: LaneName, mut rows: Vec<(Key, Row)>) -> Compared {
        rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        rows.dedup_by(|(again, _), (key, _)| again == key);
        let mut rows = rows.into_iter().peekable();
        let mut compared = Compared::default();
        for (key, entry) in self.entries.iter().filter(|(key, _)| key.lane() == lane) {
            while let Some(row) = rows.next_if(|(there, _)| there < key) {
                compared.unknown.push(row);
            }
            let there = rows.next_if(|(there, _)| there == key).map(|(_, row)| row);
            if there.as_ref() != entry.actual() {
                compared.differing.push((key.clone(), there));
            }
        }
        compared.unknown.extend(rows);
        compared
    }

    /// A lane could not read; it is tried again after a pause that grows to a minute.
    pub fn read_failed(&mut self, lane: LaneName, now: Instant) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = false;
            state.read_wanted = true;
            state.read_after = Some(now + pause(state.read_failures));
            state.read_failures += 1;
        }
    }

    /// Asks for a reading of a lane as soon as it is free: the periodic audit, or after foreign change.
    pub fn request_read(&mut self, lane: LaneName) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.read_wanted = true;
        }
    }

    /// A notification says somebody else changed or removed this row. Unknown keys and keys being changed by us at this
    /// moment are left to the next reading, which is requested.
    pub fn observed(&mut self, key: &Key, row: Option<Row>) {
        let lane = key.lane();
        if self.lanes.get(&lane).is_some_and(|state| state.busy && state.in_flight.is_empty()) {
            // A reading is under way and may have passed this row before it changed.
            self.request_read(lane);
        }
        let in_flight = self.lanes.get(&lane).and_then(|state| state.in_flight.get(key));
        match self.entries.get(key) {
            // Not every notification says who caused it: this one may be about our own change.
            Some(_) if in_flight == Some(&row) => {}
            Some(_) if in_flight.is_some() => self.request_read(lane),
            Some(entry) if entry.actual() != row.as_ref() => {
                let gone = row.is_none();
                self.count(key).drifted += 1;
                self.set_actual(key, row);
                if gone {
                    self.contents_died(key);
                }
                self.touch(key);
            }
            _ => {}
        }
    }

    /// A container went and the kernel removed its contents with it. O(contents).
    pub(super) fn contents_died(&mut self, container: &Key) {
        let inside: Vec<Key> = batch::contents(&self.entries, container).cloned().collect();
        for key in inside {
            self.set_actual(&key, None);
            self.touch(&key);
        }
    }
}

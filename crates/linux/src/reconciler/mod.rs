//! The reconciler: from what plans want and what the kernel has to what each lane should do next.
//!
//! Decided here: which rows differ, in which order they may change, what waits for what, when a refused row is tried
//! again, and what a reading of the kernel means. Not here: what is wanted (plans), how it is written (lanes), whose
//! an unknown row is (the caller's ownership rule). No I/O and no clock: time is an argument.
//!
//! ```text
//! set(owner, claims) ──► desired ┐
//!                                ├─ differ? ──► next_job(lane) ──► lane thread ──► applied() / was_read()
//! applied(), was_read() ► actual ┘                  ▲                                     │
//!                                                   └──────────── retry, drift ◄──────────┘
//! ```
//!
//! * Desired and actual share one entry under the row's key; a row is *claimed* by one or more owners and disappears
//!   with its last claim.
//! * A row waits for what it stands on ([`Row::stands_on`], and a claim's own `after`); of several claims to one row,
//!   one whose prerequisites are met is enough. On removal the order is the reverse.
//! * A refused row keeps what it had, is tried again with growing pauses, and holds back only what stands on it.
//! * The first job of every lane is a reading: what a predecessor left is adopted, never flushed.

mod batch;
mod books;
mod claims;
mod dispute;
mod entry;
mod gate;
mod looking;
mod quarrel;
mod reading;
mod retry;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

pub use claims::Claim;
use claims::Claims;
use dispute::Disputes;
use entry::Entry;
pub use entry::Refused;
use gate::Gates;
pub use gate::{Gate, Rows};
use hashbrown::HashMap;
use quarrel::Quarrels;
use waiting::Waiting;

use crate::lane::{Job, Refusal};
use crate::row::{Key, LaneName, Row, SetKey, Table};

/// Rows of one table in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCount {
    /// Rows wanted.
    pub desired: usize,
    /// Rows believed to be in the kernel.
    pub actual: usize,
    /// Rows whose last change was refused.
    pub refused: usize,
    /// Rows found changed or missing by readings, ever.
    pub drifted: u64,
}

/// A refusal or a disagreement worth telling a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice<O> {
    /// Which row.
    pub key: Key,
    /// Who wants it; empty for leftovers being removed.
    pub owners: Vec<O>,
    /// What happened.
    pub reason: String,
}

#[derive(Debug, Default)]
struct LaneState {
    /// Keys that may have to change, in key order.
    pending: BTreeSet<Key>,
    /// What each key of the batch in hand will be when it succeeds. In key order, to look into one container.
    in_flight: BTreeMap<Key, Option<Row>>,
    busy: bool,
    /// A complete reading has been taken in at least once.
    adopted: bool,
    read_wanted: bool,
    read_failures: u32,
    read_after: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Reconciler<O> {
    entries: BTreeMap<Key, Entry>,
    claims: Claims<O>,
    lanes: BTreeMap<LaneName, LaneState>,
    /// Rows to look at again once this key is there.
    waiting: Waiting,
    /// Rows to look at again before every job: they begin to look into verdict maps that are not filled yet.
    looking: BTreeSet<Key>,
    /// How many rows that are still there must go before this key may be removed.
    holds: HashMap<Key, u32>,
    retries: BTreeSet<(Instant, Key)>,
    counts: BTreeMap<Table, TableCount>,
    gates: Gates,
    disputes: Disputes<O>,
    quarrels: Quarrels,
    notices: Vec<Notice<O>>,
}

impl<O: Clone + Ord + Hash + Debug> Default for Reconciler<O> {
    fn default() -> Self {
        Reconciler {
            entries: BTreeMap::new(),
            claims: Claims::default(),
            lanes: LaneName::ALL.iter().map(|lane| (*lane, LaneState::first())).collect(),
            waiting: Waiting::default(),
            looking: BTreeSet::new(),
            holds: HashMap::new(),
            retries: BTreeSet::new(),
            counts: Table::ALL.iter().map(|table| (*table, TableCount::default())).collect(),
            gates: Gates::default(),
            disputes: Disputes::default(),
            quarrels: Quarrels::default(),
            notices: Vec::new(),
        }
    }
}

impl LaneState {
    fn first() -> LaneState {
        LaneState { read_wanted: true, ..LaneState::default() }
    }

    fn is_at_rest(&self) -> bool {
        self.adopted && self.in_flight.is_empty() && self.pending.is_empty()
    }
}

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// An empty one: nothing wanted, nothing known.
    pub fn new() -> Self {
        Reconciler::default()
    }

    /// An empty one that has these lanes only: rows of others are neither read nor written.
    pub fn with_lanes(lanes: impl IntoIterator<Item = LaneName>) -> Self {
        let lanes = lanes.into_iter().map(|lane| (lane, LaneState::first())).collect();
        Reconciler { lanes, ..Reconciler::default() }
    }

    /// Says which rows that nobody wants may be removed; see [`Gate`]. At the beginning none may: their owner may only
    /// be late. O(1) if nothing changed, else O(rows).
    pub fn allow_removals(&mut self, gates: impl IntoIterator<Item = Gate>) {
        if !self.gates.replace(gates) {
            return;
        }
        let undesired = self.entries.iter().filter(|(_, entry)| entry.desired().is_none());
        let undesired: Vec<Key> = undesired.map(|(key, _)| key.clone()).collect();
        for key in undesired {
            self.touch(&key);
        }
    }

    /// Replaces everything `owner` wants. O(n log n) in the owner's old and new rows, whatever else exists.
    pub fn set(&mut self, owner: &O, claims: Vec<Claim>) {
        let changes = self.claims.replace(owner, claims);
        for (key, row) in changes.wanted {
            self.want(key, row, owner, changes.owner);
        }
        for dropped in changes.dropped {
            self.unwant(dropped, owner);
        }
    }

    /// What the lane should do next, unless it is busy or there is nothing to do. The caller runs the job and brings
    /// back its report. O(rows that changed).
    pub fn next_job(&mut self, lane: LaneName, now: Instant) -> Option<Job> {
        self.release_retries(now);
        for key in std::mem::take(&mut self.looking) {
            self.touch(&key);
        }
        let state = self.lanes.get_mut(&lane)?;
        if state.busy {
            return None;
        }
        let read_due = state.read_wanted && state.read_after.is_none_or(|at| at <= now);
        if read_due {
            state.busy = true;
            state.read_wanted = false;
            return Some(Job::Read);
        }
        if !state.adopted || state.pending.is_empty() {
            return None;
        }
        self.rest_quarrels(lane, now);
        let stages = self.build_batch(lane);
        if stages.is_empty() {
            return None;
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = true;
        }
        Some(Job::Apply(stages))
    }

    /// Takes in the outcomes of a batch.
    pub fn applied(&mut self, lane: LaneName, outcomes: Vec<(Key, Result<(), Refusal>)>, now: Instant) {
        // A set may be filled now for those who wait for it.
        let set_of = |(key, _): &(Key, _)| match key {
            Key::Member(set, _) => Some(Arc::clone(set)),
            _ => None,
        };
        let sets: BTreeSet<Arc<SetKey>> = outcomes.iter().filter_map(set_of).collect();
        for (key, outcome) in outcomes {
            let Some(target) = self.lanes.get_mut(&lane).and_then(|state| state.in_flight.remove(&key))
            else {
                continue;
            };
            match outcome {
                Ok(()) => {
                    self.note_quarrel(&key, target.as_ref(), now);
                    self.succeeded(&key, target);
                }
                Err(refusal) => {
                    self.refused(&key, &refusal, now);
                    if target.is_none() {
                        // It stays, which is what some may have begun to wait for.
                        self.wake(&key);
                    }
                    self.touch(&key);
                }
            }
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = false;
            // Held back behind something refused: judged again, and parked with it.
            let held_back = std::mem::take(&mut state.in_flight);
            for key in held_back.keys() {
                self.touch(key);
            }
        }
        for set in sets {
            self.wake(&Key::Set(SetKey::clone(&set)));
        }
    }

    /// When [`Self::next_job`] may have something new although nothing happened.
    pub fn next_deadline(&self) -> Option<Instant> {
        let reads = self.lanes.values().filter(|state| state.read_wanted && !state.busy);
        reads.filter_map(|state| state.read_after).chain(self.retries.first().map(|(at, _)| *at)).min()
    }

    /// True when every lane [is at rest](Self::is_at_rest).
    pub fn is_settled(&self) -> bool {
        self.lanes.values().all(LaneState::is_at_rest)
    }

    /// True when this lane changes nothing and nothing is left to do but retries of refused rows and what waits for them.
    /// It may be reading: on a slow machine one audit follows the other.
    pub fn is_at_rest(&self, lane: LaneName) -> bool {
        self.lanes.get(&lane).is_some_and(LaneState::is_at_rest)
    }

    /// True when this lane's tables have been read.
    pub fn is_adopted(&self, lane: LaneName) -> bool {
        self.lanes.get(&lane).is_some_and(|state| state.adopted)
    }

    /// True when this lane's tables have been read, or could not be.
    pub fn has_answered(&self, lane: LaneName) -> bool {
        self.lanes.get(&lane).is_some_and(|state| state.adopted || state.read_failures > 0)
    }

    /// Whether a lane has a job in hand.
    pub fn is_busy(&self, lane: LaneName) -> bool {
        self.lanes.get(&lane).is_some_and(|state| state.busy)
    }

    /// What is believed to be in the kernel under this key.
    pub fn actual(&self, key: &Key) -> Option<&Row> {
        self.entries.get(key)?.actual()
    }

    /// What is wanted under this key.
    pub fn desired(&self, key: &Key) -> Option<&Row> {
        self.entries.get(key)?.desired()
    }

    /// Whether a row is wanted, and believed to be in the kernel as it is wanted. O(log n).
    pub fn stands(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(Entry::is_as_wanted)
    }

    /// Rows believed to be in the kernel inside a container: the real servers of a virtual server, the members of a set.
    /// O(log n + contents).
    pub fn contents<'a>(&'a self, container: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Row)> {
        batch::contents(&self.entries, container).filter_map(|key| Some((key, self.actual(key)?)))
    }

    /// Rows believed to be in the kernel, in key order. O(rows) over all.
    pub fn actual_rows(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.actual()?)))
    }

    /// Numbers per table. O(tables).
    pub fn counts(&self) -> impl Iterator<Item = (Table, TableCount)> {
        self.counts.iter().map(|(table, count)| (*table, *count))
    }

    /// What should be told a person since the last call: each new refusal once.
    pub fn take_notices(&mut self) -> Vec<Notice<O>> {
        std::mem::take(&mut self.notices)
    }
}

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
mod claims;
mod dispute;
mod entry;
mod gate;
mod quarrel;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

pub use claims::Claim;
use claims::{Claims, Dropped, OwnerNumber};
use dispute::Disputes;
use entry::Entry;
pub use entry::Refused;
use gate::Gates;
pub use gate::{Gate, Rows};
use hashbrown::HashMap;
use quarrel::Quarrels;
use waiting::Waiting;

use crate::lane::{Job, Refusal};
use crate::row::{Key, LaneName, Row, Table};

/// First pause after a refusal; doubled with every further one.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two tries of a refused row.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

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

/// A reading beside what was believed.
#[derive(Default)]
struct Compared {
    /// Known rows that are not as believed, as they are.
    differing: Vec<(Key, Option<Row>)>,
    /// Rows nobody here knows.
    unknown: Vec<(Key, Row)>,
}

/// See the module.
#[derive(Debug)]
pub struct Reconciler<O> {
    entries: BTreeMap<Key, Entry>,
    claims: Claims<O>,
    lanes: BTreeMap<LaneName, LaneState>,
    /// Rows to look at again once this key is there.
    waiting: Waiting,
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
        let members = outcomes.iter().filter(|(key, _)| matches!(key, Key::Member(..)));
        let touched: BTreeSet<Key> = members.filter_map(|(key, _)| key.container()).collect();
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
                Err(refusal) => self.refused(&key, &refusal, now),
            }
            self.touch(&key);
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy = false;
            // Held back behind something refused: judged again, and parked with it.
            let held_back = std::mem::take(&mut state.in_flight);
            for key in held_back.keys() {
                self.touch(key);
            }
        }
        for container in touched {
            self.wake(&container);
        }
    }

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

    /// Rows whose last change was refused, with their owners. O(rows).
    pub fn refusals(&self) -> impl Iterator<Item = (&Key, &Refused, Vec<O>)> {
        self.entries.iter().filter_map(|(key, entry)| {
            let refused = entry.refused()?;
            Some((key, refused, self.claims.owners_of(entry.claimants())))
        })
    }

    /// Numbers per table. O(tables).
    pub fn counts(&self) -> impl Iterator<Item = (Table, TableCount)> {
        self.counts.iter().map(|(table, count)| (*table, *count))
    }

    /// What should be told a person since the last call: each new refusal once.
    pub fn take_notices(&mut self) -> Vec<Notice<O>> {
        std::mem::take(&mut self.notices)
    }

    fn want(&mut self, key: Key, row: Row, owner: &O, id: OwnerNumber) {
        let row = self.agreed(&key, row, owner);
        let entry = self.entries.entry(key.clone()).or_default();
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
        }
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

    fn wake(&mut self, key: &Key) {
        for waiter in self.waiting.take(key) {
            self.touch(&waiter);
        }
    }

    fn unwant(&mut self, Dropped { key, owner, after }: Dropped, by: &O) {
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

    /// Puts a key where it belongs now: pending, or out of the table.
    fn touch(&mut self, key: &Key) {
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
        let differs = entry.differs();
        let resting = entry.refused().is_some_and(|refused| refused.retry_at.is_some());
        let Some(state) = self.lanes.get_mut(&key.lane()) else { return };
        if differs && !resting && !state.in_flight.contains_key(key) {
            state.pending.insert(key.clone());
        } else {
            state.pending.remove(key);
        }
    }

    fn succeeded(&mut self, key: &Key, now_there: Option<Row>) {
        let removed = now_there.is_none();
        self.set_actual(key, now_there);
        self.forget_refusal(key);
        if removed {
            self.contents_died(key);
        }
    }

    fn refused(&mut self, key: &Key, refusal: &Refusal, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = entry.set_refused(None);
        let attempts = before.as_ref().map_or(0, |refused| refused.attempts);
        let said_before = before.as_ref().is_some_and(|refused| refused.reason == refusal.reason);
        let first = before.is_none();
        let retry_at = now + pause(attempts);
        entry.set_refused(Some(Refused {
            reason: refusal.reason.clone(),
            attempts: attempts + 1,
            retry_at: Some(retry_at),
        }));
        let owners = self.claims.owners_of(entry.claimants());
        self.retries.insert((retry_at, key.clone()));
        if first {
            self.count(key).refused += 1;
        }
        if !said_before {
            self.notices.push(Notice { key: key.clone(), owners, reason: refusal.reason.clone() });
        }
    }

    fn forget_refusal(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(refused) = entry.set_refused(None) {
            if let Some(at) = refused.retry_at {
                self.retries.remove(&(at, key.clone()));
            }
            self.count(key).refused -= 1;
        }
    }

    fn release_retries(&mut self, now: Instant) {
        while let Some((at, key)) = self.retries.first().cloned() {
            if at > now {
                return;
            }
            self.retries.remove(&(at, key.clone()));
            if let Some(refused) = self.entries.get_mut(&key).and_then(Entry::refused_mut) {
                refused.retry_at = None;
            }
            self.touch(&key);
        }
    }

    /// Changes what is believed to be there, and with it what holds what.
    fn set_actual(&mut self, key: &Key, row: Option<Row>) {
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
        let count = self.count(key);
        count.actual = count.actual + usize::from(appeared) - usize::from(vanished);
        for needed in needed_before.iter().chain(released.iter()) {
            self.release(needed);
        }
        if appeared {
            self.wake(key);
        }
    }

    fn release(&mut self, key: &Key) {
        if let Some(count) = self.holds.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.holds.remove(key);
                self.touch(key);
            }
        }
    }

    /// A container went and the kernel removed its contents with it. O(contents).
    fn contents_died(&mut self, container: &Key) {
        let inside: Vec<Key> = batch::contents(&self.entries, container).cloned().collect();
        for key in inside {
            self.set_actual(&key, None);
            self.touch(&key);
        }
    }

    fn count(&mut self, key: &Key) -> &mut TableCount {
        self.counts.entry(key.table()).or_default()
    }
}

/// What a row stands on besides its container, which removal need not wait for.
fn outside_needs(key: &Key, row: &Row) -> Vec<Key> {
    let container = key.container();
    row.stands_on(key).into_iter().filter(|needed| Some(needed) != container.as_ref()).collect()
}

fn pause(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempts.min(16)).min(RETRY_LONGEST)
}

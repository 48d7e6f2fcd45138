//! From pending keys to a batch of stages a lane can apply in order.
//!
//! Additions and changes come first, each behind what it stands on; removals come last, so that nothing allowed both
//! before and after a change is refused in between. What cannot be done yet is parked with whatever it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;

use hashbrown::HashMap;

use super::entry::Entry;
use super::{LaneState, Reconciler};
use crate::lane::Change;
use crate::row::{Key, LaneName, Row};

/// Most changes in one batch: large enough to be cheap per row, small enough that a lane answers within a second.
const BATCH: usize = 8192;

/// What is to become of a pending key now.
enum Verdict {
    /// In this stage of the batch, pointless if one of these keys of the batch fails.
    Stage(usize, Vec<Key>),
    /// Removed at the end of the batch.
    Remove,
    /// Not before one of these is there.
    Wait(Vec<Key>),
    /// Nothing to do now; whoever changes that touches the key again.
    Rest,
}

/// A batch being put together.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) stage_of: HashMap<Key, usize>,
    stages: Vec<Vec<Change>>,
    removals: Vec<Change>,
    /// Placed since somebody looked for those who wait for them; only what is waited for, for most is not.
    fresh: Vec<Key>,
    /// Not yet placed: rows that begin to look into a verdict map, each with the map, which come after all that comes into it.
    pub(super) lookers: BTreeMap<Key, Key>,
}

impl Draft {
    fn len(&self) -> usize {
        self.stage_of.len() + self.removals.len()
    }
}

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// Takes pending keys of a lane into a batch. O(keys taken) and their prerequisites.
    pub(super) fn build_batch(&mut self, lane: LaneName) -> Vec<Vec<Change>> {
        let mut pending =
            self.lanes.get_mut(&lane).map(|state| std::mem::take(&mut state.pending)).unwrap_or_default();
        let mut draft = Draft::default();
        let mut parked: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        // Key order puts containers before contents and sets before chains, so one pass meets most prerequisites first.
        while draft.len() < BATCH
            && let Some(key) = pending.pop_first()
        {
            let Some(missing) = self.place(&key, &mut draft) else { continue };
            // Most wait for something in another lane, and are not kept in hand meanwhile.
            if missing.iter().any(|need| pending.contains(need) || parked.contains_key(need)) {
                parked.insert(key, missing);
            } else {
                self.park(&key, missing);
            }
        }
        // What had to wait for something that came later in the pass, or has waited for something that is in this batch
        // since an earlier one, need not wait any longer.
        loop {
            let fresh = std::mem::take(&mut draft.fresh);
            let waiters = self.due_waiters(lane, &fresh, &draft);
            let (mut ready, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = parked
                .into_iter()
                .partition(|(_, missing)| missing.iter().any(|key| draft.stage_of.contains_key(key)));
            parked = rest;
            for key in waiters {
                pending.remove(&key);
                parked.remove(&key);
                ready.insert(key, Vec::new());
            }
            if ready.is_empty() && !self.place_lookers(&pending, &mut parked, &mut draft) {
                break;
            }
            for key in ready.into_keys() {
                parked.extend(self.place(&key, &mut draft).map(|missing| (key, missing)));
            }
        }
        for (key, missing) in parked {
            self.park(&key, missing);
        }
        let Draft { mut stages, removals, lookers, .. } = draft;
        self.looking.extend(lookers.into_keys());
        stages.push(removals);
        stages.retain(|stage| !stage.is_empty());
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.pending = pending;
            note_in_flight(state, &stages);
        }
        stages
    }

    fn park(&mut self, key: &Key, missing: Vec<Key>) {
        for prerequisite in missing {
            self.waiting.park(prerequisite, key.clone());
        }
    }

    /// Rows of the lane that were left waiting for one of these, and may be written now. They stay parked: whatever wakes
    /// them later finds nothing to do. As many as the batch has room for. O(keys) and who waits for them.
    fn due_waiters(&self, lane: LaneName, placed: &[Key], draft: &Draft) -> BTreeSet<Key> {
        let Some(state) = self.lanes.get(&lane) else { return BTreeSet::new() };
        let due = |key: &&Key| {
            let entry = self.entries.get(key).filter(|entry| entry.desired().is_some() && entry.differs());
            // After a refusal, or, being displaced, in a quarrel.
            let rests = |entry: &Entry| {
                entry.rests() || matches!(key, Key::ForeignRule(..)) && entry.actual().is_some()
            };
            key.lane() == lane
                && entry.is_some_and(|entry| !rests(entry))
                && !state.in_flight.contains_key(*key)
                && !draft.stage_of.contains_key(*key)
        };
        let room = BATCH.saturating_sub(draft.len());
        placed.iter().flat_map(|key| self.waiting.of(key)).filter(due).take(room).cloned().collect()
    }

    /// Puts a key into the draft, or says what it has to wait for.
    fn place(&self, key: &Key, draft: &mut Draft) -> Option<Vec<Key>> {
        if let Some(map) = self.begins_to_look(key) {
            draft.lookers.insert(key.clone(), map);
            return None;
        }
        self.place_behind(key, Vec::new(), draft)
    }

    /// Puts a key into the draft behind these, too, or says what it has to wait for.
    pub(super) fn place_behind(&self, key: &Key, behind: Vec<Key>, draft: &mut Draft) -> Option<Vec<Key>> {
        let entry = self.entries.get(key)?;
        match self.judge(key, entry, &draft.stage_of) {
            Verdict::Stage(stage, mut after) => {
                let last = behind.iter().filter_map(|key| draft.stage_of.get(key)).max();
                let stage = last.map_or(stage, |last| stage.max(last + 1));
                after.extend(behind);
                draft.stages.resize_with(draft.stages.len().max(stage + 1), Vec::new);
                if let Some(place) = draft.stages.get_mut(stage) {
                    draft.stage_of.insert(key.clone(), stage);
                    if self.waiting.of(key).next().is_some() {
                        draft.fresh.push(key.clone());
                    }
                    place.push(change(key, entry, after));
                }
                None
            }
            Verdict::Remove => {
                draft.removals.push(change(key, entry, Vec::new()));
                None
            }
            Verdict::Wait(missing) => Some(missing),
            Verdict::Rest => None,
        }
    }

    fn judge(&self, key: &Key, entry: &Entry, batch: &HashMap<Key, usize>) -> Verdict {
        match entry.desired() {
            Some(row) => self.judge_wanted(key, entry, row, batch),
            None => self.judge_unwanted(key, entry),
        }
    }

    fn judge_wanted(&self, key: &Key, entry: &Entry, row: &Row, batch: &HashMap<Key, usize>) -> Verdict {
        let mut needs = row.stands_on(key);
        let together = row.goes_with(key);
        let mut missing: Vec<Key> =
            needs.iter().chain(&together).filter(|need| !self.will_be_there(need, batch)).cloned().collect();
        missing.extend(self.new_sets_filling(key, entry, &needs));
        if missing.is_empty() && entry.actual().is_none() {
            // Of several claims to one row, the first whose prerequisites are met is enough.
            let mut unmet = Vec::new();
            let met = self.claims.prerequisites(key, entry.claimants()).find(|after| {
                let lacking = after.iter().find(|need| !self.will_be_there(need, batch));
                unmet.extend(lacking.cloned());
                lacking.is_none()
            });
            match met {
                Some(after) => needs.extend_from_slice(after),
                None => missing = unmet,
            }
        }
        if !missing.is_empty() {
            return Verdict::Wait(missing);
        }
        let before = needs.iter().filter_map(|need| batch.get(need)).map(|stage| stage + 1);
        let beside = together.iter().filter_map(|need| batch.get(need)).copied();
        let stage = before.chain(beside).max().unwrap_or(0);
        // What is written in the same transaction fails with it; what comes before may fail without it.
        needs.extend(together.into_iter().filter(|need| batch.get(need).is_some_and(|other| *other < stage)));
        needs.retain(|need| batch.contains_key(need));
        Verdict::Stage(stage, needs)
    }

    fn judge_unwanted(&self, key: &Key, entry: &Entry) -> Verdict {
        let held = self.holds.get(key).is_some_and(|count| *count > 0);
        let allowed = entry.actual().is_some_and(|row| self.gates.let_go(key, row, entry.was_wanted()));
        if !allowed || held || self.dies_with_container(key) { Verdict::Rest } else { Verdict::Remove }
    }

    /// Whether the container is there and about to be removed, which removes this row too.
    fn dies_with_container(&self, key: &Key) -> bool {
        let container = key.container().and_then(|container| self.entries.get(&container));
        container.is_some_and(|entry| entry.desired().is_none() && entry.actual().is_some())
    }

    /// A prerequisite is met by being there and staying, by coming earlier in this batch, or by being none of ours.
    fn will_be_there(&self, key: &Key, batch: &HashMap<Key, usize>) -> bool {
        let stays = |entry: &Entry| {
            entry.actual().is_some() && entry.desired().is_some() && !self.is_being_removed(key)
        };
        self.entries.get(key).is_none_or(|entry| stays(entry) || batch.contains_key(key))
    }

    /// Whether a lane has been told to remove it: wanted again meanwhile, it is there only after the lane's next job.
    fn is_being_removed(&self, key: &Key) -> bool {
        self.lanes.get(&key.lane()).is_some_and(|state| state.in_flight.get(key) == Some(&None))
    }

    /// Sets a rule begins to look into that still lack members on their way: a rule that met them would refuse, or let
    /// pass, what it should not. Sets it looks into already are as good for the new rule as for the old one.
    /// O(rules + members on their way).
    fn new_sets_filling(&self, key: &Key, entry: &Entry, needs: &[Key]) -> Vec<Key> {
        if key.lane() != LaneName::Firewall {
            return Vec::new();
        }
        let before = entry.actual().map(|row| row.stands_on(key)).unwrap_or_default();
        let new = needs.iter().filter(|need| matches!(need, Key::Set(_)) && !before.contains(need));
        new.filter(|set| self.is_filling(set)).cloned().collect()
    }

    /// Whether members of a set are on their way into it. One that was refused, and rests, is not.
    fn is_filling(&self, set: &Key) -> bool {
        let Some((state, first)) = self.lanes.get(&set.lane()).zip(first_content(set)) else { return false };
        let inside = |key: &&Key| key.container().as_ref() == Some(set);
        let pending = state.pending.range(&first..).take_while(inside);
        let in_flight = state.in_flight.range(&first..).map(|(key, _)| key).take_while(inside);
        pending.chain(in_flight).any(|key| self.is_missing(key))
    }

    /// Whether a row is wanted and not there, or not for long.
    pub(super) fn is_missing(&self, key: &Key) -> bool {
        let lacks = |entry: &Entry| entry.actual().is_none() || self.is_being_removed(key);
        self.entries.get(key).is_some_and(|entry| entry.desired().is_some() && lacks(entry))
    }
}

fn change(key: &Key, entry: &Entry, after: Vec<Key>) -> Change {
    Change { key: key.clone(), from: entry.actual().cloned(), to: entry.desired().cloned(), after }
}

fn note_in_flight(state: &mut LaneState, stages: &[Vec<Change>]) {
    // At once: what is in order already, as within a stage it mostly is, is not looked for one by one.
    state.in_flight = stages.iter().flatten().map(|change| (change.key.clone(), change.to.clone())).collect();
}

/// Keys of what lives in `container`, which the order of keys puts side by side. O(log n + contents).
pub(super) fn contents<'a>(
    entries: &'a BTreeMap<Key, Entry>,
    container: &'a Key,
) -> impl Iterator<Item = &'a Key> {
    let first = first_content(container);
    let inside = first.map(|first| entries.range(first..)).into_iter().flatten();
    inside.map(|(key, _)| key).take_while(|key| key.container().as_ref() == Some(container))
}

fn first_content(container: &Key) -> Option<Key> {
    use std::net::{IpAddr, Ipv4Addr};
    let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    match container {
        Key::VirtualServer(server) => Some(Key::RealServer(*server, lowest, 0)),
        Key::Set(set) => Some(Key::Member(set.clone().into(), crate::row::Member::Ip(lowest))),
        Key::VerdictMap(map) => Some(Key::Verdict(map.clone(), lowest)),
        Key::Link(link) => {
            Some(Key::Address { link: link.clone(), net: ipnet::IpNet::V4(ipnet::Ipv4Net::default()) })
        }
        _ => None,
    }
}

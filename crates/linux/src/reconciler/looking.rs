//! When a chain may begin to look into a verdict map.
//!
//! A verdict leads to a pod's chain, that to one of pods restricted alike, and that to policies, which wait for their sets: so
//! a verdict may come some stages, or batches, after the map. A packet that finds none passes unjudged, or is refused where
//! the unknown is. Decided here, from what is wanted and what is there: that such a chain comes behind every verdict, but is not
//! held up by one that may never come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;

use super::Reconciler;
use super::batch::{Draft, contents};
use crate::row::{Key, Row, SetKey};
use crate::rule::Rule;

/// Chains that lead one to the next from a verdict on: of a pod, of pods restricted alike, of a policy; and sets below.
const CHAINS_IN_A_ROW: usize = 6;

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// The verdict map a wanted row begins to look into, if it does.
    pub(super) fn begins_to_look(&self, key: &Key) -> Option<Key> {
        let Key::Chain(chain) = key else { return None };
        let entry = self.entries.get(key)?;
        let Row::Chain(rules) = entry.desired()? else { return None };
        let name = rules.iter().find_map(Rule::verdict_map)?;
        let looks = |row: &Row| matches!(row, Row::Chain(rules) if rules.iter().any(|rule| rule.verdict_map() == Some(name)));
        let map = SetKey { family: chain.family, name: name.clone() };
        (!entry.actual().is_some_and(looks)).then_some(Key::VerdictMap(map))
    }

    /// Places rows that begin to look into a verdict map, behind every verdict of it in this batch: packets that found none
    /// would pass unjudged, or be refused. Those whose map is still to get others are left for later. Whether any was placed.
    /// O(verdicts of the maps, and chains below those that have to wait), for each first look into a map.
    pub(super) fn place_lookers(
        &self,
        pending: &BTreeSet<Key>,
        parked: &mut BTreeMap<Key, Vec<Key>>,
        draft: &mut Draft,
    ) -> bool {
        let mut placed = false;
        for (key, map) in std::mem::take(&mut draft.lookers) {
            let verdicts: Vec<&Key> = contents(&self.entries, &map).collect();
            if verdicts.iter().any(|verdict| self.is_on_its_way(verdict, pending, draft)) {
                draft.lookers.insert(key, map);
                continue;
            }
            let in_batch = verdicts.into_iter().filter(|verdict| draft.stage_of.contains_key(*verdict));
            let behind = in_batch.cloned().collect();
            if let Some(missing) = self.place_behind(&key, behind, draft) {
                parked.insert(key, missing);
            }
            placed = true;
        }
        placed
    }

    /// Whether a verdict that is wanted and not there will be, though not by this batch.
    fn is_on_its_way(&self, verdict: &Key, pending: &BTreeSet<Key>, draft: &Draft) -> bool {
        !draft.stage_of.contains_key(verdict)
            && self.is_missing(verdict)
            && (pending.contains(verdict) || !self.is_obstructed(verdict, CHAINS_IN_A_ROW))
    }

    /// Whether a row that is wanted and not there, or something it needs, was refused, so that it may never come.
    fn is_obstructed(&self, key: &Key, depth: usize) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        let Some(row) = entry.desired() else { return entry.actual().is_none() };
        if entry.actual().is_some() {
            return false;
        }
        entry.rests()
            || depth == 0
            || row
                .stands_on(key)
                .iter()
                .chain(&row.goes_with(key))
                .any(|need| self.is_obstructed(need, depth - 1))
    }
}

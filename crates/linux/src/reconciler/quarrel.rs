//! Rules of ours that somebody else displaces again and again.
//!
//! Decided here: how soon such a rule is put back, and when a person is told. At once the first time; after that with
//! doubled pauses up to a minute, for two programs that each want to be first would otherwise keep each other busy. It
//! is never given up: what stands before our rule decides about traffic that ours should decide about.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::retry::pause;
use super::{Notice, Reconciler};
use crate::row::{Key, LaneName, Position, Row};

/// After so long without a displacement a quarrel is over.
const PEACE: Duration = Duration::from_secs(600);

/// All of them, by rule; nearly always none.
#[derive(Debug, Default)]
pub(super) struct Quarrels(HashMap<Key, Quarrel>);

#[derive(Debug)]
struct Quarrel {
    /// How often it was put back.
    times: u32,
    /// When the last time was.
    last: Instant,
    /// Not to be put back again before.
    not_before: Instant,
}

impl Quarrels {
    /// A rule was put back into its place. Says how often that happened by now, if a person should be told: the first
    /// time, and each time the number has doubled.
    pub(super) fn put_back(&mut self, key: &Key, now: Instant) -> Option<u32> {
        let quarrel = self.0.entry(key.clone()).or_insert(Quarrel { times: 0, last: now, not_before: now });
        if now.saturating_duration_since(quarrel.last) > PEACE {
            quarrel.times = 0;
        }
        quarrel.times += 1;
        quarrel.last = now;
        quarrel.not_before = now + pause(quarrel.times - 1);
        quarrel.times.is_power_of_two().then_some(quarrel.times)
    }

    /// Rules that must stay where they are for now if they are displaced, and until when. O(quarrels).
    pub(super) fn resting(&self, now: Instant) -> Vec<(Key, Instant)> {
        let resting = self.0.iter().filter(|(_, quarrel)| quarrel.not_before > now);
        resting.map(|(key, quarrel)| (key.clone(), quarrel.not_before)).collect()
    }

    /// Nobody wants the rule any longer.
    pub(super) fn forget(&mut self, key: &Key) {
        if !self.0.is_empty() {
            self.0.remove(key);
        }
    }
}

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// Remembers that a rule was put back into its place, and tells a person if it is worth it.
    pub(super) fn note_quarrel(&mut self, key: &Key, now_there: Option<&Row>, now: Instant) {
        let Some(entry) = self.entries.get(key) else { return };
        if !puts_back(entry.actual(), now_there) {
            return;
        }
        if let Some(times) = self.quarrels.put_back(key, now) {
            let owners = self.claims.owners_of(entry.claimants());
            let reason = format!("was displaced by another program and put back, {times} times by now");
            self.notices.push(Notice { key: key.clone(), owners, reason });
        }
    }

    /// Displaced rules that were put back a moment ago wait for their time. O(quarrels).
    pub(super) fn rest_quarrels(&mut self, lane: LaneName, now: Instant) {
        for (key, until) in self.quarrels.resting(now) {
            let displaced = self.actual(&key).is_some() && key.lane() == lane;
            let Some(state) = self.lanes.get_mut(&lane).filter(|_| displaced) else { continue };
            if state.pending.remove(&key) {
                self.retries.insert((until, key));
            }
        }
    }
}

/// Whether going from one row to the other is putting a rule back into its place.
fn puts_back(from: Option<&Row>, to: Option<&Row>) -> bool {
    matches!((from, to), (Some(Row::ForeignRule(there)), Some(Row::ForeignRule(wanted @ Position::First(_)))) if there != wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{ChainKey, Family, FilterTable};
    use crate::rule::{Action, Rule};

    #[test]
    fn pauses_and_silences_double_until_peace() {
        let chain = ChainKey { family: Family::V4, table: FilterTable::Filter, name: "INPUT".into() };
        let key = Key::ForeignRule(chain, Rule::new([], Action::Accept));
        let (mut quarrels, mut now) = (Quarrels::default(), Instant::now());
        assert_eq!(quarrels.resting(now), [], "the first time it goes back at once");
        let mut told = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            told.extend(quarrels.put_back(&key, now));
            let until = quarrels.resting(now)[0].1;
            pauses.push(until - now);
            now = until;
            assert_eq!(quarrels.resting(now), []);
        }
        assert_eq!(told, [1, 2, 4, 8]);
        assert_eq!((pauses[0], pauses[1]), (Duration::from_millis(250), Duration::from_millis(500)));
        assert_eq!(pauses[11], Duration::from_secs(60));
        now += PEACE + Duration::from_secs(1);
        assert_eq!(quarrels.put_back(&key, now), Some(1));
    }
}

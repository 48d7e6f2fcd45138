//! Which destinations of a group changed, in order, so that members can be at different places in it.
//!
//! A destination that changes again moves to the end. What it leaves behind is skipped, and squeezed out when it is
//! more than half of the log, so the log is bounded by the number of destinations, not of changes.

use std::collections::{BTreeMap, VecDeque};

use crate::rib::DestinationId;

/// A place in the log; places are never used twice.
pub(crate) type Position = u64;

/// What a destination remembers of its place, 0 if it is not in the log.
///
/// Half the size of a position: places in use are never that far apart.
pub(crate) type Tag = u32;

/// The log and how many members are at each place.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<DestinationId>,
    first: Position,
    live: usize,
    readers: BTreeMap<Position, u32>,
}

/// Room for left-behind entries that is not worth a squeeze.
const SLACK: usize = 1024;

impl Log {
    /// The place after the last entry.
    pub(crate) fn end(&self) -> Position {
        self.first + self.entries.len() as Position
    }

    /// What the destination at this place has to remember.
    pub(crate) fn tag(position: Position) -> Tag {
        (position % Position::from(Tag::MAX)) as Tag + 1
    }

    /// Adds a destination at the end, in place of the entry it may have. Returns its tag.
    pub(crate) fn append(&mut self, id: DestinationId, was: Tag) -> Tag {
        let tag = Log::tag(self.end());
        self.entries.push_back(id);
        self.live += usize::from(was == 0);
        tag
    }

    /// An entry has been left behind by a destination that is no longer in the log.
    pub(crate) fn abandon(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    /// Up to `most` entries from a place on, with their tags.
    pub(crate) fn from(&self, at: Position, most: usize) -> impl Iterator<Item = (DestinationId, Tag)> {
        let skip = at.saturating_sub(self.first) as usize;
        let tags = (self.first + skip as Position..).map(Log::tag);
        self.entries.range(skip.min(self.entries.len())..).copied().zip(tags).take(most)
    }

    /// A member is at the end from now on; returns where that is.
    pub(crate) fn enter(&mut self) -> Position {
        let end = self.end();
        *self.readers.entry(end).or_default() += 1;
        end
    }

    /// A member leaves.
    pub(crate) fn leave(&mut self, at: Position) {
        if let Some(count) = self.readers.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.readers.remove(&at);
            }
        }
    }

    /// A member goes on. O(log members).
    pub(crate) fn advance(&mut self, from: Position, to: Position) {
        if from != to {
            self.leave(from);
            *self.readers.entry(to).or_default() += 1;
        }
    }

    /// Takes the first entry off if every member has passed it.
    pub(crate) fn pop_passed(&mut self) -> Option<(DestinationId, Tag)> {
        let slowest = self.readers.first_key_value().map_or(self.end(), |(position, _)| *position);
        if self.first >= slowest {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let tag = Log::tag(self.first);
        self.first += 1;
        Some((entry, tag))
    }

    /// Whether more than half of the entries have been left behind.
    pub(crate) fn is_slack(&self) -> bool {
        self.entries.len() > 2 * self.live + SLACK
    }

    /// Squeezes out what was left behind. `keep` says whether an entry with this tag counts and learns its new tag.
    /// Returns where each place with members has gone to. O(log).
    pub(crate) fn squeeze(
        &mut self,
        mut keep: impl FnMut(DestinationId, Tag, Tag) -> bool,
    ) -> BTreeMap<Position, Position> {
        let (old_first, new_first) = (self.first, self.end());
        let old = std::mem::take(&mut self.entries);
        let mut readers = std::mem::take(&mut self.readers).into_iter().peekable();
        let mut moved = BTreeMap::new();
        let mut entries = VecDeque::with_capacity(self.live);
        for (at, id) in (old_first..).zip(old) {
            let next = new_first + entries.len() as Position;
            while let Some((place, count)) = readers.next_if(|(place, _)| *place <= at) {
                moved.insert(place, next);
                *self.readers.entry(next).or_default() += count;
            }
            if keep(id, Log::tag(at), Log::tag(next)) {
                entries.push_back(id);
            }
        }
        let end = new_first + entries.len() as Position;
        for (place, count) in readers {
            moved.insert(place, end);
            *self.readers.entry(end).or_default() += count;
        }
        (self.first, self.entries) = (new_first, entries);
        moved
    }

    /// How many entries it holds, those left behind included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten destinations change over and over while one member does not read.
    #[test]
    fn is_bounded_by_destinations() {
        let mut log = Log::default();
        let mut tags = [0; 10];
        let (slow, fast) = (log.enter(), log.enter());
        let mut at = [slow, fast];
        for change in 0..100_000u32 {
            let id = change % 10;
            tags[id as usize] = log.append(id, tags[id as usize]);
            if log.is_slack() {
                let moved = log.squeeze(|id, old, new| {
                    let live = tags[id as usize] == old;
                    if live {
                        tags[id as usize] = new;
                    }
                    live
                });
                at = at.map(|place| moved[&place]);
            }
            let [_, fast] = &mut at;
            let end = log.end();
            log.advance(*fast, end);
            *fast = end;
            assert!(log.len() <= 2 * 10 + SLACK + 1);
        }
        let live = |(id, tag): &(DestinationId, Tag)| tags[*id as usize] == *tag;
        let order: Vec<_> = log.from(at[0], usize::MAX).filter(live).map(|(id, _)| id).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>(), "each once, in the order of its last change");
        assert_eq!(log.from(at[1], usize::MAX).count(), 0);
        assert!(log.pop_passed().is_none());
        log.leave(at[0]);
        while log.pop_passed().is_some() {}
        assert_eq!(log.len(), 0);
    }
}

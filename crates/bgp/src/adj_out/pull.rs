//! What a member of a group is told next, and what it has been told by then.

use std::sync::Arc;

use super::batch::{Item, Packing, Span};
use super::group::Group;
use crate::rib::{DestinationId, Table};
use crate::source::PeerId;
use crate::update::Update;

/// Members at more different places than this do not share batches.
const BATCHES_KEPT: usize = 4;

/// What a member is told next.
enum Step {
    /// What others at the same place are told, too.
    Span(Span),
    /// Some destinations for this member alone; if they are part of its walk, where that goes on.
    Chosen(Vec<DestinationId>, Option<DestinationId>),
}

impl Group {
    /// The next news for a member, looking at `most` destinations at a time; nothing once it has heard everything. While
    /// selection waits there is more to come, so End-of-RIB waits, too.
    pub(crate) fn pull(&mut self, peer: PeerId, most: usize, table: &mut Table) -> Vec<Update> {
        let mut updates = Vec::new();
        self.skip_what_the_walk_covers(peer, table);
        while updates.is_empty() {
            let Some(step) = self.next_step(peer, most.max(1)) else {
                updates.extend(self.end_of_rib(peer, table));
                break;
            };
            let items = self.items(&step, table);
            self.tell(peer, &items, table, &mut updates);
            self.go_on(peer, step, table, &mut updates);
        }
        updates
    }

    fn end_of_rib(&mut self, peer: PeerId, table: &Table) -> Option<Update> {
        let feed = self.members.get_mut(&peer).filter(|_| !table.is_waiting())?;
        std::mem::take(&mut feed.end_of_rib_due).then_some(Update::EndOfRib(self.family))
    }

    /// A member that has been told nothing and has not begun its walk needs nothing of what is in the log by now.
    fn skip_what_the_walk_covers(&mut self, peer: PeerId, table: &mut Table) {
        let Some(feed) = self.members.get_mut(&peer) else { return };
        let fresh = feed.walk.as_ref().is_some_and(|walk| walk.next == 0 && walk.only.is_none());
        // What has been told may be gone, and stand in the log for this member alone.
        if fresh && feed.told.is_clear() {
            let end = self.log.end();
            self.log.advance(feed.at, end);
            feed.at = end;
            self.trim(table);
        }
    }

    fn next_step(&self, peer: PeerId, most: usize) -> Option<Step> {
        let feed = self.members.get(&peer)?;
        if !feed.again.is_empty() {
            return Some(Step::Chosen(feed.again.iter().copied().take(most).collect(), None));
        }
        if let Some(walk) = &feed.walk {
            let end = self.slots.len() as DestinationId;
            let Some(only) = &walk.only else {
                let to = end.min(walk.next.saturating_add(most.try_into().unwrap_or(DestinationId::MAX)));
                return Some(Step::Span(Span::Numbers(walk.next.min(to), to)));
            };
            let rest = only.ones().map(|bit| bit as DestinationId).skip_while(|id| *id < walk.next);
            let chosen: Vec<DestinationId> = rest.take(most).collect();
            let next = chosen.last().map_or(end, |last| last + 1);
            return Some(Step::Chosen(chosen, Some(next)));
        }
        let (at, end) = (feed.at, self.log.end());
        (at < end).then(|| Step::Span(Span::Log(at, end.min(at.saturating_add(most as u64)))))
    }

    /// The destinations of a step, packed; from an earlier member where one was at the same place.
    fn items(&mut self, step: &Step, table: &Table) -> Arc<[Item]> {
        let span = match step {
            Step::Span(span) => *span,
            Step::Chosen(ids, _) => return self.pack(ids.iter().copied(), table),
        };
        if let Some((_, items)) = self.batches.iter().find(|(kept, _)| *kept == span) {
            return items.clone();
        }
        let items = match span {
            Span::Numbers(from, to) => self.pack(from..to, table),
            Span::Log(from, to) => {
                let entries = self.log.from(from, (to - from) as usize);
                let live = entries
                    .filter(|(id, tag)| self.slots.get(*id as usize).is_some_and(|slot| slot.tag == *tag));
                self.pack(live.map(|(id, _)| id), table)
            }
        };
        if self.batches.len() >= BATCHES_KEPT {
            self.batches.remove(0);
        }
        self.batches.push((span, items.clone()));
        items
    }

    fn pack(&self, ids: impl Iterator<Item = DestinationId>, table: &Table) -> Arc<[Item]> {
        let mut packing = Packing::default();
        for id in ids {
            let Some(slot) = self.slots.get(id as usize) else { continue };
            let Some(prefix) = table.prefix(id) else { continue };
            match &slot.attributes {
                None if slot.told == 0 => {}
                None => packing.add(id, prefix, None, PeerId::LOCAL),
                Some(attributes) => {
                    let source = table.best(id).map_or(PeerId::LOCAL, |path| path.peer);
                    packing.add(id, prefix, Some(attributes), source);
                }
            }
        }
        packing.finish().into()
    }

    /// Says the items to a member, as far as they are news for it.
    fn tell(&mut self, peer: PeerId, items: &[Item], table: &mut Table, updates: &mut Vec<Update>) {
        let mut gone = Vec::new();
        for item in items {
            let Some(feed) = self.members.get_mut(&peer) else { return };
            let attributes = item
                .attributes
                .as_ref()
                .filter(|attributes| item.source != peer && attributes.next_hop.global != feed.address);
            if let Some(attributes) = attributes {
                for id in &item.ids {
                    if feed.tell(*id)
                        && let Some(slot) = self.slots.get_mut(*id as usize)
                    {
                        slot.told += 1;
                    }
                }
                updates.push(Update::Reach {
                    family: self.family,
                    attributes: attributes.clone(),
                    prefixes: item.prefixes.clone(),
                });
                continue;
            }
            let each = item.ids.iter().zip(&item.prefixes);
            let ended: Vec<_> = each.filter(|(id, _)| feed.untell(**id)).collect();
            gone.reserve(ended.len());
            for (id, prefix) in ended {
                gone.push(*prefix);
                self.untell(*id, table);
            }
        }
        if !gone.is_empty() {
            updates.insert(0, Update::Unreach { family: self.family, prefixes: gone });
        }
    }

    /// Takes note of a step that has been told.
    fn go_on(&mut self, peer: PeerId, step: Step, table: &mut Table, updates: &mut Vec<Update>) {
        let end = self.slots.len() as DestinationId;
        let Some(feed) = self.members.get_mut(&peer) else { return };
        let walked_to = match step {
            Step::Chosen(ids, None) => {
                for id in ids {
                    feed.again.remove(&id);
                }
                return;
            }
            Step::Span(Span::Log(_, to)) => {
                self.log.advance(feed.at, to);
                feed.at = to;
                self.trim(table);
                return;
            }
            Step::Chosen(_, Some(next)) | Step::Span(Span::Numbers(_, next)) => next,
        };
        if walked_to < end {
            if let Some(walk) = &mut feed.walk {
                walk.next = walked_to;
            }
            return;
        }
        feed.walk = None;
        updates.extend(self.end_of_rib(peer, table));
        if self.members.values().all(|feed| feed.walk.is_none()) {
            self.batches.clear();
        }
    }
}

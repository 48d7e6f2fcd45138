//! Peers that are told the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::batch::{Item, Packing, Span};
use super::export::{Exporter, Prepared, View};
use super::feed::{Feed, Walk};
use super::log::{Log, Tag};
use crate::attributes::Attributes;
use crate::family::Family;
use crate::interner::Interner;
use crate::rib::{DestinationId, Table};
use crate::source::PeerId;
use crate::update::Update;

/// What is told of one destination.
#[derive(Debug, Default)]
struct Slot {
    attributes: Option<Arc<Attributes>>,
    /// Its place in the log. A destination in the log is pinned in the table.
    tag: Tag,
    /// How many members have been told of it. While that is above zero and there is nothing to tell any more, the
    /// destination is in the log, at or after the place of those members.
    told: u32,
}

/// A view and the peers that have it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) view: View,
    family: Family,
    /// By destination; may be shorter than the table.
    slots: Vec<Slot>,
    log: Log,
    members: HashMap<PeerId, Feed>,
    /// Batches made lately, while nothing has changed since.
    batches: Vec<(Span, Arc<[Item]>)>,
    prepared: Prepared,
}

/// Members at more different places than this do not share batches.
const BATCHES_KEPT: usize = 4;

impl Group {
    /// A group without members, which knows what they will be told. O(table).
    pub(crate) fn new(
        view: View,
        family: Family,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) -> Self {
        let mut group = Group {
            view,
            family,
            slots: Vec::new(),
            log: Log::default(),
            members: HashMap::new(),
            batches: Vec::new(),
            prepared: Prepared::default(),
        };
        for id in 0..table.numbers_end() {
            group.offer(id, None, table, exporter, interner);
        }
        group
    }

    /// Whether nobody is a member.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members that may be told something.
    pub(crate) fn behind(&self) -> impl Iterator<Item = PeerId> {
        let end = self.log.end();
        self.members.iter().filter(move |(_, feed)| feed.is_behind(end)).map(|(peer, _)| *peer)
    }

    /// What a member has been told last of a destination, or is about to be told.
    pub(crate) fn told(&self, peer: PeerId, id: DestinationId) -> Option<&Arc<Attributes>> {
        self.members.get(&peer).filter(|feed| feed.told.contains(id as usize))?;
        self.slots.get(id as usize)?.attributes.as_ref()
    }

    /// How many destinations a member has been told of.
    pub(crate) fn told_count(&self, peer: PeerId) -> usize {
        self.members.get(&peer).map_or(0, |feed| feed.told.count_ones(..))
    }

    /// Works out what is told of a destination. `was` is whose path was selected before, if another was. Says whether
    /// members have news. O(1), whatever the number of members.
    pub(crate) fn offer(
        &mut self,
        id: DestinationId,
        was: Option<PeerId>,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) -> bool {
        let best = table.best(id);
        let is = best.map(|path| path.peer);
        let attributes = best.zip(table.prefix(id)).and_then(|(path, prefix)| {
            exporter.export(&self.view, prefix, path, &mut self.prepared, interner).ok()
        });
        let at = id as usize;
        if self.slots.len() <= at {
            if attributes.is_none() {
                return false;
            }
            self.slots.resize_with(at + 1, Slot::default);
        }
        let Some(slot) = self.slots.get_mut(at) else { return false };
        let unchanged = match (&slot.attributes, &attributes) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if unchanged {
            return slot.attributes.is_some() && was != is && self.swap_sources(id, was, is);
        }
        slot.attributes = attributes;
        self.batches.clear();
        if self.members.is_empty() {
            return false;
        }
        if slot.attributes.is_none() && slot.told == 0 {
            self.leave_log(id, table);
            return false;
        }
        self.append(id, table);
        true
    }

    /// The same is told as before, but by another peer's path: nobody is told the path it gave us itself.
    fn swap_sources(&mut self, id: DestinationId, was: Option<PeerId>, is: Option<PeerId>) -> bool {
        self.batches.clear();
        let mut any = false;
        for peer in [was, is].into_iter().flatten() {
            if let Some(feed) = self.members.get_mut(&peer) {
                feed.again.insert(id);
                any = true;
            }
        }
        any
    }

    /// A new member, which has been told nothing.
    pub(crate) fn join(&mut self, peer: PeerId, address: IpAddr) {
        let at = self.log.enter();
        self.members.insert(peer, Feed::new(address, at));
    }

    /// A member comes from another group and hears the differences only. O(table).
    pub(crate) fn join_from(&mut self, peer: PeerId, from: &Group, table: &mut Table) {
        let Some(old) = from.members.get(&peer) else { return };
        let at = self.log.enter();
        let mut only = from.untold(old);
        let end = self.slots.len().max(from.slots.len());
        for at in 0..end {
            let [new, old] =
                [self, from].map(|group| group.slots.get(at).and_then(|slot| slot.attributes.as_ref()));
            if new.map(Arc::as_ptr) != old.map(Arc::as_ptr) {
                only.grow_and_insert(at);
            }
        }
        if self.slots.len() < end {
            self.slots.resize_with(end, Slot::default);
        }
        for bit in old.told.ones() {
            let Some(slot) = self.slots.get_mut(bit) else { continue };
            slot.told += 1;
            if slot.attributes.is_none() && slot.tag == 0 {
                self.append(bit as DestinationId, table);
            }
        }
        let feed = Feed {
            address: old.address,
            told: old.told.clone(),
            at,
            walk: Some(Walk {
                next: 0,
                only: old.walk.as_ref().is_none_or(|walk| walk.only.is_some()).then_some(only),
            }),
            again: Default::default(),
            end_of_rib_due: old.end_of_rib_due,
        };
        self.members.insert(peer, feed);
    }

    /// Destinations a member has yet to hear something about.
    fn untold(&self, feed: &Feed) -> FixedBitSet {
        let mut untold = FixedBitSet::with_capacity(self.slots.len());
        let logged = self.log.from(feed.at, usize::MAX).map(|(id, _)| id);
        for id in logged.chain(feed.again.iter().copied()) {
            untold.grow_and_insert(id as usize);
        }
        if let Some(only) = feed.walk.as_ref().and_then(|walk| walk.only.as_ref()) {
            untold.union_with(only);
        }
        untold
    }

    /// A member leaves. O(table / 64 + told).
    pub(crate) fn leave(&mut self, peer: PeerId, table: &mut Table) {
        let Some(feed) = self.members.remove(&peer) else { return };
        self.log.leave(feed.at);
        for bit in feed.told.ones() {
            self.untell(bit as DestinationId, table);
        }
        self.trim(table);
        if self.members.is_empty() {
            self.batches.clear();
        }
    }

    /// A member asked to be told everything again (RFC 2918).
    pub(crate) fn repeat(&mut self, peer: PeerId) {
        if let Some(feed) = self.members.get_mut(&peer) {
            feed.walk = Some(Walk { next: 0, only: None });
        }
    }

    /// The next news for a member, looking at `most` destinations at a time; nothing once it has heard everything.
    pub(crate) fn pull(&mut self, peer: PeerId, most: usize, table: &mut Table) -> Vec<Update> {
        let mut updates = Vec::new();
        self.skip_what_the_walk_covers(peer, table);
        while updates.is_empty() {
            let Some(step) = self.next_step(peer, most.max(1)) else { break };
            let items = self.items(&step, table);
            self.tell(peer, &items, table, &mut updates);
            self.go_on(peer, step, table, &mut updates);
        }
        updates
    }

    /// A new member that has not begun its walk needs nothing of what is in the log by now.
    fn skip_what_the_walk_covers(&mut self, peer: PeerId, table: &mut Table) {
        let Some(feed) = self.members.get_mut(&peer) else { return };
        let fresh = feed.walk.as_ref().is_some_and(|walk| walk.next == 0 && walk.only.is_none());
        if fresh && feed.end_of_rib_due {
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
                None => packing.add(id, *prefix, None, PeerId::LOCAL),
                Some(attributes) => {
                    let source = table.best(id).map_or(PeerId::LOCAL, |path| path.peer);
                    packing.add(id, *prefix, Some(attributes), source);
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
            for (id, prefix) in item.ids.iter().zip(&item.prefixes) {
                if self.members.get_mut(&peer).is_some_and(|feed| feed.untell(*id)) {
                    gone.push(*prefix);
                    self.untell(*id, table);
                }
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
        if std::mem::take(&mut feed.end_of_rib_due) {
            updates.push(Update::EndOfRib(self.family));
        }
        if self.members.values().all(|feed| feed.walk.is_none()) {
            self.batches.clear();
        }
    }

    /// One member fewer has been told of a destination.
    fn untell(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.told = slot.told.saturating_sub(1);
        if slot.told == 0 && slot.attributes.is_none() {
            self.leave_log(id, table);
        }
    }

    fn append(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.tag == 0 {
            table.pin(id);
        }
        slot.tag = self.log.append(id, slot.tag);
        if self.log.is_slack() {
            self.squeeze();
        }
    }

    fn leave_log(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if std::mem::take(&mut slot.tag) != 0 {
            self.log.abandon();
            table.unpin(id);
        }
    }

    /// Forgets the part of the log that all members have passed.
    fn trim(&mut self, table: &mut Table) {
        while let Some((id, tag)) = self.log.pop_passed() {
            // Everybody has read it, so nobody will ask for these batches again.
            self.batches.clear();
            if self.slots.get(id as usize).is_some_and(|slot| slot.tag == tag) {
                self.leave_log(id, table);
            }
        }
    }

    fn squeeze(&mut self) {
        let slots = &mut self.slots;
        let moved = self.log.squeeze(|id, old, new| match slots.get_mut(id as usize) {
            Some(slot) if slot.tag == old => {
                slot.tag = new;
                true
            }
            _ => false,
        });
        for feed in self.members.values_mut() {
            feed.at = moved.get(&feed.at).copied().unwrap_or(feed.at);
        }
        self.batches.clear();
    }

    /// What was prepared under other rules is of no use.
    pub(crate) fn forget_prepared(&mut self) {
        self.prepared = Prepared::default();
    }

    /// Lets go of everything in the table; the group is not used any more.
    pub(crate) fn dissolve(mut self, table: &mut Table) {
        for id in 0..self.slots.len() as DestinationId {
            self.leave_log(id, table);
        }
    }
}

/// What a member is told next.
enum Step {
    /// What others at the same place are told, too.
    Span(Span),
    /// Some destinations for this member alone; if they are part of its walk, where that goes on.
    Chosen(Vec<DestinationId>, Option<DestinationId>),
}

//! Peers that are told the same.

use std::net::IpAddr;
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use hashbrown::HashMap;

use super::batch::{Item, Span};
use super::export::{Exporter, Prepared, View};
use super::feed::{Feed, Walk};
use super::log::{Log, Tag};
use crate::attributes::Attributes;
use crate::chunked::Chunked;
use crate::family::Family;
use crate::interner::Interner;
use crate::rib::{DestinationId, Table};
use crate::source::PeerId;

/// What is told of one destination.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) attributes: Option<Arc<Attributes>>,
    /// Its place in the log. A destination in the log is pinned in the table.
    pub(super) tag: Tag,
    /// How many members have been told of it. While that is above zero and there is nothing to tell any more, the
    /// destination is in the log, at or after the place of those members.
    pub(super) told: u32,
}

/// A view and the peers that have it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) view: View,
    pub(super) family: Family,
    /// By destination; may be shorter than the table.
    pub(super) slots: Chunked<Slot>,
    pub(super) log: Log,
    pub(super) members: HashMap<PeerId, Feed>,
    /// Batches made lately, while nothing has changed since.
    pub(super) batches: Vec<(Span, Arc<[Item]>)>,
    pub(super) prepared: Prepared,
}

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
            slots: Chunked::new(),
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
            exporter.export(&self.view, &prefix, path, &mut self.prepared, interner).ok()
        });
        let at = id as usize;
        if self.slots.len() <= at {
            if attributes.is_none() {
                return false;
            }
            self.slots.grow(at + 1);
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
        self.slots.grow(end);
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

    /// A member asked to be told everything again (RFC 2918). Says whether it was told everything before.
    pub(crate) fn repeat(&mut self, peer: PeerId) -> bool {
        let Some(feed) = self.members.get_mut(&peer) else { return false };
        feed.walk = Some(Walk { next: 0, only: None });
        !feed.end_of_rib_due
    }

    /// One member fewer has been told of a destination.
    pub(super) fn untell(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.told = slot.told.saturating_sub(1);
        if slot.told == 0 && slot.attributes.is_none() {
            self.leave_log(id, table);
        }
    }

    pub(super) fn append(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.tag == 0 {
            table.pin(id);
        }
        slot.tag = self.log.append(id, slot.tag);
        if self.log.is_slack() {
            self.squeeze();
        }
    }

    pub(super) fn leave_log(&mut self, id: DestinationId, table: &mut Table) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if std::mem::take(&mut slot.tag) != 0 {
            self.log.abandon();
            table.unpin(id);
        }
    }

    /// Forgets the part of the log that all members have passed.
    pub(super) fn trim(&mut self, table: &mut Table) {
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

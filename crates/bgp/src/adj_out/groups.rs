//! All groups of a family, by view and by member.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::export::{Exporter, View};
use super::group::Group;
use crate::attributes::Attributes;
use crate::family::Family;
use crate::interner::Interner;
use crate::rib::{DestinationId, Table};
use crate::source::PeerId;
use crate::update::Update;

/// Position of a group.
type GroupId = usize;

/// The groups; places of dissolved ones are used again.
#[derive(Debug)]
pub(crate) struct Groups {
    family: Family,
    groups: Vec<Option<Group>>,
    by_view: HashMap<View, GroupId>,
    of: HashMap<PeerId, GroupId>,
    /// Groups whose members have news.
    awake: BTreeSet<GroupId>,
    /// Single members with news.
    woken: BTreeSet<PeerId>,
}

impl Groups {
    /// No groups.
    pub(crate) fn new(family: Family) -> Self {
        Groups {
            family,
            groups: Vec::new(),
            by_view: HashMap::new(),
            of: HashMap::new(),
            awake: BTreeSet::new(),
            woken: BTreeSet::new(),
        }
    }

    fn group(&self, peer: PeerId) -> Option<&Group> {
        self.groups.get(*self.of.get(&peer)?)?.as_ref()
    }

    fn group_mut(&mut self, peer: PeerId) -> Option<&mut Group> {
        self.groups.get_mut(*self.of.get(&peer)?)?.as_mut()
    }

    /// What a peer has been told of a destination.
    pub(crate) fn told(&self, peer: PeerId, id: DestinationId) -> Option<&Arc<Attributes>> {
        self.group(peer)?.told(peer, id)
    }

    /// How many destinations a peer has been told of.
    pub(crate) fn told_count(&self, peer: PeerId) -> usize {
        self.group(peer).map_or(0, |group| group.told_count(peer))
    }

    /// A peer with this view is up and has been told nothing. O(table) if it is the first with this view, else O(1).
    pub(crate) fn join(
        &mut self,
        peer: PeerId,
        address: IpAddr,
        view: View,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) {
        let id = self.find_or_make(view, table, exporter, interner);
        if let Some(Some(group)) = self.groups.get_mut(id) {
            group.join(peer, address);
        }
        self.of.insert(peer, id);
        self.woken.insert(peer);
    }

    /// The peer has another view now, or still the same. It hears of the differences only. O(table) if it changed.
    pub(crate) fn change_view(
        &mut self,
        peer: PeerId,
        view: View,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) {
        let Some(old) = self.of.get(&peer).copied() else { return };
        if self.by_view.get(&view) == Some(&old) {
            return;
        }
        let new = self.find_or_make(view, table, exporter, interner);
        let Some(from) = self.groups.get_mut(old).and_then(Option::take) else { return };
        if let Some(Some(group)) = self.groups.get_mut(new) {
            group.join_from(peer, &from, table);
        }
        if let Some(place) = self.groups.get_mut(old) {
            *place = Some(from);
        }
        self.leave_group(peer, old, table);
        self.of.insert(peer, new);
        self.woken.insert(peer);
    }

    /// The peer is down.
    pub(crate) fn leave(&mut self, peer: PeerId, table: &mut Table) {
        if let Some(id) = self.of.remove(&peer) {
            self.leave_group(peer, id, table);
        }
        self.woken.remove(&peer);
    }

    fn leave_group(&mut self, peer: PeerId, id: GroupId, table: &mut Table) {
        let Some(place) = self.groups.get_mut(id) else { return };
        let Some(group) = place else { return };
        group.leave(peer, table);
        if group.is_empty()
            && let Some(group) = place.take()
        {
            self.by_view.remove(&group.view);
            self.awake.remove(&id);
            group.dissolve(table);
        }
    }

    fn find_or_make(
        &mut self,
        view: View,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) -> GroupId {
        if let Some(id) = self.by_view.get(&view) {
            return *id;
        }
        let group = Group::new(view.clone(), self.family, table, exporter, interner);
        let id = match self.groups.iter_mut().position(|place| place.is_none()) {
            Some(id) => id,
            None => {
                self.groups.push(None);
                self.groups.len() - 1
            }
        };
        if let Some(place) = self.groups.get_mut(id) {
            *place = Some(group);
        }
        self.by_view.insert(view, id);
        id
    }

    /// A destination's selected path is another, or export has other rules for it. O(groups).
    pub(crate) fn offer(
        &mut self,
        id: DestinationId,
        was: Option<PeerId>,
        table: &mut Table,
        exporter: &Exporter<'_>,
        interner: &mut Interner,
    ) {
        for (group_id, group) in self.groups.iter_mut().enumerate() {
            let Some(group) = group else { continue };
            if group.offer(id, was, table, exporter, interner) {
                self.awake.insert(group_id);
            }
        }
    }

    /// Selection waits no longer: whatever else there is to tell, End-of-RIB is due. O(peers).
    pub(crate) fn wake_all(&mut self) {
        self.woken.extend(self.of.keys());
    }

    /// Export has other rules.
    pub(crate) fn forget_prepared(&mut self) {
        self.groups.iter_mut().flatten().for_each(Group::forget_prepared);
    }

    /// A peer asked for everything again. Says whether it was told everything before.
    pub(crate) fn repeat(&mut self, peer: PeerId) -> bool {
        let Some(group) = self.group_mut(peer) else { return false };
        let before = group.repeat(peer);
        self.woken.insert(peer);
        before
    }

    /// What to tell a peer next; see [`Group::pull`].
    pub(crate) fn pull(&mut self, peer: PeerId, most: usize, table: &mut Table) -> Vec<Update> {
        self.group_mut(peer).map_or_else(Vec::new, |group| group.pull(peer, most, table))
    }

    /// Adds the peers that have got news since the last call.
    pub(crate) fn take_woken(&mut self, woken: &mut BTreeSet<PeerId>) {
        woken.append(&mut self.woken);
        for id in std::mem::take(&mut self.awake) {
            if let Some(Some(group)) = self.groups.get(id) {
                woken.extend(group.behind());
            }
        }
    }
}

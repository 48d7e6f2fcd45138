//! The three tables of one family moving together: a path comes or goes, selection follows, peers and the caller have
//! news.

use std::collections::VecDeque;
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;

use super::rules::{Neighbour, Rules};
use crate::adj_out::groups::Groups;
use crate::attributes::Attributes;
use crate::family::Family;
use crate::interner::Interner;
use crate::policy::PrefixRange;
use crate::rib::adj_in::AdjIn;
use crate::rib::{Change, DestinationId, Refusal, Standing, Table};
use crate::source::PeerId;

/// One family.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) table: Table,
    pub(super) groups: Groups,
    adj_in: Vec<AdjIn>,
    /// Destinations whose selection the caller has not been told, oldest first. Each is pinned.
    changed: VecDeque<DestinationId>,
    is_changed: FixedBitSet,
}

impl Tables {
    pub(super) fn new(family: Family) -> Self {
        Tables {
            table: Table::new(family),
            groups: Groups::new(family),
            adj_in: Vec::new(),
            changed: VecDeque::new(),
            is_changed: FixedBitSet::new(),
        }
    }

    /// What a peer has told.
    pub(super) fn adj_in(&self, peer: PeerId) -> Option<&AdjIn> {
        self.adj_in.get(peer.index())
    }

    /// What a peer has told, to be changed.
    pub(super) fn adj_in_mut(&mut self, peer: PeerId) -> Option<&mut AdjIn> {
        if self.adj_in.len() <= peer.index() {
            self.adj_in.resize_with(peer.index() + 1, AdjIn::default);
        }
        self.adj_in.get_mut(peer.index())
    }

    /// A path is told. O(paths of the destination + groups).
    pub(super) fn learn(
        &mut self,
        prefix: IpNet,
        peer: PeerId,
        learned: &Arc<Attributes>,
        accepted: Result<Arc<Attributes>, Refusal>,
        rules: &Rules,
        interner: &mut Interner,
    ) {
        let id = self.table.find_or_insert(prefix);
        if let Some(adj_in) = self.adj_in_mut(peer) {
            adj_in.insert(id);
        }
        let change = self.table.learn(id, peer, learned, accepted, &rules.selector());
        self.settle(id, change, rules, interner);
    }

    /// A path is gone. O(paths of the destination + groups).
    pub(super) fn forget(&mut self, id: DestinationId, peer: PeerId, rules: &Rules, interner: &mut Interner) {
        if let Some(adj_in) = self.adj_in_mut(peer) {
            adj_in.remove(id);
        }
        let change = self.table.forget(id, peer, &rules.selector());
        self.settle(id, change, rules, interner);
    }

    /// Several paths of a peer are gone.
    pub(super) fn forget_all(
        &mut self,
        ids: Vec<DestinationId>,
        peer: PeerId,
        rules: &Rules,
        interner: &mut Interner,
    ) {
        for id in ids {
            self.forget(id, peer, rules, interner);
        }
    }

    /// Something that selection depends on has changed. O(paths of the destination + groups).
    pub(super) fn select(&mut self, id: DestinationId, rules: &Rules, interner: &mut Interner) {
        let change = self.table.select(id, &rules.selector());
        self.settle(id, change, rules, interner);
    }

    /// Something that import depends on has changed. Nothing follows if the answer is the same. O(paths of the
    /// destination + groups).
    pub(super) fn import_again(
        &mut self,
        id: DestinationId,
        peer: PeerId,
        neighbour: &Neighbour,
        rules: &Rules,
        interner: &mut Interner,
    ) {
        let Some(path) = self.table.paths(id).iter().find(|path| path.peer == peer) else { return };
        let Some(prefix) = self.table.prefix(id) else { return };
        let learned = path.learned.clone();
        let refusal = rules.refuses(&learned, neighbour);
        let accepted = rules.accept(&prefix, &learned, refusal, neighbour, interner);
        let same = match (&accepted, &path.accepted) {
            (Ok(new), Some(old)) => Arc::ptr_eq(new, old),
            (Err(new), None) => path.standing == Standing::Refused(*new),
            _ => false,
        };
        if !same {
            let change = self.table.learn(id, peer, &learned, accepted, &rules.selector());
            self.settle(id, change, rules, interner);
        }
    }

    /// Something that export depends on has changed. O(groups).
    pub(super) fn export_again(&mut self, id: DestinationId, rules: &Rules, interner: &mut Interner) {
        let best = self.table.best(id).map(|path| path.peer);
        self.groups.offer(id, best, &mut self.table, &rules.exporter(), interner);
    }

    /// Destinations in any of the ranges: a look-up for ranges of one prefix, a scan if there is another.
    pub(super) fn within(&self, ranges: &[PrefixRange]) -> Vec<DestinationId> {
        let only: Option<Vec<IpNet>> = ranges.iter().map(PrefixRange::only).collect();
        match only {
            Some(prefixes) => prefixes.iter().filter_map(|prefix| self.table.find(prefix)).collect(),
            None => {
                let within = |prefix: &IpNet| ranges.iter().any(|range| range.contains(prefix));
                let destinations = self.table.iter().filter(|(_, prefix, _)| within(prefix));
                destinations.map(|(id, ..)| id).collect()
            }
        }
    }

    /// Every destination with paths. O(table).
    pub(super) fn all(&self) -> Vec<DestinationId> {
        self.table.iter().map(|(id, ..)| id).collect()
    }

    /// Tells peers and the caller of a change, when their turn comes. The number of a destination without paths lasts
    /// until all of them know.
    fn settle(&mut self, id: DestinationId, change: Change, rules: &Rules, interner: &mut Interner) {
        self.table.pin(id);
        if let Some(was) = change.best {
            self.groups.offer(id, was, &mut self.table, &rules.exporter(), interner);
        }
        if change.is_some() {
            self.is_changed.grow(id as usize + 1);
            if !self.is_changed.put(id as usize) {
                self.table.pin(id);
                self.changed.push_back(id);
            }
        }
        self.table.unpin(id);
    }

    /// The next destination whose selection is another than the caller knows. To be released by
    /// [`Table::unpin`] when it has been looked at.
    pub(super) fn next_changed(&mut self) -> Option<DestinationId> {
        let id = self.changed.pop_front()?;
        self.is_changed.set(id as usize, false);
        if self.changed.is_empty() {
            self.changed.shrink_to(1024);
        }
        Some(id)
    }
}

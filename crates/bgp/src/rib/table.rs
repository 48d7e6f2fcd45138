//! Destinations and their paths, by number.
//!
//! A destination without paths stays while somebody has yet to hear of it ([`Table::pin`]): then its number is free
//! for another.

use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::paths::Paths;
use super::prefixes::{Prefixes, hash};
use super::{DestinationId, Path, Refusal, Selector, Standing};
use crate::attributes::Attributes;
use crate::chunked::Chunked;
use crate::family::Family;
use crate::source::PeerId;

/// The ways to a prefix.
#[derive(Debug, Default)]
struct Destination {
    /// Who still needs the number.
    pins: u32,
    /// The best one first, the others in no order.
    paths: Paths,
}

/// All destinations of a family.
#[derive(Debug)]
pub(crate) struct Table {
    prefixes: Prefixes,
    /// As many as prefixes.
    destinations: Chunked<Destination>,
    numbers: HashTable<DestinationId>,
    hasher: DefaultHashBuilder,
    free: Vec<DestinationId>,
    paths: usize,
    waiting: bool,
}

/// What became of a destination's selected paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The best path is another, has other attributes, is new or gone. Then: whose it was before.
    pub(crate) best: Option<Option<PeerId>>,
    /// The paths used beside it are others.
    pub(crate) multipath: bool,
}

impl Change {
    /// Whether anything changed.
    pub(crate) fn is_some(&self) -> bool {
        self.best.is_some() || self.multipath
    }
}

/// Selected paths at a moment, the best first and the others by peer. Attributes are interned, so that their address says
/// which they are; whoever compares two moments keeps them alive for both.
type Selection = SmallVec<[(PeerId, *const Attributes); 2]>;

impl Table {
    /// An empty table.
    pub(crate) fn new(family: Family) -> Self {
        Table {
            prefixes: Prefixes::new(family),
            destinations: Chunked::new(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            free: Vec::new(),
            paths: 0,
            waiting: false,
        }
    }

    /// The number of a prefix somebody told of.
    pub(crate) fn find(&self, prefix: &IpNet) -> Option<DestinationId> {
        let is_it = |id: &DestinationId| self.prefixes.is(*id, prefix);
        self.numbers.find(hash(&self.hasher, prefix), is_it).copied()
    }

    /// The number of a prefix, given if it has none. The caller adds a path at once.
    pub(crate) fn find_or_insert(&mut self, prefix: IpNet) -> DestinationId {
        let Table { prefixes, destinations, numbers, hasher, free, .. } = self;
        let is_it = |id: &DestinationId| prefixes.is(*id, &prefix);
        let rehash = |id: &DestinationId| prefixes.get(*id).map_or(0, |there| hash(hasher, &there));
        match numbers.entry(hash(hasher, &prefix), is_it, rehash) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = free.pop().unwrap_or(destinations.len() as DestinationId);
                entry.insert(id);
                prefixes.put(id, prefix);
                match destinations.get_mut(id as usize) {
                    Some(place) => *place = Destination::default(),
                    None => destinations.push(Destination::default()),
                }
                id
            }
        }
    }

    /// The prefix of a number.
    pub(crate) fn prefix(&self, id: DestinationId) -> Option<IpNet> {
        self.prefixes.get(id)
    }

    /// All paths to a destination, the best first.
    pub(crate) fn paths(&self, id: DestinationId) -> &[Path] {
        self.destinations.get(id as usize).map_or(&[], |destination| &destination.paths)
    }

    /// The selected path.
    pub(crate) fn best(&self, id: DestinationId) -> Option<&Path> {
        self.paths(id).first().filter(|path| path.standing == Standing::Best)
    }

    /// One above the highest number ever given.
    pub(crate) fn numbers_end(&self) -> DestinationId {
        self.destinations.len() as DestinationId
    }

    /// Every destination that has paths, in no particular order. O(table).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DestinationId, IpNet, &[Path])> {
        let numbered = (0..).zip(self.destinations.iter());
        numbered
            .filter(|(_, destination)| !destination.paths.is_empty())
            .filter_map(|(id, destination)| Some((id, self.prefix(id)?, &*destination.paths)))
    }

    /// How many paths there are.
    pub(crate) fn len(&self) -> usize {
        self.paths
    }

    /// How many destinations have paths or pins.
    pub(crate) fn destinations(&self) -> usize {
        self.numbers.len()
    }

    /// Whether selection waits (RFC 4724 section 4.1). Paths of our own do not: nothing that is yet to come can be
    /// better.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Lets selection wait, or ends that; the caller then selects for every destination.
    pub(crate) fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// A peer's path, in place of what it said before. O(paths of the destination).
    pub(crate) fn learn(
        &mut self,
        id: DestinationId,
        peer: PeerId,
        learned: &Arc<Attributes>,
        accepted: Result<Arc<Attributes>, Refusal>,
        selector: &Selector<'_>,
    ) -> Change {
        let (accepted, standing) = match accepted {
            Ok(accepted) => (Some(accepted), Standing::Waiting),
            Err(refusal) => (None, Standing::Refused(refusal)),
        };
        let path = Path { learned: learned.clone(), accepted, peer, standing };
        let Some(destination) = self.destinations.get_mut(id as usize) else { return Change::default() };
        let before = destination.selection();
        let replaced = match destination.paths.iter_mut().find(|path| path.peer == peer) {
            Some(place) => Some(std::mem::replace(place, path)),
            None => {
                destination.paths.push(path);
                self.paths += 1;
                None
            }
        };
        let change = self.reselect(id, before, selector);
        // Not before: its attributes were compared by address.
        drop(replaced);
        change
    }

    /// Takes a peer's path away. O(paths of the destination).
    pub(crate) fn forget(&mut self, id: DestinationId, peer: PeerId, selector: &Selector<'_>) -> Change {
        let Some(destination) = self.destinations.get_mut(id as usize) else { return Change::default() };
        let before = destination.selection();
        let Some(at) = destination.paths.iter().position(|path| path.peer == peer) else {
            return Change::default();
        };
        let removed = destination.paths.swap_remove(at);
        self.paths -= 1;
        let change = self.reselect(id, before, selector);
        // As above.
        drop(removed);
        change
    }

    /// Selects anew, after something that selection depends on has changed.
    pub(crate) fn select(&mut self, id: DestinationId, selector: &Selector<'_>) -> Change {
        let before = self.destinations.get(id as usize).map(Destination::selection).unwrap_or_default();
        self.reselect(id, before, selector)
    }

    fn reselect(&mut self, id: DestinationId, before: Selection, selector: &Selector<'_>) -> Change {
        let Some(destination) = self.destinations.get_mut(id as usize) else { return Change::default() };
        if self.waiting && destination.paths.iter().all(|path| path.peer != PeerId::LOCAL) {
            let accepted = destination.paths.iter_mut().filter(|path| path.accepted.is_some());
            accepted.for_each(|path| path.standing = Standing::Waiting);
        } else {
            selector.select(&mut destination.paths);
        }
        let after = destination.selection();
        let best = before.first() != after.first();
        let others = before.get(1..).unwrap_or_default() != after.get(1..).unwrap_or_default();
        Change { best: best.then(|| before.first().map(|(peer, _)| *peer)), multipath: others }
    }

    /// Keeps the destination's number from being given to another.
    pub(crate) fn pin(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id as usize) {
            destination.pins += 1;
        }
    }

    /// Ends one pin. The last one of a destination without paths ends its number, too.
    pub(crate) fn unpin(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id as usize) {
            destination.pins = destination.pins.saturating_sub(1);
        }
        self.free_if_unused(id);
    }

    /// Gives up the number of a destination without paths and pins.
    fn free_if_unused(&mut self, id: DestinationId) {
        let Some(destination) = self.destinations.get(id as usize) else { return };
        let Some(prefix) = self.prefixes.get(id).filter(|_| destination.paths.is_empty()) else { return };
        let is_it = |other: &DestinationId| *other == id;
        if destination.pins == 0
            && let Ok(entry) = self.numbers.find_entry(hash(&self.hasher, &prefix), is_it)
        {
            entry.remove();
            self.free.push(id);
        }
    }
}

impl Destination {
    fn selection(&self) -> Selection {
        let selected = |path: &Path| {
            let is = matches!(path.standing, Standing::Best | Standing::Multipath);
            Some((path.peer, Arc::as_ptr(path.accepted.as_ref().filter(|_| is)?)))
        };
        let mut selection = Selection::new();
        // Most often there is one, and it needs no order.
        if let [only] = &*self.paths {
            selection.extend(selected(only));
            return selection;
        }
        selection.extend(self.paths.iter().filter_map(selected));
        if let Some((_, others)) = selection.split_first_mut() {
            others.sort_unstable_by_key(|(peer, _)| *peer);
        }
        selection
    }
}

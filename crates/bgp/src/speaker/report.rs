//! What is in the tables, for those who want to see it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::event::{Counters, Event, PathView, SelectedPath};
use super::{Speaker, Tables};
use crate::attributes::Attributes;
use crate::family::Family;
use crate::rib::{DestinationId, Path, Standing};
use crate::source::PeerId;

impl Speaker {
    fn tables(&self, family: Family) -> &Tables {
        let [v4, v6] = &self.tables;
        match family {
            Family::Ipv4Unicast => v4,
            Family::Ipv6Unicast => v6,
        }
    }

    /// How many prefixes a peer has told, refused ones included.
    pub fn prefix_count(&self, peer: IpAddr, family: Family) -> usize {
        let id = self.numbers.get(&peer);
        id.and_then(|id| self.tables(family).adj_in(*id)).map_or(0, |adj_in| adj_in.len())
    }

    /// How many prefixes a peer has been told.
    pub fn told_count(&self, peer: IpAddr, family: Family) -> usize {
        self.up(peer).map_or(0, |id| self.tables(family).groups.told_count(id))
    }

    /// What has been counted of a peer.
    pub fn counters(&self, peer: IpAddr) -> Option<&Counters> {
        self.peer(*self.numbers.get(&peer)?).map(|peer| &peer.counters)
    }

    /// Paths in all tables.
    pub fn path_count(&self) -> usize {
        self.tables.iter().map(|tables| tables.table.len()).sum()
    }

    /// Destinations in all tables, those included that somebody has yet to hear the end of.
    pub fn destination_count(&self) -> usize {
        self.tables.iter().map(|tables| tables.table.destinations()).sum()
    }

    /// Different sets of attributes in use, and a few that are not any more.
    pub fn attributes_count(&self) -> usize {
        self.interner.len()
    }

    /// Every path of a family, destination by destination, the best first. O(paths) when read to the end.
    pub fn paths(&self, family: Family) -> impl Iterator<Item = PathView> {
        let tables = self.tables(family);
        tables.table.iter().flat_map(move |(id, prefix, paths)| {
            paths.iter().map(move |path| self.view_of(tables, id, &prefix, path))
        })
    }

    /// The paths to one destination, the best first.
    pub fn paths_to(&self, prefix: &IpNet) -> Vec<PathView> {
        let tables = self.tables(Family::of(prefix));
        let Some(id) = tables.table.find(&prefix.trunc()) else { return Vec::new() };
        let paths = tables.table.paths(id).iter();
        paths.map(|path| self.view_of(tables, id, prefix, path)).collect()
    }

    fn view_of(&self, tables: &Tables, id: DestinationId, prefix: &IpNet, path: &Path) -> PathView {
        PathView {
            prefix: *prefix,
            peer: self.address(path.peer),
            learned: path.learned.clone(),
            accepted: path.accepted.clone(),
            standing: path.standing,
            stale: tables.adj_in(path.peer).is_some_and(|adj_in| adj_in.is_stale(id)),
        }
    }

    /// What a peer has been told, or is about to be: Adj-RIB-Out. O(table).
    pub fn told(&self, peer: IpAddr, family: Family) -> Vec<(IpNet, Arc<Attributes>)> {
        let Some(id) = self.up(peer) else { return Vec::new() };
        let tables = self.tables(family);
        let told = tables.table.iter().filter_map(|(at, prefix, _)| {
            let attributes = tables.groups.told(id, at)?;
            Some((prefix, attributes.clone()))
        });
        told.collect()
    }

    /// The selected paths to a destination, as news.
    pub(super) fn selected(&self, family: Family, id: DestinationId) -> Option<Event> {
        let table = &self.tables(family).table;
        let prefix = table.prefix(id)?;
        let is_selected = |path: &&Path| matches!(path.standing, Standing::Best | Standing::Multipath);
        let shown = |path: &Path| {
            let attributes = path.accepted.clone()?;
            Some(SelectedPath { peer: self.address(path.peer), attributes })
        };
        let paths = match table.paths(id) {
            // Most often there is one, and it needs no order.
            [only] => Some(only).filter(is_selected).and_then(shown).into_iter().collect(),
            paths => {
                let mut selected: SmallVec<[&Path; 4]> = paths.iter().filter(is_selected).collect();
                selected.sort_by_key(|path| (path.standing, self.address(path.peer)));
                selected.into_iter().filter_map(shown).collect()
            }
        };
        Some(Event::Selected { prefix, paths })
    }

    fn address(&self, id: PeerId) -> Option<IpAddr> {
        self.peer(id).map(|peer| peer.address)
    }
}

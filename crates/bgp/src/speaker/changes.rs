//! Other rules, other peers: what has to be looked at again, and nothing more.
//!
//! | changed | looked at again |
//! |---|---|
//! | a range of a set of prefixes | destinations in the range |
//! | a range of a set of neighbours | paths of the peers in the range (import), what these peers are told (export) |
//! | a range of a set of next hops | paths with such a next hop |
//! | a policy | everything it decides about |
//! | who we are, how to choose | everything |

use std::net::IpAddr;
use std::time::Instant;

use super::peer::Peer;
use super::routing::Routing;
use super::{Down, Speaker, of};
use crate::config::{Config, Role};
use crate::family::Family;
use crate::policy::compiled::{Compiled, SetId};
use crate::policy::{PrefixRange, PrefixSet, SetName};
use crate::source::{PeerId, Source, SourceKind};

impl Speaker {
    /// Whom there is to talk to, and who we are. Peers that are not named any more are forgotten with their paths;
    /// others keep theirs. O(peers), and O(table) if we are somebody else.
    pub fn apply(&mut self, config: &Config, now: Instant) {
        self.stale_time = config.graceful_restart.map_or(self.stale_time, |restart| restart.stale_time);
        let rules = &mut self.rules;
        let before = (rules.identity.clone(), rules.router_id);
        rules.router_id = config.router_id;
        rules.identity.asn = config.asn.get();
        rules.identity.router_id = Some(config.router_id);
        rules.identity.cluster_id = Some(config.cluster_id.unwrap_or(config.router_id));
        let changed = before != (rules.identity.clone(), rules.router_id);
        let ourselves = Source {
            kind: SourceKind::Local,
            router_id: config.router_id,
            address: IpAddr::V4(config.router_id),
        };
        rules.sources.set(PeerId::LOCAL, ourselves);
        let gone: Vec<IpAddr> =
            self.numbers.keys().filter(|address| !config.peers.contains_key(address)).copied().collect();
        for address in gone {
            self.remove_peer(address, now);
        }
        for (address, peer) in &config.peers {
            match self.numbers.get(address).copied() {
                None => self.add_peer(Peer::new(*address, peer.role)),
                Some(id) => self.set_role(id, peer.role),
            }
        }
        if changed {
            self.import_all();
            self.select_all();
            self.export_all();
        }
        self.end_deferral(now);
    }

    fn add_peer(&mut self, peer: Peer) {
        let id = self.free.pop().unwrap_or(PeerId(self.peers.len() as u32));
        self.numbers.insert(peer.address, id);
        match self.peers.get_mut(id.index()) {
            Some(place) => *place = Some(peer),
            None => self.peers.push(Some(peer)),
        }
    }

    fn remove_peer(&mut self, address: IpAddr, now: Instant) {
        let Some(id) = self.numbers.get(&address).copied() else { return };
        self.end(id, Down::Lost, now);
        self.set_stale_until(id, None);
        for family in Family::ALL {
            self.sweep(id, family);
        }
        self.numbers.remove(&address);
        if let Some(place) = self.peers.get_mut(id.index()) {
            *place = None;
        }
        self.free.push(id);
    }

    /// A peer becomes a reflector client or ceases to be one: it is told more or less, and so are others of its paths,
    /// even of those that outlive its session.
    fn set_role(&mut self, id: PeerId, role: Role) {
        let Speaker { rules, peers, .. } = self;
        let Some(Some(peer)) = peers.get_mut(id.index()) else { return };
        if std::mem::replace(&mut peer.role, role) == role {
            return;
        }
        let Some(neighbour) = &mut peer.neighbour else { return };
        if neighbour.kind == SourceKind::External {
            return;
        }
        neighbour.kind = SourceKind::internal(role);
        if let Some(source) = rules.sources.get(id) {
            rules.sources.set(id, Source { kind: neighbour.kind, ..*source });
        }
        let session = peer.session.clone();
        self.export_from(id);
        let Some(session) = session else { return };
        let Speaker { rules, tables, interner, .. } = self;
        for family in session.families.iter() {
            let view = rules.view(&session, role, family);
            let tables = of(tables, family);
            tables.groups.change_view(id, view, &mut tables.table, &rules.exporter(), interner);
        }
    }

    /// Something about a peer has changed that shows in its paths when they are told.
    pub(super) fn export_from(&mut self, id: PeerId) {
        for tables in &mut self.tables {
            tables.groups.forget_prepared();
            for at in tables.adj_in(id).map(|adj_in| adj_in.held()).unwrap_or_default() {
                tables.export_again(at, &self.rules, &mut self.interner);
            }
        }
    }

    /// Replaces the rules. Sessions stay, peers hear the differences. O(sets), and O(table) if a policy or the way of
    /// choosing changed.
    pub fn set_routing(&mut self, routing: Routing) {
        let changed_sets = self.replace_sets(&routing);
        let old = std::mem::replace(&mut self.rules.routing, routing);
        let rules = &mut self.rules;
        let new = &rules.routing;
        let addresses = old.addresses != new.addresses;
        let policy_needed = old.external_needs_policy != new.external_needs_policy;
        let import = old.import != new.import || addresses || policy_needed;
        let export = old.export != new.export
            || addresses
            || policy_needed
            || old.default_local_pref != new.default_local_pref;
        let selection = old.multipath != new.multipath
            || old.compare_med_always != new.compare_med_always
            || old.default_local_pref != new.default_local_pref;
        rules.identity.addresses = new.addresses.iter().copied().collect();
        if old.import != new.import {
            rules.import = new.import.as_ref().map(|policy| Compiled::new(policy, &mut rules.sets));
        }
        if old.export != new.export {
            rules.export = new.export.as_ref().map(|policy| Compiled::new(policy, &mut rules.sets));
        }
        if import {
            self.import_all();
        }
        if selection {
            self.select_all();
        }
        if export {
            self.export_all();
        }
        for (set, ranges) in changed_sets {
            self.set_changed(set, &ranges, !import, !export);
        }
    }

    /// Puts the sets in force and says which differ, and in what.
    fn replace_sets(&mut self, routing: &Routing) -> Vec<(SetId, Vec<PrefixRange>)> {
        let sets = &mut self.rules.sets;
        for name in routing.sets.keys() {
            sets.id(name);
        }
        let nothing = PrefixSet::default();
        let names: Vec<(SetName, SetId)> = sets.names().map(|(name, id)| (name.clone(), id)).collect();
        let mut changed = Vec::new();
        for (name, id) in names {
            let new = routing.sets.get(&name).unwrap_or(&nothing);
            let Some(set) = sets.get_mut(id) else { continue };
            let differences = set.differences(new);
            if !differences.is_empty() {
                set.clone_from(new);
                changed.push((id, differences));
            }
        }
        changed
    }

    /// Changes one set, at the cost of what changes; the set then stands in the rules as if [`Speaker::set_routing`]
    /// had brought it.
    pub fn change_set(&mut self, name: &SetName, add: &[PrefixRange], remove: &[PrefixRange]) {
        let id = self.rules.sets.id(name);
        let Some(set) = self.rules.sets.get_mut(id) else { return };
        let mirror = self.rules.routing.sets.entry(name.clone()).or_default();
        let mut changed = Vec::new();
        for range in remove {
            mirror.remove(range);
            if set.remove(range) {
                changed.push(*range);
            }
        }
        for range in add {
            mirror.insert(*range);
            if set.insert(*range) {
                changed.push(*range);
            }
        }
        self.set_changed(id, &changed, true, true);
    }

    /// Looks again at what a set decides about. `import` and `export` say whether that is still to be done.
    fn set_changed(&mut self, set: SetId, ranges: &[PrefixRange], import: bool, export: bool) {
        let asks = |policy: &Option<Compiled>, question: fn(&Compiled, SetId) -> bool| {
            policy.as_ref().is_some_and(|policy| question(policy, set))
        };
        let rules = &self.rules;
        let (import, export) = (import.then_some(&rules.import), export.then_some(&rules.export));
        let asks =
            |question| [import, export].map(|policy| policy.is_some_and(|policy| asks(policy, question)));
        let [import_prefixes, export_prefixes] = asks(Compiled::names_prefixes);
        let [import_neighbours, export_neighbours] = asks(Compiled::names_neighbours);
        let [import_next_hops, export_next_hops] = asks(Compiled::names_next_hops);
        for family in Family::ALL {
            if import_prefixes || export_prefixes {
                for id in of(&mut self.tables, family).within(ranges) {
                    self.look_again(family, id, import_prefixes, export_prefixes);
                }
            }
            if import_next_hops || export_next_hops {
                for id in self.with_next_hop(family, |next_hop| {
                    ranges.iter().any(|range| range.contains(&next_hop.into()))
                }) {
                    self.look_again(family, id, import_next_hops, export_next_hops);
                }
            }
        }
        if import_neighbours || export_neighbours {
            for id in self.peers_within(ranges) {
                if import_neighbours {
                    self.import_from(id);
                }
                if export_neighbours {
                    self.view_again(id);
                }
            }
        }
    }

    /// What the routes to next hops cost: `None` that there is none. Next hops never spoken of cost nothing and are
    /// reachable. O(table).
    pub fn set_next_hop_metric(&mut self, next_hop: IpAddr, metric: Option<u32>) {
        if self.rules.metrics.insert(next_hop, metric) != Some(metric) {
            self.next_hop_changed(next_hop);
        }
    }

    /// The next hop is not spoken of any more. O(table).
    pub fn forget_next_hop_metric(&mut self, next_hop: IpAddr) {
        if self.rules.metrics.remove(&next_hop).is_some() {
            self.next_hop_changed(next_hop);
        }
    }

    fn next_hop_changed(&mut self, next_hop: IpAddr) {
        for family in Family::ALL {
            for id in self.with_next_hop(family, |other| other == next_hop) {
                of(&mut self.tables, family).select(id, &self.rules, &mut self.interner);
            }
        }
    }

    /// Destinations with a path to such a next hop, as received or after import. O(paths).
    fn with_next_hop(
        &mut self,
        family: Family,
        wanted: impl Fn(IpAddr) -> bool,
    ) -> Vec<crate::rib::DestinationId> {
        let all = of(&mut self.tables, family).table.iter();
        let found = all.filter(|(_, _, paths)| {
            let mut hops = paths.iter().flat_map(|path| {
                std::iter::once(&path.learned).chain(&path.accepted).map(|seen| seen.next_hop.global)
            });
            hops.any(&wanted)
        });
        found.map(|(id, ..)| id).collect()
    }

    /// Peers whose address is in one of the ranges: a look-up for each single address, a scan if there is a wider one.
    fn peers_within(&self, ranges: &[PrefixRange]) -> Vec<PeerId> {
        let single: Option<Vec<IpAddr>> = ranges
            .iter()
            .map(|range| range.only().filter(|only| only.prefix_len() == only.max_prefix_len()))
            .map(|only| only.map(|prefix| prefix.addr()))
            .collect();
        match single {
            Some(addresses) => {
                addresses.iter().filter_map(|address| self.numbers.get(address).copied()).collect()
            }
            None => {
                let within = |address: &IpAddr| ranges.iter().any(|range| range.contains(&(*address).into()));
                self.numbers.iter().filter(|(address, _)| within(address)).map(|(_, id)| *id).collect()
            }
        }
    }

    fn look_again(&mut self, family: Family, id: crate::rib::DestinationId, import: bool, export: bool) {
        let Speaker { rules, tables, interner, peers, .. } = self;
        let tables = of(tables, family);
        if import {
            let of_peers: Vec<PeerId> = tables.table.paths(id).iter().map(|path| path.peer).collect();
            for peer in of_peers {
                let known = peers.get(peer.index()).and_then(Option::as_ref);
                if let Some(neighbour) = known.and_then(|peer| peer.neighbour.as_ref()) {
                    tables.import_again(id, peer, neighbour, rules, interner);
                }
            }
        }
        if export {
            tables.export_again(id, rules, interner);
        }
    }

    /// A peer may be in other sets now: its paths are imported anew.
    fn import_from(&mut self, id: PeerId) {
        let Speaker { rules, tables, interner, peers, .. } = self;
        let Some(Some(peer)) = peers.get_mut(id.index()) else { return };
        let address = peer.address;
        let Some(neighbour) = &mut peer.neighbour else { return };
        neighbour.member_of =
            rules.import.as_ref().map(|policy| policy.membership(&rules.sets, address)).unwrap_or_default();
        for tables in tables {
            for at in tables.adj_in(id).map(|adj_in| adj_in.held()).unwrap_or_default() {
                tables.import_again(at, id, neighbour, rules, interner);
            }
        }
    }

    /// A peer may see other things now.
    fn view_again(&mut self, id: PeerId) {
        let Speaker { rules, tables, interner, peers, .. } = self;
        let Some(Some(peer)) = peers.get(id.index()) else { return };
        let Some(session) = &peer.session else { return };
        for family in session.families.iter() {
            let view = rules.view(session, peer.role, family);
            let tables = of(tables, family);
            tables.groups.change_view(id, view, &mut tables.table, &rules.exporter(), interner);
        }
    }

    fn all_peers(&self) -> Vec<PeerId> {
        self.numbers.values().copied().collect()
    }

    fn import_all(&mut self) {
        for id in self.all_peers() {
            self.import_from(id);
        }
    }

    fn select_all(&mut self) {
        for tables in &mut self.tables {
            for id in tables.all() {
                tables.select(id, &self.rules, &mut self.interner);
            }
        }
    }

    fn export_all(&mut self) {
        for tables in &mut self.tables {
            tables.groups.forget_prepared();
            for id in tables.all() {
                tables.export_again(id, &self.rules, &mut self.interner);
            }
        }
        for id in self.all_peers() {
            self.view_again(id);
        }
    }
}

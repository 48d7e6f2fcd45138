//! Sessions come and go: what of a peer's paths stays, and until when.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::{Down, Speaker, of};
use crate::families::Families;
use crate::family::Family;
use crate::negotiated::Negotiated;
use crate::source::{PeerId, Source};

impl Speaker {
    /// A session is established: the peer hears everything it may, then End-of-RIB. A peer that is not configured (any
    /// more) is ignored.
    pub fn peer_up(&mut self, address: IpAddr, session: Arc<Negotiated>, now: Instant) {
        let Some(id) = self.numbers.get(&address).copied() else { return };
        if self.up(address).is_some() {
            self.end(id, Down::Lost, now);
        }
        let Some(Some(peer)) = self.peers.get_mut(id.index()) else { return };
        let neighbour = self.rules.neighbour(&session, peer.role);
        let source = Source { kind: neighbour.kind, router_id: session.peer_router_id, address };
        let role = peer.role;
        peer.neighbour = Some(neighbour);
        peer.session = Some(session.clone());
        peer.was_up = true;
        peer.has_told = false;
        peer.end_of_rib = Families::NONE;
        peer.refreshing = Families::NONE;
        let changed = self.rules.sources.get(id) != Some(&source);
        self.rules.sources.set(id, source);
        self.keep_stale(id, &session, now);
        if changed {
            self.look_again_at(id);
        }
        self.note_identity(id, address, &session);
        for family in session.families.iter() {
            let view = self.rules.view(&session, role, family);
            let tables = of(&mut self.tables, family);
            tables.groups.join(
                id,
                address,
                view,
                &mut tables.table,
                &self.rules.exporter(),
                &mut self.interner,
            );
        }
        self.end_deferral(now);
    }

    /// Two routers must not say that they are the same one (RFC 6286 section 2.1).
    fn note_identity(&mut self, id: PeerId, address: IpAddr, session: &Negotiated) {
        let key = (session.peer_asn.get(), session.peer_router_id);
        let other = self.identities.get(&key).and_then(|other| self.peer(*other));
        match other.map(|peer| peer.address) {
            Some(other) => {
                if let Some(peer) = self.peer_mut(id) {
                    peer.counters.duplicate_router_id += 1;
                }
                self.events.push_back(Event::DuplicateRouterId {
                    router_id: session.peer_router_id,
                    peers: [other, address],
                });
            }
            None => {
                self.identities.insert(key, id);
            }
        }
    }

    /// What a peer that is back may leave as it was until it has confirmed it: what it kept forwarding meanwhile.
    fn keep_stale(&mut self, id: PeerId, session: &Negotiated, now: Instant) {
        let restart = session.graceful_restart.as_ref();
        let kept = restart.map_or(Families::NONE, |restart| restart.families.and(restart.forwarding_kept));
        let mut any = false;
        for family in Family::ALL {
            if kept.and(session.families).contains(family) {
                any |= self.stale_count(id, family) > 0;
            } else {
                self.sweep(id, family);
            }
        }
        let until = any.then(|| now + self.stale_time);
        self.set_stale_until(id, until);
    }

    /// A session has ended.
    pub fn peer_down(&mut self, address: IpAddr, down: Down, now: Instant) {
        if let Some(id) = self.up(address) {
            self.end(id, down, now);
        }
    }

    /// What was stale already goes with a second session that ends before it was confirmed (RFC 4724 section 4.2), or a
    /// peer that never confirms it could hold it for ever. A session in which the peer told nothing is none: what is stale
    /// stays as if it had not come back, and no longer than that.
    pub(super) fn end(&mut self, id: PeerId, down: Down, now: Instant) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(session) = peer.session.take() else { return };
        let back_by = peer.back_by.take().filter(|_| !peer.has_told);
        let key = (session.peer_asn.get(), session.peer_router_id);
        if self.identities.get(&key) == Some(&id) {
            self.identities.remove(&key);
        }
        let restart = session.graceful_restart.as_ref().filter(|_| down == Down::Graceful);
        let kept = restart.map_or(Families::NONE, |restart| restart.families.and(session.families));
        let before = self.path_count();
        for family in Family::ALL {
            let tables = of(&mut self.tables, family);
            tables.groups.leave(id, &mut tables.table);
            if back_by.is_none() {
                self.sweep(id, family);
            }
            if let Some(adj_in) = of(&mut self.tables, family).adj_in_mut(id) {
                adj_in.mark_stale();
            }
            if !kept.contains(family) {
                self.sweep(id, family);
            }
        }
        let any = Family::ALL.iter().any(|family| self.stale_count(id, *family) > 0);
        let until = restart.filter(|_| any).map(|restart| back_by.unwrap_or(now + restart.restart_time));
        self.set_stale_until(id, until);
        if let Some(peer) = self.peer_mut(id) {
            peer.back_by = until;
        }
        if before - self.path_count() > self.interner.len() / 4 {
            self.interner.sweep();
        }
        self.end_deferral(now);
    }

    /// The peer has told everything in this family: what it did not confirm is gone.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family, now: Instant) {
        if let Some(peer) = self.peer_mut(id) {
            peer.end_of_rib.insert(family);
        }
        self.sweep(id, family);
        if Family::ALL.iter().all(|family| self.stale_count(id, *family) == 0) {
            self.set_stale_until(id, None);
        }
        self.end_deferral(now);
    }

    /// The peer asked to be told everything in this family again (RFC 2918). Says whether marks go round the answer:
    /// where the peer has not been told everything once, the answer is that first telling from its beginning, which ends
    /// with End-of-RIB, and no mark may come before that (RFC 7313 section 4).
    pub fn refresh_requested(&mut self, peer: IpAddr, family: Family) -> bool {
        self.up(peer).is_some_and(|id| of(&mut self.tables, family).groups.repeat(id))
    }

    /// The peer begins to tell everything in this family again (RFC 7313 section 4). One that restarts gracefully has to
    /// have told everything once: before that its mark is none, or paths it kept would go before they were told again.
    pub fn refresh_begins(&mut self, peer: IpAddr, family: Family) {
        let Some(id) = self.up(peer) else { return };
        let Some(peer) = self.peer_mut(id) else { return };
        let restarts = peer.session.as_ref().is_some_and(|session| session.graceful_restart.is_some());
        if restarts && !peer.end_of_rib.contains(family) {
            return;
        }
        peer.refreshing.insert(family);
        if let Some(adj_in) = of(&mut self.tables, family).adj_in_mut(id) {
            adj_in.mark_stale();
        }
    }

    /// The peer has told everything in this family again: what it did not repeat is gone. Without a beginning it is no end.
    pub fn refresh_ends(&mut self, peer: IpAddr, family: Family) {
        let Some(id) = self.up(peer) else { return };
        if self.peer_mut(id).is_some_and(|peer| peer.refreshing.remove(family)) {
            self.sweep(id, family);
        }
    }

    /// When to call [`Speaker::tick`], if nothing happens before.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let stale = self.timers.first().map(|(at, _)| *at);
        let deferral = self.deferral.as_ref().map(|deferral| deferral.deadline(now));
        stale.into_iter().chain(deferral).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.set_stale_until(id, None);
            for family in Family::ALL {
                self.sweep(id, family);
            }
        }
        self.end_deferral(now);
    }

    /// Removes what is stale.
    pub(super) fn sweep(&mut self, id: PeerId, family: Family) {
        let tables = of(&mut self.tables, family);
        let stale = tables.adj_in(id).map(|adj_in| adj_in.stale()).unwrap_or_default();
        tables.forget_all(stale, id, &self.rules, &mut self.interner);
    }

    fn stale_count(&mut self, id: PeerId, family: Family) -> usize {
        of(&mut self.tables, family).adj_in(id).map_or(0, |adj_in| adj_in.stale_count())
    }

    pub(super) fn set_stale_until(&mut self, id: PeerId, until: Option<Instant>) {
        let Some(Some(peer)) = self.peers.get_mut(id.index()) else { return };
        let was = std::mem::replace(&mut peer.stale_until, until);
        if let Some(at) = was {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = until {
            self.timers.insert((at, id));
        }
    }

    /// The peer's paths compete, and are reflected, under another name.
    fn look_again_at(&mut self, id: PeerId) {
        for family in Family::ALL {
            let tables = of(&mut self.tables, family);
            for at in tables.adj_in(id).map(|adj_in| adj_in.held()).unwrap_or_default() {
                tables.select(at, &self.rules, &mut self.interner);
            }
        }
        self.export_from(id);
    }

    /// Begins selection in families that wait for nobody any more.
    pub(super) fn end_deferral(&mut self, now: Instant) {
        let Some(mut deferral) = self.deferral else { return };
        for family in Family::ALL {
            let waits = deferral.waits(family, self.peers.iter().flatten(), now);
            if waits || !deferral.families.remove(family) {
                continue;
            }
            let tables = of(&mut self.tables, family);
            tables.table.set_waiting(false);
            for id in tables.all() {
                tables.select(id, &self.rules, &mut self.interner);
            }
            tables.groups.wake_all();
            self.began.insert(family);
        }
        self.deferral = (!deferral.families.is_empty()).then_some(deferral);
    }
}

//! What peers and the caller are told.

use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;

use super::core::{Core, PENDING, Socket};
use super::event::Event;
use crate::peer::Peer;
use crate::speaker;
use crate::update::Update;
use crate::wire::{Codec, RefreshKind, encode_update};

/// Prefixes pulled from the table at a time.
const PULL: usize = 1024;

impl Core {
    /// Tells peers their news, and gathers ours.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        self.eager.extend(self.speaker.wanting());
        for peer in std::mem::take(&mut self.eager) {
            self.tell(peer, now);
        }
        loop {
            self.gather();
            // Either there were no more, or there are as many as go at once, or the caller is behind.
            if self.pending.is_empty() || !self.hand_over() {
                break;
            }
        }
    }

    /// Takes the speaker's news, as far as there is room.
    fn gather(&mut self) {
        while self.pending.len() < PENDING
            && let Some(event) = self.speaker.next_event()
        {
            if let speaker::Event::SelectionBegan(family) = event
                && self.deferring.remove(family)
                && self.deferring.is_empty()
            {
                // Our restart is over: later sessions are ordinary ones.
                self.peers.values_mut().for_each(|peer| peer.set_restarting(false));
            }
            self.pending.push(Event::Routes(event));
        }
    }

    /// Hands the caller what has been gathered, if it has room; says whether it had. Waiting for room is the loop's part.
    fn hand_over(&mut self) -> bool {
        match self.news.try_reserve() {
            Ok(permit) => {
                // A batch that is full is seldom the last one.
                let room = if self.pending.len() < PENDING { 0 } else { PENDING };
                permit.send(std::mem::replace(&mut self.pending, Vec::with_capacity(room)));
            }
            Err(TrySendError::Full(())) => return false,
            // Nobody reads: the news has nowhere to go.
            Err(TrySendError::Closed(())) => self.pending.clear(),
        }
        true
    }

    /// Tells a peer its news, as far as its socket has room. The rest follows when the socket says so.
    pub(super) fn tell(&mut self, address: IpAddr, now: Instant) {
        let Some((id, codec)) = self.peers.get(&address).and_then(Peer::codec) else { return };
        let mut spoke = false;
        loop {
            let Some(Socket::Open(connection)) = self.sockets.get(&(address, id)) else { return };
            if !connection.has_room() {
                break;
            }
            let updates = self.speaker.pull(address, PULL);
            if updates.is_empty() {
                self.refreshed(address);
                break;
            }
            let mut octets = Vec::with_capacity(updates.iter().map(room).sum());
            for update in &updates {
                write(update, &codec, address, &mut octets, &mut self.pending);
            }
            spoke = true;
            connection.send(octets);
        }
        if spoke {
            self.with_peer(address, |peer, _| peer.spoke(now));
        }
    }

    /// A peer has been told everything: if it had asked for it, that ends here.
    pub(super) fn refreshed(&mut self, address: IpAddr) {
        for family in self.refreshing.remove(&address).unwrap_or_default().iter() {
            self.with_peer(address, |peer, out| peer.mark_refresh(family, RefreshKind::End, out));
        }
    }
}

/// About as many octets as an update takes on the wire.
fn room(update: &Update) -> usize {
    /// Header and attributes.
    const HEAD: usize = 96;
    match update {
        Update::Reach { prefixes, .. } | Update::Unreach { prefixes, .. } => HEAD + prefixes.len() * 4,
        Update::EndOfRib(_) => HEAD,
    }
}

/// Writes an update for a peer. What cannot be told is taken back instead, so that the peer does not go by older news.
fn write(update: &Update, codec: &Codec, peer: IpAddr, octets: &mut Vec<u8>, pending: &mut Vec<Event>) {
    let Err(error) = encode_update(update, codec, octets) else { return };
    if let Update::Reach { family, prefixes, .. } = update {
        pending.push(Event::NotTold { peer, error, prefixes: prefixes.len() });
        let instead = Update::Unreach { family: *family, prefixes: prefixes.clone() };
        // A withdrawal has no attributes that could be too long.
        let _ = encode_update(&instead, codec, octets);
    }
}

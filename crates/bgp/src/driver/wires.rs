//! From sockets to peers, and from what peers ask for to sockets and tables.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::net::TcpStream;

use super::connection::Connection;
use super::core::{Core, Socket};
use super::event::Event;
use super::inbound::Inbound;
use crate::peer::{Action, ConnectionId, Peer};
use crate::session::Ends;
use crate::speaker::Down;
use crate::transport;
use crate::update::Update;
use crate::wire::RefreshKind;

impl Core {
    pub(super) fn arrived(&mut self, inbound: Inbound) {
        let now = Instant::now();
        match inbound {
            Inbound::Accepted(stream, remote) => self.accepted(stream, remote, now),
            Inbound::Dialled { peer, id, outcome } => {
                // Given up meanwhile.
                if self.sockets.remove(&(peer, id)).is_none() {
                    return;
                }
                let stream = outcome.map_err(|error| error.to_string());
                match stream.and_then(|stream| Ok((ends(&stream)?, stream))) {
                    Ok((ends, stream)) => {
                        self.unreachable.remove(&peer);
                        self.open(peer, id, stream);
                        self.with_peer(peer, |peer, out| peer.connected(id, ends, now, out));
                    }
                    Err(error) => {
                        if self.unreachable.insert(peer) {
                            self.pending.push(Event::Trouble(error));
                        }
                        self.with_peer(peer, |peer, out| peer.failed(id, now, out));
                    }
                }
            }
            Inbound::Octets { peer, id, octets } => {
                self.with_peer(peer, |peer, out| peer.received(id, &octets, now, out));
            }
            Inbound::Progress { peer, id, drained } => {
                self.with_peer(peer, |peer, out| peer.progress(id, drained, now, out));
                self.tell(peer, now);
            }
            Inbound::Closed { peer, id } => self.with_peer(peer, |peer, out| peer.failed(id, now, out)),
        }
    }

    /// Somebody has dialled us. Strangers are hung up on.
    pub(super) fn accepted(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) {
        let address = remote.ip().to_canonical();
        let Some(config) = self.config.peers.get(&address) else { return };
        if let Err(error) = transport::prepare_accepted(&stream, config, self.config.asn) {
            self.pending.push(Event::Trouble(error.to_string()));
            return;
        }
        let Ok(ends) = ends(&stream) else { return };
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let mut actions = Vec::new();
        let accepted = peer.accept(ends, now, &mut actions);
        let deadline = peer.next_deadline();
        self.reschedule(address, deadline);
        match accepted {
            Ok(id) => {
                self.unreachable.remove(&address);
                self.open(address, id, stream);
                self.perform(address, actions, now);
            }
            Err(why) => {
                self.perform(address, actions, now);
                let mut octets = Vec::new();
                why.encode(&mut octets);
                // A few octets into an empty buffer: they fit, or the peer learns it from the end of the connection.
                let _ = stream.try_write(&octets);
            }
        }
    }

    pub(super) fn open(&mut self, peer: IpAddr, id: ConnectionId, stream: TcpStream) {
        let connection = Connection::new(peer, id, stream, self.inbound.clone());
        self.sockets.insert((peer, id), Socket::Open(connection));
    }

    /// Lets a peer work and does what it asks for.
    pub(super) fn with_peer(&mut self, address: IpAddr, work: impl FnOnce(&mut Peer, &mut Vec<Action>)) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let mut actions = Vec::new();
        work(peer, &mut actions);
        let deadline = peer.next_deadline();
        self.reschedule(address, deadline);
        self.perform(address, actions, Instant::now());
    }

    pub(super) fn reschedule(&mut self, address: IpAddr, deadline: Option<Instant>) {
        let before = self.deadline_of.get(&address).copied();
        if before == deadline {
            return;
        }
        if let Some(before) = before {
            self.deadlines.remove(&(before, address));
        }
        match deadline {
            Some(at) => {
                self.deadline_of.insert(address, at);
                self.deadlines.insert((at, address));
            }
            None => drop(self.deadline_of.remove(&address)),
        }
    }

    pub(super) fn perform(&mut self, address: IpAddr, actions: Vec<Action>, now: Instant) {
        for action in actions {
            match action {
                Action::Dial(id) => self.dial(address, id),
                Action::Send(id, octets) => {
                    if let Some(Socket::Open(connection)) = self.sockets.get(&(address, id)) {
                        connection.send(octets);
                    }
                }
                Action::Hangup(id) => match self.sockets.remove(&(address, id)) {
                    Some(Socket::Open(connection)) => connection.close(),
                    Some(Socket::Dialling(attempt)) => attempt.abort(),
                    None => {}
                },
                Action::Up(_, negotiated) => {
                    self.speaker.peer_up(address, negotiated.clone(), now);
                    self.eager.insert(address);
                    self.pending.push(Event::Up { peer: address, negotiated });
                }
                Action::Update(update) => self.learn(address, update, now),
                Action::RefreshRequested(family) => {
                    let marked = self.speaker.refresh_requested(address, family);
                    // One mark, however often a peer asks before it has read the answer: nothing piles up for it.
                    if marked && self.refreshing.entry(address).or_default().insert(family) {
                        self.with_peer(address, |peer, out| {
                            peer.mark_refresh(family, RefreshKind::Begin, out);
                        });
                    }
                    self.eager.insert(address);
                }
                Action::RefreshBegins(family) => self.speaker.refresh_begins(address, family),
                Action::RefreshEnds(family) => self.speaker.refresh_ends(address, family),
                Action::Down { graceful, end } => {
                    let down = if graceful { Down::Graceful } else { Down::Lost };
                    self.speaker.peer_down(address, down, now);
                    self.refreshing.remove(&address);
                    self.pending.push(Event::Down { peer: address, graceful, end });
                }
                Action::Notice(notice) => self.pending.push(Event::Notice { peer: address, notice }),
            }
        }
    }

    pub(super) fn learn(&mut self, address: IpAddr, update: Update, now: Instant) {
        let family = match &update {
            Update::Reach { family, .. } => Some(*family),
            Update::Unreach { family, .. } => Some(*family),
            Update::EndOfRib(_) => None,
        };
        self.speaker.update(address, update, now);
        let bounded = |peer: &&mut Peer| peer.config().max_prefixes.is_some();
        if let (Some(family), Some(peer)) = (family, self.peers.get_mut(&address).filter(bounded)) {
            let mut actions = Vec::new();
            peer.counted(family, self.speaker.prefix_count(address, family), now, &mut actions);
            // Seldom: the bound is reached, and deadlines are others.
            if !actions.is_empty() {
                self.with_peer(address, |_, out| out.append(&mut actions));
            }
        }
    }

    pub(super) fn dial(&mut self, address: IpAddr, id: ConnectionId) {
        let Some(peer) = self.peers.get(&address).map(|peer| peer.config().clone()) else { return };
        let (inbound, ours) = (self.inbound.clone(), self.config.asn);
        let task = tokio::spawn(async move {
            let outcome = transport::dial(address, &peer, ours).await;
            // The driver may have ended.
            let _ = inbound.send(Inbound::Dialled { peer: address, id, outcome }).await;
        });
        self.sockets.insert((address, id), Socket::Dialling(task.abort_handle()));
    }
}

fn ends(stream: &TcpStream) -> Result<Ends, String> {
    let ends = || {
        let local = stream.local_addr()?.ip().to_canonical();
        Ok(Ends { local, remote: stream.peer_addr()?.ip().to_canonical() })
    };
    ends().map_err(|error: std::io::Error| error.to_string())
}

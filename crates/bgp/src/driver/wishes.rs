//! What callers ask for, done.

use std::net::IpAddr;
use std::time::Instant;

use super::PeerReport;
use super::core::Core;
use super::event::Event;
use super::mailbox::{Request, Wishes};
use crate::config::Config;
use crate::family::Family;
use crate::peer::{Identity, Peer};
use crate::speaker::Routing;
use crate::wire::Notification;
use crate::wire::notification::Cease;

impl Core {
    /// Does what was asked for. Gives back the text to end with, if that was.
    pub(super) fn grant(&mut self, wishes: Wishes) -> Option<String> {
        let now = Instant::now();
        if let Some(configuration) = wishes.configuration {
            let (config, routing) = *configuration;
            self.configure(config, routing, now);
        }
        for (prefix, path) in wishes.paths {
            match path {
                Some(attributes) => self.speaker.announce(prefix, attributes),
                None => self.speaker.withdraw(prefix),
            }
        }
        for request in wishes.requests {
            self.request(request, now);
        }
        wishes.stop
    }

    pub(super) fn request(&mut self, request: Request, now: Instant) {
        match request {
            Request::ChangeSet { name, add, remove } => self.speaker.change_set(&name, &add, &remove),
            Request::NextHopMetric(next_hop, metric) => self.speaker.set_next_hop_metric(next_hop, metric),
            Request::StopPeer(peer, text) => {
                let why = Notification::with_text(Cease::AdministrativeShutdown, &text);
                self.with_peer(peer, |peer, out| peer.stop(&why, now, out));
            }
            Request::StartPeer(peer) => self.with_peer(peer, |peer, out| peer.start(now, out)),
            Request::ResetPeer(peer, text) => {
                let why = Notification::with_text(Cease::AdministrativeReset, &text);
                self.with_peer(peer, |peer, out| peer.reset(&why, now, out));
            }
            Request::RefreshPeer(peer) => self.with_peer(peer, |peer, out| {
                for family in Family::ALL {
                    peer.request_refresh(family, out);
                }
            }),
            // Who asked may not have waited for the answer.
            Request::Peers(answer) => drop(answer.send(self.report())),
            Request::Paths(answer) => {
                let paths = Family::ALL.into_iter().flat_map(|family| self.speaker.paths(family));
                drop(answer.send(paths.collect()));
            }
        }
    }

    pub(super) fn report(&self) -> Vec<PeerReport> {
        let mut reports: Vec<PeerReport> = self
            .peers
            .iter()
            .map(|(address, peer)| PeerReport {
                peer: *address,
                remote_asn: peer.config().remote_asn,
                status: peer.status(),
                received: Family::ALL.map(|f| (f, self.speaker.prefix_count(*address, f))).to_vec(),
                told: Family::ALL.map(|f| (f, self.speaker.told_count(*address, f))).to_vec(),
                counters: self.speaker.counters(*address).copied().unwrap_or_default(),
            })
            .collect();
        reports.sort_by_key(|report| report.peer);
        reports
    }

    /// Takes a configuration over, without the peers that cannot be used. O(peers), and sessions only where they change.
    pub(super) fn configure(&mut self, config: Config, routing: Routing, now: Instant) {
        let objections = config.objections();
        self.pending.extend(objections.iter().cloned().map(Event::Objection));
        if objections.iter().any(|objection| objection.peer.is_none()) {
            return;
        }
        let config = config.usable();
        self.speaker.set_routing(routing);
        let mut events = Vec::new();
        self.listeners.apply(&config, now, &mut events);
        self.pending.extend(events);
        let gone: Vec<IpAddr> =
            self.peers.keys().filter(|address| !config.peers.contains_key(address)).copied().collect();
        for address in gone {
            self.remove(address, now);
        }
        self.speaker.apply(&config, now);
        let mut identity = Identity::from(&config);
        if let Some(restart) = &mut identity.graceful_restart {
            restart.restarting &= !self.deferring.is_empty();
        }
        for (address, peer) in &config.peers {
            let identity = identity.clone();
            if self.peers.contains_key(address) {
                self.with_peer(*address, |known, out| known.reconfigure(peer.clone(), identity, now, out));
            } else {
                let seed = self.random.u64(..);
                self.peers.insert(*address, Peer::new(*address, peer.clone(), identity, seed));
                self.with_peer(*address, |peer, out| peer.start(now, out));
            }
        }
        self.config = config;
    }

    pub(super) fn remove(&mut self, address: IpAddr, now: Instant) {
        let why = Notification::new(Cease::PeerDeconfigured);
        self.with_peer(address, |peer, out| peer.stop(&why, now, out));
        self.peers.remove(&address);
        self.reschedule(address, None);
        self.eager.remove(&address);
        self.refreshing.remove(&address);
        self.unreachable.remove(&address);
    }
}

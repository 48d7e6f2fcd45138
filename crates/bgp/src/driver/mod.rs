//! The task that drives a speaker: the one place where sockets, timers, peers and tables meet.
//!
//! One task owns every [`Peer`] and the [`Speaker`]; connections, listeners and callers send it messages over bounded queues.
//! So nothing is locked. What a peer is told is pulled from the table when its socket has room ([`connection`]); what
//! the caller is told is pulled when it has read what there was. Neither waits for the other.

mod connection;
mod core;
mod event;
mod events;
mod inbound;
mod listeners;
mod mailbox;
mod news;
mod wires;
mod wishes;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::runtime;
use tokio::sync::oneshot;

pub use event::{Event, PeerReport};
pub use events::Events;

use crate::attributes::Attributes;
use crate::config::Config;
use crate::policy::{PrefixRange, SetName};
use crate::speaker::{PathView, Routing};
use mailbox::{Mailbox, Request};

/// Starts a driver. It begins with the first [`Handle::configure`] and ends with [`Handle::stop`], or when the last handle
/// is dropped; after that the news end. `seed` makes its pauses differ from other speakers'.
pub fn start(runtime: &runtime::Handle, seed: u64) -> (Handle, Events) {
    let mailbox = Arc::new(Mailbox::default());
    let (news, events) = events::channel();
    runtime.spawn(core::drive(Arc::clone(&mailbox), seed, news));
    (Handle { owner: Arc::new(Owner(mailbox)) }, events)
}

/// Ends the driver when the last handle goes.
#[derive(Debug)]
struct Owner(Arc<Mailbox>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.put(|wishes| wishes.stop = wishes.stop.take().or(Some(String::new())));
    }
}

/// Asks a speaker at work. Never waits, and may be used from any thread; what is asked of a driver that has ended is
/// forgotten, and answers to questions never come.
#[derive(Clone, Debug)]
pub struct Handle {
    owner: Arc<Owner>,
}

impl Handle {
    fn request(&self, request: Request) {
        self.owner.0.put(|wishes| wishes.requests.push_back(request));
    }

    /// The whole wish, in place of the one before: peers are added, changed and removed, the others notice nothing. What
    /// cannot be used is said as [`Event::Objection`]; if that is a field of the speaker itself, the old wish stays.
    pub fn configure(&self, config: Config, routing: Routing) {
        self.owner.0.put(|wishes| {
            // The new sets know.
            wishes.requests.retain(|request| !matches!(request, Request::ChangeSet { .. }));
            wishes.configuration = Some(Box::new((config, routing)));
        });
    }

    /// Adds a path of our own, or replaces it. An unspecified next hop stands for our end of each session.
    pub fn announce(&self, prefix: IpNet, attributes: Attributes) {
        self.owner.0.put(|wishes| drop(wishes.paths.insert(prefix, Some(attributes))));
    }

    /// Takes a path of our own away.
    pub fn withdraw(&self, prefix: IpNet) {
        self.owner.0.put(|wishes| drop(wishes.paths.insert(prefix, None)));
    }

    /// Changes a set of prefixes that policies name, at the cost of what changes.
    pub fn change_set(&self, name: SetName, add: Vec<PrefixRange>, remove: Vec<PrefixRange>) {
        self.request(Request::ChangeSet { name, add, remove });
    }

    /// Says what it costs to reach a next hop; `None` that it cannot be reached.
    pub fn set_next_hop_metric(&self, next_hop: IpAddr, metric: Option<u32>) {
        self.request(Request::NextHopMetric(next_hop, metric));
    }

    /// Ends the session with a peer and keeps away from it; the text is for its operator (RFC 9003).
    pub fn stop_peer(&self, peer: IpAddr, text: impl Into<String>) {
        self.request(Request::StopPeer(peer, text.into()));
    }

    /// Begins anew with a peer that was stopped.
    pub fn start_peer(&self, peer: IpAddr) {
        self.request(Request::StartPeer(peer));
    }

    /// Ends the session with a peer and begins anew.
    pub fn reset_peer(&self, peer: IpAddr, text: impl Into<String>) {
        self.request(Request::ResetPeer(peer, text.into()));
    }

    /// Asks a peer for all its paths again.
    pub fn refresh_peer(&self, peer: IpAddr) {
        self.request(Request::RefreshPeer(peer));
    }

    /// All peers, by address. O(peers).
    pub fn peers(&self) -> oneshot::Receiver<Vec<PeerReport>> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Peers(answer));
        answered
    }

    /// All paths. O(paths).
    pub fn paths(&self) -> oneshot::Receiver<Vec<PathView>> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Paths(answer));
        answered
    }

    /// Ends the speaker. With graceful restart on, peers are left without a word, so that they keep our paths; otherwise
    /// they are told, with the text for their operators.
    pub fn stop(&self, text: impl Into<String>) {
        self.owner.0.put(|wishes| wishes.stop = Some(text.into()));
    }
}

//! The BGP speaker's edge: wishes of the routes controller to it, its news to the core.
//!
//! Decided here: what of the speaker's news is a log line, and what an input of plans. The speaker starts with the first
//! wish and runs on the process's runtime.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bgp::driver::{self, Event, Handle, PeerReport};
use bgp::speaker;
use bgp::{Attributes, NextHop};
use tokio::runtime;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::input::{Input, News};
use crate::network_routes::speaker::Ask;
use crate::secret::Secret;

/// Paths told to the core at once, at the most.
const BATCH: usize = 1024;
/// How often the file of passwords is looked at: mounted secrets change by a new link, which nothing announces.
const PASSWORDS_INTERVAL: Duration = Duration::from_secs(5);

/// A speaker that does as the routes controller wishes.
#[derive(Debug)]
pub(super) struct SpeakerEdge {
    handle: Handle,
    /// Ends when the speaker has.
    heard: JoinHandle<()>,
    runtime: runtime::Handle,
}

impl SpeakerEdge {
    /// Starts it idle.
    pub(super) fn start(
        runtime: &runtime::Handle,
        passwords: Option<PathBuf>,
        core: &Sender<Input>,
    ) -> SpeakerEdge {
        // Pauses that differ from those of other nodes, which start with us after a power cut.
        let seed = RandomState::new().hash_one(std::process::id());
        let (handle, events) = driver::start(runtime, seed);
        let heard = runtime.spawn(hear(events, core.clone()));
        if let Some(path) = passwords {
            runtime.spawn(watch_passwords(path, core.clone()));
        }
        SpeakerEdge { handle, heard, runtime: runtime.clone() }
    }

    /// Ends the sessions; with graceful restart on, peers are left without a word and keep our paths.
    pub(super) fn stop(self, done: oneshot::Sender<()>) {
        self.handle.stop("kube-router is stopping");
        self.runtime.spawn(async move {
            // However it ended, it has.
            let _ = self.heard.await;
            let _ = done.send(());
        });
    }

    /// Asks for all peers; see [`Handle::peers`].
    pub(super) fn peers(&self) -> oneshot::Receiver<Vec<PeerReport>> {
        self.handle.peers()
    }

    pub(super) fn ask(&self, ask: Ask) {
        match ask {
            Ask::Configure(wish) => self.handle.configure(wish.0, wish.1),
            Ask::Paths(changes) => {
                for (prefix, next_hop) in changes {
                    match next_hop {
                        Some(next_hop) => {
                            self.handle.announce(prefix, Attributes::local(NextHop::from(next_hop)))
                        }
                        None => self.handle.withdraw(prefix),
                    }
                }
            }
        }
    }
}

async fn hear(mut events: Receiver<Event>, core: Sender<Input>) {
    let mut burst = Vec::with_capacity(BATCH);
    while events.recv_many(&mut burst, BATCH).await > 0 {
        let mut selected = Vec::new();
        for event in burst.drain(..) {
            match event {
                Event::Routes(speaker::Event::Selected { prefix, paths }) => {
                    // A path of our own is nothing to route by.
                    let best = paths.first().filter(|path| path.peer.is_some());
                    selected.push((prefix, best.map(|path| path.attributes.next_hop.global)));
                }
                Event::Routes(speaker::Event::SelectionBegan(family)) => {
                    send(&core, News::Selected(std::mem::take(&mut selected))).await;
                    send(&core, News::SelectionBegan(family)).await;
                }
                other => {
                    say(&other);
                    if let Event::Up { peer, .. } | Event::Down { peer, .. } = other {
                        send(&core, News::Peer(peer, matches!(other, Event::Up { .. }))).await;
                    }
                }
            }
        }
        send(&core, News::Selected(selected)).await;
    }
}

async fn send(core: &Sender<Input>, news: News) {
    if !matches!(&news, News::Selected(paths) if paths.is_empty()) {
        // The core is gone only when the process ends.
        let _ = core.send(Input::News(news)).await;
    }
}

fn say(event: &Event) {
    match event {
        Event::Up { peer, negotiated } => {
            tracing::info!(%peer, asn = %negotiated.peer_asn, router_id = %negotiated.peer_router_id, "BGP peer is up");
        }
        Event::Down { peer, graceful, end } => {
            let kept = if *graceful { "; its paths are kept for a while" } else { "" };
            tracing::warn!(%peer, "BGP peer is down: {end:?}{kept}");
        }
        Event::Objection(objection) => tracing::warn!("BGP: {objection}"),
        Event::Trouble(text) => tracing::warn!("BGP: {text}"),
        Event::Notice { peer, notice } => tracing::debug!(%peer, "BGP: {notice:?}"),
        Event::NotTold { peer, error, prefixes } => {
            tracing::warn!(%peer, prefixes, "BGP: paths could not be told: {error}");
        }
        Event::Listening(address) => tracing::info!(%address, "BGP listens"),
        Event::Routes(speaker::Event::DuplicateRouterId { router_id, peers }) => {
            let [one, other] = peers.map(|peer: IpAddr| peer.to_string());
            tracing::warn!(%router_id, "BGP peers {one} and {other} have the same router id: give each its own");
        }
        Event::Routes(_) => {}
    }
}

/// Tells the core what the file says, at the start and whenever it says something else. A file that cannot be read is
/// said once; what it said before stays in force.
async fn watch_passwords(path: PathBuf, core: Sender<Input>) {
    let mut last: Option<Secret> = None;
    let mut complained = false;
    let mut ticks = tokio::time::interval(PASSWORDS_INTERVAL);
    loop {
        ticks.tick().await;
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                complained = false;
                let now = Secret::new(text);
                if last.as_ref() != Some(&now) {
                    last = Some(now.clone());
                    send(&core, News::Passwords(now)).await;
                }
            }
            Err(error) if !complained => {
                complained = true;
                tracing::warn!("--peer-router-passwords-file {}: {error}", path.display());
            }
            Err(_) => {}
        }
        if core.is_closed() {
            return;
        }
    }
}

//! The BGP speaker's edge: wishes of the routes controller to it, its news to the core.
//!
//! Decided here: what of the speaker's news is a log line, and what an input of plans; notices about one peer are in
//! [`notices`]. The speaker starts with the first wish and runs on the process's runtime.

mod notices;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::config::RemoteAsn;
use bgp::driver::{self, Event, Events, Handle, PeerReport};
use bgp::speaker;
use bgp::{Attributes, NextHop};
use prometheus::IntCounter;
use tokio::runtime;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::notices::Faults;
use super::input::{Input, News};
use crate::metrics::{BgpPeer, BgpPeers, Metrics, MetricsError};
use crate::network_routes::speaker::Ask;
use crate::secret::Secret;
use crate::status;

/// Paths told to the core at once, at the most.
const BATCH: usize = 1024;
/// How long a scrape waits for the speaker.
const PEERS_PATIENCE: Duration = Duration::from_secs(2);
/// How often the file of passwords is looked at: mounted secrets change by a new link, which nothing announces.
const PASSWORDS_INTERVAL: Duration = Duration::from_secs(5);

/// A speaker that does as the routes controller wishes.
#[derive(Debug)]
pub(super) struct SpeakerEdge {
    handle: Handle,
    /// Ends when the speaker has.
    heard: JoinHandle<()>,
    runtime: runtime::Handle,
    metrics: Metrics,
}

impl SpeakerEdge {
    /// Starts it idle.
    pub(super) fn start(
        runtime: &runtime::Handle,
        passwords: Option<PathBuf>,
        core: &Sender<Input>,
        metrics: &Metrics,
    ) -> Result<SpeakerEdge, MetricsError> {
        // Pauses that differ from those of other nodes, which start with us after a power cut.
        let seed = RandomState::new().hash_one(std::process::id());
        let (handle, events) = driver::start(runtime, seed);
        metrics.attach_bgp_peers(Arc::new(Peers(handle.clone())))?;
        let received = metrics.bgp_advertisements_received.clone();
        let heard = runtime.spawn(hear(events, core.clone(), received));
        if let Some(path) = passwords {
            runtime.spawn(watch_passwords(path, core.clone()));
        }
        Ok(SpeakerEdge { handle, heard, runtime: runtime.clone(), metrics: metrics.clone() })
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
            Ask::Configure(wish) => {
                let _timer = self.metrics.bgp_internal_peers_sync_time.start_timer();
                self.handle.configure(wish.0, wish.1);
            }
            Ask::Paths(changes) => {
                for (prefix, next_hop, of_pods) in changes {
                    let kind = match (of_pods, next_hop.is_some()) {
                        (true, true) => Some("pod-route"),
                        (false, true) => Some("advertise-vip"),
                        (false, false) => Some("withdraw-vip"),
                        // Upstream never does, and has no name for it.
                        (true, false) => None,
                    };
                    if let Some(kind) = kind {
                        self.metrics.bgp_advertisements_sent.with_label_values(&[kind]).inc();
                    }
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

/// What a scrape asks the speaker.
#[derive(Debug)]
struct Peers(Handle);

impl BgpPeers for Peers {
    /// Blocks until the speaker answers. One that is idle or has ended knows nobody.
    fn read(&self) -> Vec<BgpPeer> {
        let answer = self.0.peers();
        let reports = tokio::runtime::Handle::try_current()
            .ok()
            .and_then(|runtime| runtime.block_on(tokio::time::timeout(PEERS_PATIENCE, answer)).ok()?.ok());
        reports.unwrap_or_default().into_iter().map(peer_of).collect()
    }
}

fn peer_of(report: PeerReport) -> BgpPeer {
    let (refused, faults) = (status::peers::refused(&report), status::peers::faults(&report));
    let by_family = |counts: Vec<(bgp::Family, usize)>| {
        counts.into_iter().map(|(family, count)| (family_name(family), count)).collect()
    };
    BgpPeer {
        address: report.peer,
        asn: match report.remote_asn {
            RemoteAsn::Exactly(asn) => Some(asn.get()),
            RemoteAsn::Internal | RemoteAsn::External | RemoteAsn::Any => None,
        },
        state: report.status.state.to_string(),
        received: by_family(report.received),
        told: by_family(report.told),
        announced: report.counters.announced,
        withdrawn: report.counters.withdrawn,
        refused,
        faults,
    }
}

fn family_name(family: bgp::Family) -> &'static str {
    match family {
        bgp::Family::Ipv4Unicast => "ipv4",
        bgp::Family::Ipv6Unicast => "ipv6",
    }
}

async fn hear(mut events: Events, core: Sender<Input>, received: IntCounter) {
    let mut burst = Vec::with_capacity(BATCH);
    let mut faults = Faults::default();
    while events.recv_many(&mut burst, BATCH).await > 0 {
        let mut selected = Vec::new();
        for event in burst.drain(..) {
            match event {
                Event::Routes(speaker::Event::Selected { prefix, paths }) => {
                    // A path of our own is nothing to route by.
                    let best = paths.first().filter(|path| path.peer.is_some());
                    received.inc_by(u64::from(best.is_some()));
                    selected.push((prefix, best.map(|path| path.attributes.next_hop.global)));
                }
                Event::Routes(speaker::Event::SelectionBegan(family)) => {
                    send(&core, News::Selected(std::mem::take(&mut selected))).await;
                    send(&core, News::SelectionBegan(family)).await;
                }
                other => {
                    say(&other, &mut faults);
                    if let Event::Up { peer, .. } = other {
                        send(&core, News::PeerUp(peer)).await;
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

fn say(event: &Event, faults: &mut Faults) {
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
        Event::Notice { peer, notice } => notices::say(*peer, notice, faults, Instant::now()),
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

/// Tells the core what the file says, or why it cannot be read: at the start and whenever that is something else.
async fn watch_passwords(path: PathBuf, core: Sender<Input>) {
    let mut last: Option<Result<Secret, String>> = None;
    let mut ticks = tokio::time::interval(PASSWORDS_INTERVAL);
    loop {
        ticks.tick().await;
        let read = tokio::fs::read_to_string(&path).await;
        let now = read.map(Secret::new).map_err(|error| format!("{}: {error}", path.display()));
        if last.as_ref() != Some(&now) {
            last = Some(now.clone());
            send(&core, News::Passwords(now)).await;
        }
        if core.is_closed() {
            return;
        }
    }
}

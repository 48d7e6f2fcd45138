//! The loop of a driver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connection::Connection;
use super::event::Event;
use super::events::News;
use super::inbound::Inbound;
use super::listeners::Listeners;
use super::mailbox::{Mailbox, Wishes};
use crate::config::Config;
use crate::families::Families;
use crate::peer::{ConnectionId, Peer};
use crate::speaker::{Routing, Speaker};
use crate::wire::Notification;
use crate::wire::notification::Cease;

/// Messages of tasks that may wait: what is read from sockets ahead of us is at most this many chunks.
const INBOUND: usize = 128;
/// How long the end waits for connections to say their last words.
const PATIENCE: Duration = Duration::from_secs(2);
/// News that are handed over at once. While so many have no place to go, peers are not listened to.
pub(super) const PENDING: usize = 512;

/// A connection, or an attempt at one.
#[derive(Debug)]
pub(super) enum Socket {
    Dialling(AbortHandle),
    Open(Connection),
}

/// The task of a driver: waits for a configuration that can be used, then runs.
pub(super) async fn drive(mailbox: Arc<Mailbox>, seed: u64, news: News) {
    loop {
        mailbox.wait().await;
        let Wishes { configuration, requests, stop, .. } = mailbox.take_but_paths();
        if stop.is_some() {
            return;
        }
        // Before there is a configuration, questions are let go unanswered: there is nothing to tell.
        let Some(configuration) = configuration else { continue };
        let (config, routing) = *configuration;
        if config.objections().iter().all(|objection| objection.peer.is_some()) {
            let mut core = Core::new(&config, routing.clone(), seed, news);
            core.configure(config, routing, Instant::now());
            for request in requests {
                core.request(request, Instant::now());
            }
            // Paths that were announced before.
            if let Some(text) = core.grant(mailbox.take()) {
                return core.end(&text).await;
            }
            return core.run(&mailbox).await;
        }
        for objection in config.objections() {
            if news.send(vec![Event::Objection(objection)]).await.is_err() {
                return;
            }
        }
    }
}

/// Everything a driver owns.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) speaker: Speaker,
    pub(super) peers: HashMap<IpAddr, Peer>,
    pub(super) sockets: HashMap<(IpAddr, ConnectionId), Socket>,
    pub(super) listeners: Listeners,
    /// When each peer has something to do; one entry a peer.
    pub(super) deadlines: BTreeSet<(Instant, IpAddr)>,
    pub(super) deadline_of: HashMap<IpAddr, Instant>,
    /// Peers with news to be told.
    pub(super) eager: BTreeSet<IpAddr>,
    /// Families a peer has asked for again and not been told yet.
    pub(super) refreshing: HashMap<IpAddr, Families>,
    /// Peers whose last attempt failed, and that has been said.
    pub(super) unreachable: BTreeSet<IpAddr>,
    /// Families in which selection waits after a restart of ours.
    pub(super) deferring: Families,
    pub(super) pending: Vec<Event>,
    pub(super) news: News,
    pub(super) inbound: mpsc::Sender<Inbound>,
    pub(super) arrivals: mpsc::Receiver<Inbound>,
    pub(super) random: fastrand::Rng,
}

impl Core {
    /// A driver at rest: the configuration without listeners and peers.
    fn new(config: &Config, routing: Routing, seed: u64, news: News) -> Self {
        let (inbound, arrivals) = mpsc::channel(INBOUND);
        let bare = Config { peers: BTreeMap::new(), listen: Vec::new(), ..config.clone() };
        Core {
            speaker: Speaker::new(&config.usable(), routing, Instant::now()),
            config: bare,
            peers: HashMap::new(),
            sockets: HashMap::new(),
            listeners: Listeners::new(inbound.clone()),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            eager: BTreeSet::new(),
            refreshing: HashMap::new(),
            unreachable: BTreeSet::new(),
            deferring: Families::all(),
            pending: Vec::new(),
            news,
            inbound,
            arrivals,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Runs until told to end.
    async fn run(mut self, mailbox: &Mailbox) {
        loop {
            self.settle();
            let deadline = self.next_deadline();
            let backlog = self.pending.len() >= PENDING;
            let news = self.news.clone();
            tokio::select! {
                () = mailbox.wait() => {
                    if let Some(text) = self.grant(mailbox.take()) {
                        return self.end(&text).await;
                    }
                }
                Some(inbound) = self.arrivals.recv(), if !backlog => {
                    self.arrived(inbound);
                    self.take_what_is_there();
                }
                permit = news.reserve(), if !self.pending.is_empty() => {
                    let batch = std::mem::take(&mut self.pending);
                    // If nobody reads, the news has nowhere to go.
                    if let Ok(permit) = permit {
                        permit.send(batch);
                    }
                }
                () = sleep_until(deadline) => self.tick(),
            }
        }
    }

    /// Takes in what else has arrived, so that peers are told of all of it at once: with a thousand of them, each round of
    /// telling costs a thousand small writes.
    fn take_what_is_there(&mut self) {
        for _ in 0..INBOUND {
            if self.pending.len() >= PENDING {
                break;
            }
            let Ok(inbound) = self.arrivals.try_recv() else { break };
            self.arrived(inbound);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let peer = self.deadlines.first().map(|(at, _)| *at);
        let now = Instant::now();
        [peer, self.speaker.next_deadline(now), self.listeners.next_deadline()].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while let Some((at, peer)) = self.deadlines.first().copied()
            && at <= now
        {
            self.with_peer(peer, |peer, out| peer.tick(now, out));
            // A peer that does nothing about its deadline must not stop the others.
            if self.deadline_of.get(&peer) == Some(&at) {
                self.reschedule(peer, None);
            }
        }
        if self.speaker.next_deadline(now).is_some_and(|at| at <= now) {
            self.speaker.tick(now);
        }
        if self.listeners.next_deadline().is_some_and(|at| at <= now) {
            let mut events = Vec::new();
            self.listeners.open_missing(now, &mut events);
            self.pending.extend(events);
        }
    }

    async fn end(mut self, text: &str) {
        let now = Instant::now();
        let graceful = self.config.graceful_restart.is_some();
        let why = Notification::with_text(Cease::AdministrativeShutdown, text);
        for address in self.peers.keys().copied().collect::<Vec<_>>() {
            self.with_peer(address, |peer, out| match graceful {
                true => peer.abandon(now, out),
                false => peer.stop(&why, now, out),
            });
        }
        // Connections end when they have said their last words; the queue ends with the last of them.
        drop(self.inbound);
        drop(self.listeners);
        let last_words = async { while self.arrivals.recv().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, last_words).await;
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

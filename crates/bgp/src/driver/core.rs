//! The loop of a driver.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::PeerReport;
use super::connection::Connection;
use super::event::Event;
use super::inbound::Inbound;
use super::listeners::Listeners;
use super::mailbox::{Mailbox, Request, Wishes};
use crate::config::Config;
use crate::families::Families;
use crate::family::Family;
use crate::peer::{Action, ConnectionId, Identity, Peer};
use crate::session::Ends;
use crate::speaker::{self, Down, Routing, Speaker};
use crate::transport;
use crate::update::Update;
use crate::wire::notification::Cease;
use crate::wire::{Codec, Notification, RefreshKind, encode_update};

/// Messages of tasks that may wait: what is read from sockets ahead of us is at most this many chunks.
const INBOUND: usize = 64;
/// Prefixes pulled from the table at a time.
const PULL: usize = 1024;
/// How long the end waits for connections to say their last words.
const PATIENCE: Duration = Duration::from_secs(2);
/// News the caller has not read, beyond which peers are not listened to.
const PENDING: usize = 1024;

/// A connection, or an attempt at one.
#[derive(Debug)]
enum Socket {
    Dialling(AbortHandle),
    Open(Connection),
}

/// The task of a driver: waits for a configuration that can be used, then runs.
pub(super) async fn drive(mailbox: Arc<Mailbox>, seed: u64, news: mpsc::Sender<Event>) {
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
            if news.send(Event::Objection(objection)).await.is_err() {
                return;
            }
        }
    }
}

/// Everything a driver owns.
#[derive(Debug)]
pub(super) struct Core {
    config: Config,
    speaker: Speaker,
    peers: HashMap<IpAddr, Peer>,
    sockets: HashMap<(IpAddr, ConnectionId), Socket>,
    listeners: Listeners,
    /// When each peer has something to do; one entry a peer.
    deadlines: BTreeSet<(Instant, IpAddr)>,
    deadline_of: HashMap<IpAddr, Instant>,
    /// Peers with news to be told.
    eager: BTreeSet<IpAddr>,
    /// Families a peer has asked for again and not been told yet.
    refreshing: HashMap<IpAddr, Families>,
    /// Peers whose last attempt failed, and that has been said.
    unreachable: BTreeSet<IpAddr>,
    /// Families in which selection waits after a restart of ours.
    deferring: Families,
    pending: VecDeque<Event>,
    news: mpsc::Sender<Event>,
    inbound: mpsc::Sender<Inbound>,
    arrivals: mpsc::Receiver<Inbound>,
    random: fastrand::Rng,
}

impl Core {
    /// A driver at rest: the configuration without listeners and peers.
    fn new(config: &Config, routing: Routing, seed: u64, news: mpsc::Sender<Event>) -> Self {
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
            pending: VecDeque::new(),
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
                Some(inbound) = self.arrivals.recv(), if !backlog => self.arrived(inbound),
                permit = news.reserve(), if !self.pending.is_empty() => {
                    match (permit, self.pending.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        // Nobody reads: the news has nowhere to go.
                        _ => self.pending.clear(),
                    }
                }
                () = sleep_until(deadline) => self.tick(),
            }
        }
    }

    /// Does what was asked for. Gives back the text to end with, if that was.
    fn grant(&mut self, wishes: Wishes) -> Option<String> {
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

    fn request(&mut self, request: Request, now: Instant) {
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

    fn report(&self) -> Vec<PeerReport> {
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
    fn configure(&mut self, config: Config, routing: Routing, now: Instant) {
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

    fn remove(&mut self, address: IpAddr, now: Instant) {
        let why = Notification::new(Cease::PeerDeconfigured);
        self.with_peer(address, |peer, out| peer.stop(&why, now, out));
        self.peers.remove(&address);
        self.reschedule(address, None);
        self.eager.remove(&address);
        self.refreshing.remove(&address);
        self.unreachable.remove(&address);
    }

    fn arrived(&mut self, inbound: Inbound) {
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
                            self.pending.push_back(Event::Trouble(error));
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
    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) {
        let address = remote.ip().to_canonical();
        let Some(config) = self.config.peers.get(&address) else { return };
        if let Err(error) = transport::prepare_accepted(&stream, config, self.config.asn) {
            self.pending.push_back(Event::Trouble(error.to_string()));
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

    fn open(&mut self, peer: IpAddr, id: ConnectionId, stream: TcpStream) {
        let connection = Connection::new(peer, id, stream, self.inbound.clone());
        self.sockets.insert((peer, id), Socket::Open(connection));
    }

    /// Lets a peer work and does what it asks for.
    fn with_peer(&mut self, address: IpAddr, work: impl FnOnce(&mut Peer, &mut Vec<Action>)) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let mut actions = Vec::new();
        work(peer, &mut actions);
        let deadline = peer.next_deadline();
        self.reschedule(address, deadline);
        self.perform(address, actions, Instant::now());
    }

    fn reschedule(&mut self, address: IpAddr, deadline: Option<Instant>) {
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

    fn perform(&mut self, address: IpAddr, actions: Vec<Action>, now: Instant) {
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
                    self.pending.push_back(Event::Up { peer: address, negotiated });
                }
                Action::Update(update) => self.learn(address, update, now),
                Action::RefreshRequested(family) => {
                    self.refreshing.entry(address).or_default().insert(family);
                    self.with_peer(address, |peer, out| peer.mark_refresh(family, RefreshKind::Begin, out));
                    self.speaker.refresh_requested(address, family);
                    self.eager.insert(address);
                }
                Action::RefreshBegins(family) => self.speaker.refresh_begins(address, family),
                Action::RefreshEnds(family) => self.speaker.refresh_ends(address, family),
                Action::Down { graceful, end } => {
                    let down = if graceful { Down::Graceful } else { Down::Lost };
                    self.speaker.peer_down(address, down, now);
                    self.refreshing.remove(&address);
                    self.pending.push_back(Event::Down { peer: address, graceful, end });
                }
                Action::Notice(notice) => self.pending.push_back(Event::Notice { peer: address, notice }),
            }
        }
    }

    fn learn(&mut self, address: IpAddr, update: Update, now: Instant) {
        let family = match &update {
            Update::Reach { family, .. } => Some(*family),
            Update::Unreach { family, .. } => Some(*family),
            Update::EndOfRib(_) => None,
        };
        self.speaker.update(address, update, now);
        if let Some(family) = family {
            let count = self.speaker.prefix_count(address, family);
            self.with_peer(address, |peer, out| peer.counted(family, count, now, out));
        }
    }

    fn dial(&mut self, address: IpAddr, id: ConnectionId) {
        let Some(peer) = self.peers.get(&address).map(|peer| peer.config().clone()) else { return };
        let (inbound, ours) = (self.inbound.clone(), self.config.asn);
        let task = tokio::spawn(async move {
            let outcome = transport::dial(address, &peer, ours).await;
            // The driver may have ended.
            let _ = inbound.send(Inbound::Dialled { peer: address, id, outcome }).await;
        });
        self.sockets.insert((address, id), Socket::Dialling(task.abort_handle()));
    }

    /// Tells peers their news, and gathers ours.
    fn settle(&mut self) {
        let now = Instant::now();
        self.eager.extend(self.speaker.wanting());
        for peer in std::mem::take(&mut self.eager) {
            self.tell(peer, now);
        }
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
            self.pending.push_back(Event::Routes(event));
        }
    }

    /// Tells a peer its news, as far as its socket has room. The rest follows when the socket says so.
    fn tell(&mut self, address: IpAddr, now: Instant) {
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
            let mut octets = Vec::new();
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
    fn refreshed(&mut self, address: IpAddr) {
        for family in self.refreshing.remove(&address).unwrap_or_default().iter() {
            self.with_peer(address, |peer, out| peer.mark_refresh(family, RefreshKind::End, out));
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

/// Writes an update for a peer. What cannot be told is taken back instead, so that the peer does not go by older news.
fn write(update: &Update, codec: &Codec, peer: IpAddr, octets: &mut Vec<u8>, pending: &mut VecDeque<Event>) {
    let Err(error) = encode_update(update, codec, octets) else { return };
    if let Update::Reach { family, prefixes, .. } = update {
        pending.push_back(Event::NotTold { peer, error, prefixes: prefixes.len() });
        let instead = Update::Unreach { family: *family, prefixes: prefixes.clone() };
        // A withdrawal has no attributes that could be too long.
        let _ = encode_update(&instead, codec, octets);
    }
}

fn ends(stream: &TcpStream) -> Result<Ends, String> {
    let ends = || {
        let local = stream.local_addr()?.ip().to_canonical();
        Ok(Ends { local, remote: stream.peer_addr()?.ip().to_canonical() })
    };
    ends().map_err(|error: std::io::Error| error.to_string())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

//! One peer: its connections, which of them stays, and when to try again.
//!
//! There is a session that dials and one that waits for the peer to dial. The first to get through becomes the main one; until
//! then both may be under way, and the collision is settled when an OPEN arrives (RFC 4271 section 6.8, RFC 6286). While
//! the main one is up, the waiting one stays, for a peer that restarts may come back before we notice that it was away
//! (RFC 4724 section 5).
//!
//! Decided here: collisions, pauses between attempts, the hold after errors (RFC 4271 section 8.1.1), bounds on prefixes,
//! whether the end of a session keeps paths. Not decided: anything about a single connection ([`crate::session`]).

mod action;
mod course;
mod link;
mod prefixes;
mod retry;
mod terms;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use action::{Action, ConnectionId, History, Notice, Status};

use crate::asn::Asn;
use crate::config::{Config, GracefulRestart, PeerConfig};
use crate::family::Family;
use crate::negotiated::Negotiated;
use crate::session::{Ends, Event, Session, State, Terms};
use crate::wire::notification::Cease;
use crate::wire::{Codec, Notification, Refresh, RefreshKind};
use link::{Links, Side};
use retry::Backoff;
use terms::{agreed, terms};

/// How long an attempt to connect may take before another is made.
const CONNECT_WAIT: Duration = Duration::from_secs(15);
/// First and longest hold after an error.
const ERROR_HOLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// A session that was up for this long has put earlier errors behind it.
const GOOD_WHILE: Duration = Duration::from_secs(30);

/// What is ours in every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Our AS number.
    pub asn: Asn,
    /// Our router id.
    pub router_id: Ipv4Addr,
    /// Graceful restart, if on.
    pub graceful_restart: Option<GracefulRestart>,
}

impl From<&Config> for Identity {
    fn from(config: &Config) -> Self {
        Identity { asn: config.asn, router_id: config.router_id, graceful_restart: config.graceful_restart }
    }
}

/// Whether connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// Yes.
    Running,
    /// Not until then, after an error (`None`: not until told to).
    Holding(Option<Instant>),
}

/// A peer's state.
#[derive(Debug)]
pub struct Peer {
    remote: IpAddr,
    config: PeerConfig,
    identity: Identity,
    links: Links,
    stance: Stance,
    /// When to dial next, if an attempt is due.
    dial_at: Option<Instant>,
    dialling: Backoff,
    errors: Backoff,
    prefixes: prefixes::Watch,
    history: History,
    random: fastrand::Rng,
}

impl Peer {
    /// A peer nothing has been done about yet: see [`Peer::start`]. The same `seed` makes the same choices.
    pub fn new(remote: IpAddr, config: PeerConfig, identity: Identity, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let terms = terms(remote, &config, &identity, false);
        let mut session = || Session::new(terms.clone(), CONNECT_WAIT, random.u64(..));
        let links = Links::new(session(), session());
        let (first, longest) = config.connect_retry;
        Peer {
            remote,
            config,
            identity,
            links,
            stance: Stance::Holding(None),
            dial_at: None,
            dialling: Backoff::new(first, longest),
            errors: Backoff::new(ERROR_HOLD.0, ERROR_HOLD.1),
            prefixes: prefixes::Watch::default(),
            history: History::default(),
            random,
        }
    }

    /// Its configuration.
    pub const fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// Where it is and how it came there.
    pub fn status(&self) -> Status {
        Status {
            state: self.links.furthest(),
            stopped: self.stance == Stance::Holding(None),
            resumes: match self.stance {
                Stance::Holding(until) => until,
                Stance::Running => None,
            },
            negotiated: self.links.main().and_then(|link| link.session.negotiated().cloned()),
            history: self.history.clone(),
        }
    }

    /// How to read and write UPDATEs, and where to send them; `None` unless it is up.
    pub fn codec(&self) -> Option<(ConnectionId, Codec)> {
        let link = self.links.main()?;
        link.connection.zip(link.session.codec())
    }

    /// Begins, or begins anew after [`Peer::stop`].
    pub fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.stance != Stance::Running {
            self.stance = Stance::Running;
            self.dialling.reset();
            self.dial_at = Some(now).filter(|_| !self.config.passive);
            self.tick(now, out);
        }
    }

    /// Ends every connection, says why, and stays away until [`Peer::start`].
    pub fn stop(&mut self, why: &Notification, now: Instant, out: &mut Vec<Action>) {
        self.rest(None, why, now, out);
    }

    /// Ends every connection and begins anew at once.
    pub fn reset(&mut self, why: &Notification, now: Instant, out: &mut Vec<Action>) {
        self.rest(None, why, now, out);
        self.start(now, out);
    }

    /// Lets go of every connection without a word: the peer is to keep our paths while we restart.
    pub fn abandon(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.stance = Stance::Holding(None);
        for side in Side::ALL {
            self.event(side, Event::ConnectionFailed, now, out);
            self.event(side, Event::Replaced, now, out);
        }
    }

    /// Takes a new configuration over. The session is reset only if what was agreed on with the peer changes.
    pub fn reconfigure(
        &mut self,
        config: PeerConfig,
        identity: Identity,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let (first, longest) = config.connect_retry;
        self.dialling = Backoff::new(first, longest);
        let before = self.terms();
        let after = terms(self.remote, &config, &identity, self.has_met());
        let same = agreed(&before) == agreed(&after)
            && self.config.local_address == config.local_address
            && self.config.password == config.password
            && self.config.ttl == config.ttl;
        let dialled_elsewhere = self.config.port != config.port || self.config.passive != config.passive;
        let bound_changed = self.config.max_prefixes != config.max_prefixes;
        self.config = config;
        self.identity = identity;
        for link in self.links.all_mut() {
            link.session.set_terms(after.clone(), CONNECT_WAIT);
        }
        let up = self.links.main().is_some();
        let stopped = self.stance == Stance::Holding(None);
        if !same || (dialled_elsewhere && !up) || (bound_changed && stopped) {
            self.reset(&Notification::new(Cease::OtherConfigurationChange), now, out);
        }
    }

    /// Changes what later OPENs say about our restart, without a reset.
    pub fn set_restarting(&mut self, restarting: bool) {
        if let Some(restart) = &mut self.identity.graceful_restart {
            restart.restarting = restarting;
        }
        self.set_terms();
    }

    fn has_met(&self) -> bool {
        self.history.established > 0
    }

    fn terms(&self) -> Terms {
        terms(self.remote, &self.config, &self.identity, self.has_met())
    }

    /// What later OPENs say.
    fn set_terms(&mut self) {
        let terms = self.terms();
        for link in self.links.all_mut() {
            link.session.set_terms(terms.clone(), CONNECT_WAIT);
        }
    }

    /// When to call [`Peer::tick`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let held = match self.stance {
            Stance::Holding(until) => until,
            Stance::Running => self.dial_at,
        };
        self.links.all().filter_map(|link| link.session.next_deadline()).chain(held).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        for side in Side::ALL {
            self.drive(side, now, out, |session, outputs| session.tick(now, outputs));
        }
        if let Stance::Holding(Some(until)) = self.stance
            && until <= now
        {
            self.stance = Stance::Running;
            self.dial_at = Some(now).filter(|_| !self.config.passive);
        }
        if self.stance != Stance::Running {
            return;
        }
        if self.links.state(Side::Incoming) == State::Idle {
            self.event(Side::Incoming, Event::StartPassive, now, out);
        }
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial_at = None;
            // An attempt of the peer that has come this far needs no rival.
            if self.links.state(Side::Incoming) == State::OpenConfirm {
                self.dial_later(now);
            } else {
                let active = self.links.state(Side::Outgoing) == State::Active;
                let event = if active { Event::ConnectRetryExpired } else { Event::Start };
                self.event(Side::Outgoing, event, now, out);
            }
        }
    }

    /// Sees to it that there will be another attempt, if one is wanted and none is under way.
    fn dial_later(&mut self, now: Instant) {
        let resting = matches!(self.links.state(Side::Outgoing), State::Idle | State::Active);
        let wanted = self.stance == Stance::Running && !self.config.passive && self.links.main().is_none();
        if wanted && resting && self.dial_at.is_none() {
            self.dial_at = Some(now + self.dialling.pause(&mut self.random));
        }
    }

    /// The peer has dialled us.
    ///
    /// # Errors
    /// The connection is not wanted; the NOTIFICATION to close it with.
    pub fn accept(
        &mut self,
        ends: Ends,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<ConnectionId, Notification> {
        if self.stance != Stance::Running {
            return Err(Notification::new(Cease::ConnectionRejected));
        }
        // If the main connection's other end is gone, this finds out.
        self.drive(Side::Main, now, out, |session, outputs| session.probe(now, outputs));
        if self.links.state(Side::Incoming) != State::Active {
            // The peer has given its earlier attempt up, or it would not make another.
            self.event(Side::Incoming, Event::CollisionLost, now, out);
            self.event(Side::Incoming, Event::StartPassive, now, out);
        }
        let id = self.links.name(Side::Incoming);
        self.event(Side::Incoming, Event::Connected(ends), now, out);
        Ok(id)
    }

    /// The connection asked for by [`Action::Dial`] is there.
    pub fn connected(&mut self, id: ConnectionId, ends: Ends, now: Instant, out: &mut Vec<Action>) {
        self.by_name(id, Event::Connected(ends), now, out);
    }

    /// It is not there, or it broke, or the peer closed it.
    pub fn failed(&mut self, id: ConnectionId, now: Instant, out: &mut Vec<Action>) {
        self.by_name(id, Event::ConnectionFailed, now, out);
    }

    /// Octets left its socket.
    pub fn progress(&mut self, id: ConnectionId, drained: bool, now: Instant, out: &mut Vec<Action>) {
        self.by_name(id, Event::Progress { drained }, now, out);
    }

    /// Octets arrived. O(octets).
    pub fn received(&mut self, id: ConnectionId, octets: &[u8], now: Instant, out: &mut Vec<Action>) {
        let Some(side) = self.links.side_of(id) else { return };
        self.links.get_mut(side).session.received(octets);
        // A session that comes up moves to another side, so the connection is looked up anew for each message.
        while let Some(side) = self.links.side_of(id) {
            let mut more = false;
            self.drive(side, now, out, |session, outputs| more = session.next_message(now, outputs));
            if !more {
                return;
            }
        }
    }

    /// We told the peer about paths, so that no KEEPALIVE is due for a while.
    pub fn spoke(&mut self, now: Instant) {
        if let Some(link) = self.links.main_mut() {
            link.session.spoke(now);
        }
    }

    /// How many prefixes of a family the peer has told us; after each update.
    pub fn counted(&mut self, family: Family, count: usize, now: Instant, out: &mut Vec<Action>) {
        let Some(bound) = self.config.max_prefixes else { return };
        if self.links.main().is_none() {
            return;
        }
        let limit = bound.limit;
        match self.prefixes.judge(&bound, family, count) {
            prefixes::Verdict::Fine => {}
            prefixes::Verdict::Warning => {
                out.push(Action::Notice(Notice::ManyPrefixes { family, count, limit }));
            }
            prefixes::Verdict::Exceeded(why) => {
                self.history.too_many_prefixes += 1;
                out.push(Action::Notice(Notice::TooManyPrefixes { family, count, limit }));
                self.rest(bound.restart_after.map(|after| now + after), &why, now, out);
            }
        }
    }

    /// Asks the peer for its paths again. `false` if it cannot be asked.
    pub fn request_refresh(&mut self, family: Family, out: &mut Vec<Action>) -> bool {
        self.send_refresh(Refresh { family, kind: RefreshKind::Request }, out)
    }

    /// Marks where our paths begin or end, for a peer that reads such marks (RFC 7313).
    pub fn mark_refresh(&mut self, family: Family, kind: RefreshKind, out: &mut Vec<Action>) {
        let enhanced = |negotiated: &Arc<Negotiated>| negotiated.enhanced_route_refresh;
        if self.links.main().and_then(|link| link.session.negotiated()).is_some_and(enhanced) {
            self.send_refresh(Refresh { family, kind }, out);
        }
    }

    fn send_refresh(&mut self, refresh: Refresh, out: &mut Vec<Action>) -> bool {
        let Some(link) = self.links.main() else { return false };
        let knows = link.session.negotiated().is_some_and(|negotiated| {
            negotiated.route_refresh && negotiated.families.contains(refresh.family)
        });
        let Some(connection) = link.connection.filter(|_| knows) else { return false };
        let mut octets = Vec::new();
        refresh.encode(&mut octets);
        out.push(Action::Send(connection, octets));
        true
    }

    /// Ends everything with `why` and rests until `until`.
    fn rest(&mut self, until: Option<Instant>, why: &Notification, now: Instant, out: &mut Vec<Action>) {
        self.stance = Stance::Holding(until);
        self.dial_at = None;
        for side in Side::ALL {
            self.event(side, Event::Stop(why.clone()), now, out);
        }
    }

    fn by_name(&mut self, id: ConnectionId, event: Event, now: Instant, out: &mut Vec<Action>) {
        if let Some(side) = self.links.side_of(id) {
            self.event(side, event, now, out);
        }
    }

    fn event(&mut self, side: Side, event: Event, now: Instant, out: &mut Vec<Action>) {
        self.drive(side, now, out, |session, outputs| session.event(event, now, outputs));
    }
}

#[cfg(test)]
mod tests;

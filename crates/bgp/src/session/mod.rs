//! One connection with a peer: the finite state machine of RFC 4271 section 8.
//!
//! Decided here, from an event and the time it happened: the next state, what to send, which timers run. Nothing is read,
//! written or waited for; the caller does what the [`Output`]s say and comes back at [`Session::next_deadline`].
//! Which of a peer's two connections stays, and when to try again, is decided above ([`crate::peer`]).
//!
//! ```text
//!            Start           Connected         OPEN             KEEPALIVE
//!   Idle ───────────► Connect ────────► OpenSent ──► OpenConfirm ────────► Established
//!     └─ StartPassive ► Active ───────────▲   any error, any end: back to Idle
//! ```
//!
//! Departures from the letter of section 8.2.2, all of them as other speakers do: a NOTIFICATION is never answered with
//! one; an error in a header is reported as such in every state; DelayOpen is not offered. Added: the send hold timer
//! (RFC 9687), ROUTE-REFRESH (RFC 2918, RFC 7313) and the subcodes of RFC 6608.

mod event;
mod terms;
mod timers;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use event::{Event, Output, State};
pub use terms::{Ends, Terms};

use crate::graceful_restart::End;
use crate::negotiated::Negotiated;
use crate::wire::notification::{Cease, StateMachineError};
use crate::wire::{self, Cause, Codec, Frame, Framer, Kind, Notification, Open, Refresh, encode_keepalive};
use timers::Timers;

/// How long the peer may take to send its OPEN ("a large value", RFC 4271 section 8.2.2).
const OPEN_WAIT: Duration = Duration::from_secs(240);
/// The least time for which nothing may leave the socket (RFC 9687 section 3).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// The state machine of one connection.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    state: State,
    /// Whether it makes the connection itself, or waits for the peer's.
    dials: bool,
    framer: Framer,
    timers: Timers,
    /// How long an attempt to connect may take.
    connect_retry: Duration,
    ends: Option<Ends>,
    negotiated: Option<Arc<Negotiated>>,
    /// Draws the jitter of the keepalive timer (RFC 4271 section 10).
    random: fastrand::Rng,
}

impl Session {
    /// In Idle. The same `seed` makes the same choices.
    pub fn new(terms: Terms, connect_retry: Duration, seed: u64) -> Self {
        Session {
            terms,
            state: State::Idle,
            dials: false,
            framer: Framer::default(),
            timers: Timers::default(),
            connect_retry,
            ends: None,
            negotiated: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// An Idle session of the same terms.
    pub(crate) fn idle_copy(&self) -> Self {
        Session::new(self.terms.clone(), self.connect_retry, 0)
    }

    /// Where it is.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The agreement, from OpenConfirm on.
    pub const fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.negotiated.as_ref()
    }

    /// New terms, for the next OPEN.
    pub fn set_terms(&mut self, terms: Terms, connect_retry: Duration) {
        self.terms = terms;
        self.connect_retry = connect_retry;
    }

    /// When to call [`Session::tick`] next; `None` if nothing is being waited for.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Lets the timers that are due expire.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(event) = self.timers.take_due(now) {
            self.event(event, now, out);
        }
    }

    /// Adds octets from the connection. They are read by [`Session::next_message`].
    pub fn received(&mut self, octets: &[u8]) {
        self.framer.push(octets);
    }

    /// Reads one message of what was received. `false` once there is no whole one, or the session has ended.
    ///
    /// One at a time, so that the caller can settle a collision between an OPEN and what follows it.
    pub fn next_message(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        if !self.state.has_connection() {
            return false;
        }
        match self.framer.next_frame() {
            Ok(None) => false,
            Ok(Some(frame)) => {
                let event = self.read(&frame);
                self.event(event, now, out);
                true
            }
            Err(notification) => {
                self.event(Event::HeaderError(notification), now, out);
                false
            }
        }
    }

    /// What a message means in this state. Bodies are read only where they can mean something.
    fn read(&self, frame: &Frame) -> Event {
        match (frame.kind, self.established()) {
            (Kind::Keepalive, _) => Event::Keepalive,
            (Kind::Notification, _) => Event::Notification(Notification::decode(&frame.body)),
            (Kind::Open, _) if self.state == State::OpenSent => match self.judge(&frame.body) {
                Ok(negotiated) => Event::Open(Box::new(negotiated)),
                Err(notification) => Event::OpenError(notification),
            },
            (Kind::Update, Some(negotiated)) => {
                match wire::update::decode(&frame.body, &Codec::from(negotiated)) {
                    Ok(received) => Event::Update(received),
                    Err(notification) => Event::UpdateError(notification),
                }
            }
            (Kind::RouteRefresh, Some(negotiated)) => {
                match Refresh::decode(&frame.body, negotiated.enhanced_route_refresh) {
                    Ok(refresh) => Event::Refresh(refresh),
                    Err(notification) => Event::HeaderError(notification),
                }
            }
            (kind, _) => Event::Unexpected(kind),
        }
    }

    fn judge(&self, body: &[u8]) -> Result<Negotiated, Notification> {
        let open = Open::decode(body)?;
        let ends = self.ends.ok_or_else(|| Notification::new(StateMachineError::Unspecified))?;
        self.terms.negotiate(&open, ends)
    }

    fn established(&self) -> Option<&Negotiated> {
        self.negotiated.as_deref().filter(|_| self.state == State::Established)
    }

    /// How UPDATEs are read and written; only while Established.
    pub fn codec(&self) -> Option<Codec> {
        self.established().map(Codec::from)
    }

    /// What the peer did or the clock says. Every state has an answer to every event.
    pub fn event(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match self.state {
            State::Idle => self.in_idle(event, now, out),
            State::Connect => self.in_connect(event, now, out),
            State::Active => self.in_active(event, now, out),
            State::OpenSent => self.in_open_sent(event, now, out),
            State::OpenConfirm => self.in_open_confirm(event, now, out),
            State::Established => self.in_established(event, now, out),
        }
    }

    fn in_idle(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start => {
                self.dials = true;
                self.dial(now, out);
            }
            Event::StartPassive => {
                self.dials = false;
                self.state = State::Active;
            }
            _ => {}
        }
    }

    fn in_connect(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start | Event::StartPassive | Event::Progress { .. } => {}
            Event::ConnectRetryExpired => {
                out.push(Output::Hangup);
                self.dial(now, out);
            }
            Event::Connected(ends) => self.say_open(ends, now, out),
            _ => self.end(End::Lost, out),
        }
    }

    fn in_active(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start | Event::StartPassive | Event::Progress { .. } => {}
            Event::ConnectRetryExpired => self.dial(now, out),
            Event::Connected(ends) => self.say_open(ends, now, out),
            _ => self.end(End::Lost, out),
        }
    }

    fn in_open_sent(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start | Event::StartPassive | Event::Connected(_) | Event::Progress { .. } => {}
            Event::ConnectionFailed => {
                out.push(Output::Hangup);
                self.reset();
                // Who has waited for the peer's connection waits for its next one.
                self.timers.connect_retry = self.dials.then(|| now + self.connect_retry);
                self.state = State::Active;
            }
            Event::Open(negotiated) => {
                let negotiated = Arc::new(*negotiated);
                self.timers.hold = later(now, negotiated.hold_time);
                self.negotiated = Some(Arc::clone(&negotiated));
                self.state = State::OpenConfirm;
                out.push(Output::Opened(negotiated));
                self.say_keepalive(now, out);
            }
            event => self.fail(event, StateMachineError::InOpenSent, out),
        }
    }

    fn in_open_confirm(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start | Event::StartPassive | Event::Connected(_) | Event::Progress { .. } => {}
            Event::KeepaliveExpired => self.say_keepalive(now, out),
            Event::Keepalive => {
                self.heard(now);
                self.state = State::Established;
                if let Some(negotiated) = &self.negotiated {
                    out.push(Output::Up(Arc::clone(negotiated)));
                }
            }
            event => self.fail(event, StateMachineError::InOpenConfirm, out),
        }
    }

    fn in_established(&mut self, event: Event, now: Instant, out: &mut Vec<Output>) {
        match event {
            Event::Start | Event::StartPassive | Event::Connected(_) => {}
            Event::KeepaliveExpired => self.say_keepalive(now, out),
            Event::Keepalive => self.heard(now),
            Event::Update(received) => {
                self.heard(now);
                out.push(Output::Update(received));
            }
            Event::Refresh(refresh) => {
                self.heard(now);
                out.extend(refresh.map(Output::Refresh));
            }
            Event::Progress { drained } => {
                let wait = self.send_hold_time();
                self.timers.send_hold = (!drained).then(|| now + wait);
            }
            event => self.fail(event, StateMachineError::InEstablished, out),
        }
    }

    /// Ends the session for an event that leaves no other way, with the NOTIFICATION it calls for.
    fn fail(&mut self, event: Event, unexpected: StateMachineError, out: &mut Vec<Output>) {
        let end = match event {
            Event::Stop(notification) => End::Sent(self.hardened(notification)),
            Event::CollisionLost => End::Sent(Notification::new(Cease::ConnectionCollision)),
            Event::HeaderError(error) | Event::OpenError(error) | Event::UpdateError(error) => {
                End::Sent(error)
            }
            Event::HoldExpired => End::Sent(Notification::new(Cause::HoldTimerExpired)),
            Event::SendHoldExpired => End::Sent(Notification::new(Cause::SendHoldTimerExpired)),
            Event::Notification(notification) => End::Received(notification),
            Event::ConnectionFailed | Event::Replaced => End::Lost,
            Event::Unexpected(kind) => End::Sent(Notification::with(unexpected, [kind.code()])),
            _ => End::Sent(Notification::new(unexpected)),
        };
        self.end(end, out);
    }

    /// A stop that is meant for good must say so where a plain NOTIFICATION would keep paths (RFC 8538 section 3.1).
    fn hardened(&self, notification: Notification) -> Notification {
        let restart = self.established().and_then(|negotiated| negotiated.graceful_restart.as_ref());
        let for_good = [Cease::AdministrativeShutdown, Cease::PeerDeconfigured, Cease::MaximumPrefixes];
        let meant = for_good.into_iter().any(|reason| notification.is_cease(reason));
        if meant && restart.is_some_and(|restart| restart.notification) {
            notification.hard()
        } else {
            notification
        }
    }

    /// Back to Idle: says why, if that is due, and lets go of the connection.
    fn end(&mut self, end: End, out: &mut Vec<Output>) {
        if let End::Sent(notification) = &end {
            let mut octets = Vec::new();
            notification.encode(&mut octets);
            out.push(Output::Send(octets));
        }
        out.push(Output::Hangup);
        let negotiated = self.negotiated.take().filter(|_| self.state == State::Established);
        self.reset();
        self.state = State::Idle;
        out.push(Output::Down { end, negotiated });
    }

    /// Forgets everything about the connection.
    fn reset(&mut self) {
        self.framer = Framer::default();
        self.timers = Timers::default();
        self.ends = None;
        self.negotiated = None;
    }

    fn dial(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.timers.connect_retry = Some(now + self.connect_retry);
        self.state = State::Connect;
        out.push(Output::Dial);
    }

    fn say_open(&mut self, ends: Ends, now: Instant, out: &mut Vec<Output>) {
        self.reset();
        self.ends = Some(ends);
        self.timers.hold = Some(now + OPEN_WAIT);
        self.state = State::OpenSent;
        let mut octets = Vec::new();
        self.terms.open().encode(&mut octets);
        out.push(Output::Send(octets));
    }

    /// Sends a KEEPALIVE. The first one confirms the OPEN and is due whatever the hold time.
    fn say_keepalive(&mut self, now: Instant, out: &mut Vec<Output>) {
        let mut octets = Vec::new();
        encode_keepalive(&mut octets);
        out.push(Output::Send(octets));
        self.spoke(now);
    }

    /// Sends a KEEPALIVE out of turn, so that a connection whose other end is gone breaks now.
    pub fn probe(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state == State::Established {
            self.say_keepalive(now, out);
        }
    }

    /// A message left: the next KEEPALIVE is due a third of the hold time later, or up to a quarter of that sooner.
    pub fn spoke(&mut self, now: Instant) {
        let interval = self.hold_time() / 3;
        let jitter = 0.75 + 0.25 * self.random.f64();
        self.timers.keepalive = later(now, interval.mul_f64(jitter));
        if self.state == State::Established && self.timers.send_hold.is_none() {
            self.timers.send_hold = Some(now + self.send_hold_time());
        }
    }

    fn send_hold_time(&self) -> Duration {
        SEND_HOLD.max(self.hold_time() * 2)
    }

    fn heard(&mut self, now: Instant) {
        self.timers.hold = later(now, self.hold_time());
    }

    fn hold_time(&self) -> Duration {
        self.negotiated.as_ref().map_or(Duration::ZERO, |negotiated| negotiated.hold_time)
    }
}

/// `now + wait`, or never for no wait at all.
fn later(now: Instant, wait: Duration) -> Option<Instant> {
    (!wait.is_zero()).then(|| now + wait)
}

#[cfg(test)]
mod tests;

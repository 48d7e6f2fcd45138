//! What follows from what a session of a peer reports: which of two connections stays, what is passed on, and how long the
//! peer is left alone after an end.

use std::sync::Arc;
use std::time::Instant;

use super::link::Side;
use super::{Action, CONNECT_WAIT, GOOD_WHILE, Notice, Peer, Stance, prefixes};
use crate::graceful_restart::End;
use crate::negotiated::Negotiated;
use crate::session::{Event, Output, Session, State};
use crate::wire::notification::Cease;
use crate::wire::{Notification, Outcome, Received, RefreshKind};

impl Peer {
    /// Lets a session work and does what it asks for.
    pub(super) fn drive(
        &mut self,
        mut side: Side,
        now: Instant,
        out: &mut Vec<Action>,
        work: impl FnOnce(&mut Session, &mut Vec<Output>),
    ) {
        let mut outputs = Vec::new();
        work(&mut self.links.get_mut(side).session, &mut outputs);
        for output in outputs {
            match output {
                Output::Dial => out.push(Action::Dial(self.links.name(side))),
                Output::Send(octets) => {
                    out.extend(self.links.get(side).connection.map(|id| Action::Send(id, octets)));
                }
                Output::Hangup => out.extend(self.links.get_mut(side).connection.take().map(Action::Hangup)),
                Output::Opened(negotiated) => {
                    if !self.survives(side, &negotiated, now, out) {
                        // What it would have sent next would have confirmed the OPEN.
                        self.event(side, Event::CollisionLost, now, out);
                        return;
                    }
                }
                Output::Up(negotiated) => {
                    self.up(side, negotiated, now, out);
                    side = Side::Main;
                }
                Output::Update(received) => self.update(received, out),
                Output::Refresh(refresh) => out.push(match refresh.kind {
                    RefreshKind::Request => Action::RefreshRequested(refresh.family),
                    RefreshKind::Begin => Action::RefreshBegins(refresh.family),
                    RefreshKind::End => Action::RefreshEnds(refresh.family),
                }),
                Output::Down { end, negotiated } => self.down(side, end, negotiated, now, out),
            }
        }
        self.dial_later(now);
    }

    /// Settles a collision: whether the connection whose OPEN has just come stays (RFC 4271 section 6.8).
    ///
    /// Beside a session that is up it does if the peer has restarted, unnoticed (RFC 4724 section 5). Not so soon after that
    /// session came up: then it is the other attempt of the same peer, which our side took from the kernel late, and which
    /// the peer has given up already. A peer that did restart so soon dials again once the probe has ended the session.
    fn survives(&mut self, side: Side, negotiated: &Negotiated, now: Instant, out: &mut Vec<Action>) -> bool {
        if let Some(main) = self.links.main() {
            let attempts_are_over = self.history.since.is_some_and(|since| now - since > CONNECT_WAIT);
            let agreed = main.session.negotiated().is_some_and(|was| was.graceful_restart.is_some());
            let restarts = attempts_are_over && agreed;
            if restarts {
                self.event(Side::Main, Event::Replaced, now, out);
            }
            return restarts;
        }
        let other = side.other();
        if self.links.state(other) != State::OpenConfirm {
            return true;
        }
        // The one dialled by the higher router id stays; by the higher AS number, if they are equal (RFC 6286).
        let ours = (negotiated.local_router_id, negotiated.local_asn);
        let theirs = (negotiated.peer_router_id, negotiated.peer_asn);
        let stays = if ours > theirs { Side::Outgoing } else { Side::Incoming };
        if stays == side {
            self.event(other, Event::CollisionLost, now, out);
        }
        stays == side
    }

    fn up(&mut self, side: Side, negotiated: Arc<Negotiated>, now: Instant, out: &mut Vec<Action>) {
        self.history.established += 1;
        let fresh = Session::new(self.terms(), CONNECT_WAIT, self.random.u64(..));
        let Some(id) = self.links.promote(side, fresh) else { return };
        self.set_terms();
        self.history.since = Some(now);
        self.prefixes = prefixes::Watch::default();
        self.dial_at = None;
        self.dialling.reset();
        out.push(Action::Up(id, negotiated));
        // The other attempt is of no use any more; the side that came up waits for the peer to come anew.
        self.event(side.other(), Event::CollisionLost, now, out);
        self.tick(now, out);
    }

    fn update(&mut self, received: Received, out: &mut Vec<Action>) {
        let withdrawn = received.faults.iter().any(|fault| fault.outcome == Outcome::TreatAsWithdraw);
        let discarded = received.faults.iter().filter(|fault| fault.outcome == Outcome::AttributeDiscard);
        self.history.attributes_discarded += discarded.count() as u64;
        self.history.treated_as_withdraw += u64::from(withdrawn);
        out.extend(received.faults.into_iter().map(|fault| Action::Notice(Notice::Fault(fault))));
        out.extend(received.updates.into_iter().map(Action::Update));
    }

    /// Notes the last words between us. One of two connections that goes in favour of the other is no news of the peer,
    /// and when an error holds both, that error is the reason.
    fn remember(&mut self, end: &End) {
        let (why, sent) = match end {
            End::Sent(why) if !why.is_cease(Cease::ConnectionRejected) => (why, true),
            End::Received(why) => (why, false),
            End::Sent(_) | End::Lost => return,
        };
        if why.is_cease(Cease::ConnectionCollision) {
            return;
        }
        self.history.sent_last = sent;
        let last = if sent { &mut self.history.last_sent } else { &mut self.history.last_received };
        *last = Some(why.clone());
    }

    /// A session is back in Idle.
    fn down(
        &mut self,
        side: Side,
        end: End,
        negotiated: Option<Arc<Negotiated>>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let collision = match &end {
            End::Sent(why) | End::Received(why) => why.is_cease(Cease::ConnectionCollision),
            End::Lost => false,
        };
        self.remember(&end);
        if side == Side::Main {
            self.links.demote();
        }
        let long =
            self.history.since.take_if(|_| side == Side::Main).is_some_and(|since| now - since >= GOOD_WHILE);
        if long {
            self.errors.reset();
        }
        let hold = self.stance == Stance::Running && self.links.main().is_none() && is_error(&end);
        if hold {
            self.stance = Stance::Holding(Some(now + self.errors.pause(&mut self.random)));
            self.dial_at = None;
        }
        match negotiated {
            Some(negotiated) if side == Side::Main => {
                let graceful = end.is_graceful(negotiated.graceful_restart.as_ref());
                out.push(Action::Down { graceful, end });
            }
            _ if collision || end == End::Lost => {}
            _ => out.push(Action::Notice(Notice::AttemptEnded(end))),
        }
        if hold {
            // An error on one connection holds the other, too.
            for side in Side::ALL {
                self.event(side, Event::Stop(Notification::new(Cease::ConnectionRejected)), now, out);
            }
        } else if self.stance == Stance::Running && side == Side::Incoming {
            self.event(Side::Incoming, Event::StartPassive, now, out);
        }
    }
}

/// Whether trying again at once would only bring the same again.
fn is_error(end: &End) -> bool {
    let (End::Sent(why) | End::Received(why)) = end else { return false };
    let harmless = [
        Cease::AdministrativeReset,
        Cease::ConnectionRejected,
        Cease::OtherConfigurationChange,
        Cease::ConnectionCollision,
    ];
    !harmless.into_iter().any(|reason| why.is_cease(reason))
}

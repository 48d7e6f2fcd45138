//! The timers of a session (RFC 4271 section 10, RFC 9687): moments, compared with the time given.

use std::time::Instant;

use super::Event;

/// When each expires; `None` while it does not run.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) connect_retry: Option<Instant>,
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    pub(super) send_hold: Option<Instant>,
}

impl Timers {
    /// The first to expire.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.connect_retry, self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }

    /// Stops one that is due and says so. The hold timer comes first: who is gone needs no KEEPALIVE.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Event> {
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.hold) {
            Some(Event::HoldExpired)
        } else if due(&mut self.send_hold) {
            Some(Event::SendHoldExpired)
        } else if due(&mut self.keepalive) {
            Some(Event::KeepaliveExpired)
        } else if due(&mut self.connect_retry) {
            Some(Event::ConnectRetryExpired)
        } else {
            None
        }
    }
}

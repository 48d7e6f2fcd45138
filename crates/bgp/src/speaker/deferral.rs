//! Selection waits after a restart of ours, until the peers have told us everything again (RFC 4724 section 4.1).
//!
//! Decided from what the peers negotiated: a family waits for End-of-RIB of those that promised one. Peers that do not
//! restart gracefully, that carry another family or that have just restarted themselves are not waited for. Neither
//! are, after half a minute, peers that did not come up: they are as likely gone for good.

use std::time::{Duration, Instant};

use super::peer::Peer;
use crate::families::Families;
use crate::family::Family;

/// How long to wait for peers that do not come up.
pub const ABSENT_PEERS_WAIT: Duration = Duration::from_secs(30);

/// The wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deferral {
    /// Families that wait.
    pub(super) families: Families,
    absent_until: Instant,
    until: Instant,
}

impl Deferral {
    /// Begins now and lasts for `longest`.
    pub(super) fn new(now: Instant, longest: Duration) -> Self {
        let absent_until = now + longest.min(ABSENT_PEERS_WAIT);
        Deferral { families: Families::all(), absent_until, until: now + longest }
    }

    /// When to look again if nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        if now < self.absent_until { self.absent_until } else { self.until }
    }

    /// Whether the family has to wait for any of these peers. O(peers).
    pub(super) fn waits<'a>(
        &self,
        family: Family,
        mut peers: impl Iterator<Item = &'a Peer>,
        now: Instant,
    ) -> bool {
        now < self.until && peers.any(|peer| self.waits_for(family, peer, now))
    }

    fn waits_for(&self, family: Family, peer: &Peer, now: Instant) -> bool {
        let Some(session) = &peer.session else {
            return !peer.was_up && now < self.absent_until;
        };
        let promised = session
            .graceful_restart
            .as_ref()
            .is_some_and(|restart| !restart.restarting && restart.families.contains(family));
        promised && session.families.contains(family) && !peer.end_of_rib.contains(family)
    }
}

//! What the BGP speaker notices about one peer, as log lines.
//!
//! Decided here: what somebody has to know, which is a warning, and how often one peer may cause it. A peer whose updates
//! are malformed may send thousands a second: they are counted ([`crate::status::peers::faults`]), and said now and then.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::graceful_restart::End;
use bgp::peer::Notice;
use bgp::wire::{Fault, Outcome};

use crate::network_routes::peers::TOO_MANY_PREFIXES_PAUSE;

/// Time between two warnings about malformed updates of one peer.
const PAUSE: Duration = Duration::from_secs(60);

/// RFC 4271 section 4.5.
const OPEN_MESSAGE_ERROR: u8 = 2;

/// What has been said of malformed updates, by peer. As many entries as there are peers that ever sent one.
#[derive(Debug, Default)]
pub(super) struct Faults(HashMap<IpAddr, Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    /// Faults since then.
    unsaid: u64,
}

impl Faults {
    /// Counts one. How many a warning stands for now, or none if the last one is not long ago. O(1).
    fn due(&mut self, peer: IpAddr, now: Instant) -> Option<u64> {
        let said = self.0.entry(peer).or_default();
        said.unsaid += 1;
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

/// Writes the line.
pub(super) fn say(peer: IpAddr, notice: &Notice, faults: &mut Faults, now: Instant) {
    match notice {
        Notice::AttemptEnded(end) if is_about_the_open(end) => match faults.due(peer, now) {
            Some(count) => tracing::warn!(
                %peer, count,
                "BGP: the two speakers do not agree on a session: {end:?}; compare AS numbers, router ids and hold times \
                 at both ends"
            ),
            None => tracing::debug!(%peer, "BGP: an attempt to connect ended: {end:?}"),
        },
        Notice::AttemptEnded(end) => tracing::debug!(%peer, "BGP: an attempt to connect ended: {end:?}"),
        Notice::Fault(fault) => match faults.due(peer, now) {
            Some(count) => tracing::warn!(%peer, count, "BGP: {}", malformed(fault)),
            None => tracing::debug!(%peer, "BGP: {}", malformed(fault)),
        },
        Notice::ManyPrefixes { family, count, limit } => {
            tracing::warn!(
                %peer, count, bound = limit,
                "BGP: the peer has told many prefixes ({family}): above the bound of --bgp-max-prefixes its session ends"
            );
        }
        Notice::TooManyPrefixes { family, count, limit } => {
            let minutes = TOO_MANY_PREFIXES_PAUSE.as_secs() / 60;
            tracing::warn!(
                %peer, count, bound = limit,
                "BGP: the peer has told too many prefixes ({family}): its session is ended, and it is left alone for \
                 {minutes} minutes; if it should tell so many, raise --bgp-max-prefixes"
            );
        }
    }
}

/// Whether a session was refused for what one of the two says of itself (RFC 4271 section 6.2): that needs somebody to
/// mend it, and no attempt will bring anything else.
fn is_about_the_open(end: &End) -> bool {
    let (End::Sent(why) | End::Received(why)) = end else { return false };
    why.code == OPEN_MESSAGE_ERROR
}

/// What was wrong and what became of it (RFC 7606).
fn malformed(fault: &Fault) -> String {
    let what = match fault.outcome {
        Outcome::AttributeDiscard => "the attribute is left out",
        Outcome::TreatAsWithdraw => "its prefixes are taken as withdrawn",
        Outcome::SessionReset => "the session is ended",
    };
    let Fault { attribute, error, .. } = fault;
    format!("a malformed update ({error:?}, path attribute {attribute}): {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_warned_about_once_a_minute_with_the_number_of_faults() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::now();
        let mut faults = Faults::default();
        assert_eq!(faults.due(one, start), Some(1));
        for millis in 1..=500 {
            assert_eq!(faults.due(one, start + Duration::from_millis(millis)), None);
        }
        assert_eq!(faults.due(other, start), Some(1), "each peer for itself");
        assert_eq!(faults.due(one, start + PAUSE), Some(501));
        assert_eq!(faults.due(one, start + PAUSE), None);
    }
}

//! What the BGP speaker says of its peers, added to what the routes controller knows of them.
//!
//! Decided here: the words for what a peer did wrong. They are labels of metrics, too, so they stay as they are.

use std::net::IpAddr;
use std::time::Instant;

use bgp::driver::PeerReport;
use bgp::rib::Refusal;

use super::PeerState;

/// Adds the speaker's report. Peers that are no nodes are known from it alone; one that is not in it is not configured
/// yet. O(peers²), and they are few.
pub fn add(peers: &mut Vec<PeerState>, reports: &[PeerReport], now: Instant) {
    for report in reports {
        let address = report.peer.to_string();
        let at = peers.iter().position(|peer| peer.address == address).unwrap_or_else(|| {
            peers.push(PeerState { address, ..PeerState::default() });
            peers.len() - 1
        });
        if let Some(peer) = peers.get_mut(at) {
            fill(peer, report, now);
        }
    }
    peers.sort_by_key(|peer| (peer.node.is_none(), peer.address.parse::<IpAddr>().ok()));
}

fn fill(peer: &mut PeerState, report: &PeerReport, now: Instant) {
    let status = &report.status;
    let history = &status.history;
    peer.state = if status.stopped { "stopped".to_owned() } else { status.state.to_string() };
    peer.asn = status.negotiated.as_ref().map(|negotiated| negotiated.peer_asn.get());
    let up = status.negotiated.as_ref().and(history.since);
    peer.up_seconds = up.map(|since| now.saturating_duration_since(since).as_secs());
    peer.established = history.established;
    peer.received = report.received.iter().map(|(_, prefixes)| prefixes).sum();
    peer.told = report.told.iter().map(|(_, prefixes)| prefixes).sum();
    peer.retry_seconds = status.resumes.map(|at| at.saturating_duration_since(now).as_secs());
    let named = |counts: Vec<(&'static str, u64)>| {
        counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
    };
    peer.refused = named(refused(report));
    peer.faults = named(faults(report));
    let received = history.last_received.as_ref().map(|said| format!("from it: {said}"));
    let sent = history.last_sent.as_ref().map(|said| format!("to it: {said}"));
    peer.last_error = if history.sent_last { sent.or(received) } else { received.or(sent) };
}

/// Announcements of a peer that could not be used when they came, by reason; reasons that did not occur are left out.
pub fn refused(report: &PeerReport) -> Vec<(&'static str, u64)> {
    let all = Refusal::ALL.into_iter().map(|why| (reason(why), report.counters.refused(why)));
    all.filter(|(_, count)| *count > 0).collect()
}

const fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::OwnAs => "own_as",
        Refusal::OwnOriginatorId => "own_originator_id",
        Refusal::OwnClusterId => "own_cluster_id",
        Refusal::MartianNextHop => "martian_next_hop",
        Refusal::MartianPrefix => "martian_prefix",
        Refusal::Policy => "policy",
        Refusal::NoPolicy => "no_policy",
    }
}

/// What else a peer did wrong, by reason: malformed updates (RFC 7606) whose prefixes were taken as withdrawn, attributes
/// discarded, sessions ended for too many prefixes, sessions with the router id of another peer. What did not occur is
/// left out.
pub fn faults(report: &PeerReport) -> Vec<(&'static str, u64)> {
    let history = &report.status.history;
    let all = [
        ("treated_as_withdraw", history.treated_as_withdraw),
        ("attribute_discarded", history.attributes_discarded),
        ("too_many_prefixes", history.too_many_prefixes),
        ("duplicate_router_id", report.counters.duplicate_router_id),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bgp::config::RemoteAsn;
    use bgp::peer::{History, Status};
    use bgp::session::State;
    use bgp::speaker::Counters;
    use bgp::wire::Notification;
    use bgp::wire::notification::{Cease, OpenError};

    use super::*;

    fn report(history: History, resumes: Option<Instant>) -> PeerReport {
        PeerReport {
            peer: "192.0.2.1".parse().unwrap(),
            remote_asn: RemoteAsn::Any,
            status: Status { state: State::Idle, stopped: false, resumes, negotiated: None, history },
            received: Vec::new(),
            told: Vec::new(),
            counters: Counters::default(),
        }
    }

    fn shown(history: History) -> PeerState {
        let now = Instant::now();
        let mut peers = Vec::new();
        let mut report = report(history, Some(now + Duration::from_secs(1799)));
        report.counters.duplicate_router_id = 2;
        add(&mut peers, &[report], now);
        peers.remove(0)
    }

    #[test]
    fn the_newer_of_two_errors_is_shown() {
        let (told, heard) =
            (Notification::new(Cease::MaximumPrefixes), Notification::new(OpenError::BadPeerAs));
        let both = |sent_last| History {
            last_sent: Some(told.clone()),
            last_received: Some(heard.clone()),
            sent_last,
            ..History::default()
        };
        assert_eq!(shown(both(true)).last_error, Some(format!("to it: {told}")));
        assert_eq!(shown(both(false)).last_error, Some(format!("from it: {heard}")));
        assert_eq!(shown(History::default()).last_error, None);
    }

    #[test]
    fn what_a_peer_did_wrong_is_counted_by_reason() {
        let peer = shown(History { too_many_prefixes: 1, attributes_discarded: 3, ..History::default() });
        let faults: Vec<(&str, u64)> =
            peer.faults.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        assert_eq!(
            faults,
            [("attribute_discarded", 3), ("duplicate_router_id", 2), ("too_many_prefixes", 1)]
        );
        assert!(peer.refused.is_empty());
        assert_eq!(peer.retry_seconds, Some(1799));
    }
}

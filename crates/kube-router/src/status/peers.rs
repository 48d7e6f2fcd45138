//! What the BGP speaker says of its peers, added to what the routes controller knows of them.

use std::net::IpAddr;
use std::time::Instant;

use bgp::driver::PeerReport;

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
    let received = history.last_received.as_ref().map(|said| format!("from it: {said}"));
    peer.last_error = received.or_else(|| history.last_sent.as_ref().map(|said| format!("to it: {said}")));
}

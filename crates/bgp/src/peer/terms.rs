//! What a peer's configuration means for its sessions.

use std::net::IpAddr;

use super::Identity;
use crate::config::PeerConfig;
use crate::families::Families;
use crate::graceful_restart;
use crate::session::Terms;

/// What we bring to a session with this peer. IPv4 prefixes over IPv6 next hops are for sessions over IPv6, where a router
/// may have no other address to offer. `met`: a session with it has been up since the start.
pub(super) fn terms(remote: IpAddr, config: &PeerConfig, identity: &Identity, met: bool) -> Terms {
    let restart = identity.graceful_restart.as_ref().filter(|_| config.graceful_restart);
    Terms {
        asn: identity.asn,
        router_id: identity.router_id,
        hold_time: u16::try_from(config.hold_time.as_secs()).unwrap_or(u16::MAX),
        remote_asn: config.remote_asn,
        families: config.families,
        extended_next_hop: remote.is_ipv6(),
        graceful_restart: restart.map(|restart| graceful_restart::offer(restart, config.families, met)),
    }
}

/// The terms without what changes by itself: when our restart is over, and once the peer was up.
pub(super) fn agreed(terms: &Terms) -> Terms {
    let mut terms = terms.clone();
    if let Some(restart) = &mut terms.graceful_restart {
        restart.restarting = false;
        restart.forwarding_kept = Families::NONE;
    }
    terms
}

//! A peer, as far as routes are concerned.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::event::Counters;
use super::rules::Neighbour;
use crate::config::Role;
use crate::families::Families;
use crate::negotiated::Negotiated;

/// A configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) role: Role,
    /// While it is up.
    pub(super) session: Option<Arc<Negotiated>>,
    /// Since it was up first: its paths may outlive the session.
    pub(super) neighbour: Option<Neighbour>,
    /// It has been up since it was configured.
    pub(super) was_up: bool,
    /// It has told something in this session: a path, an end of one, or End-of-RIB.
    pub(super) has_told: bool,
    /// Families in which it has told everything in this session.
    pub(super) end_of_rib: Families,
    /// Families in which it is telling everything again, between its marks (RFC 7313).
    pub(super) refreshing: Families,
    /// When its stale paths go.
    pub(super) stale_until: Option<Instant>,
    /// When they were to go as its last session ended, had it not come back.
    pub(super) back_by: Option<Instant>,
    pub(super) counters: Counters,
}

impl Peer {
    pub(super) fn new(address: IpAddr, role: Role) -> Self {
        Peer {
            address,
            role,
            session: None,
            neighbour: None,
            was_up: false,
            has_told: false,
            end_of_rib: Families::NONE,
            refreshing: Families::NONE,
            stale_until: None,
            back_by: None,
            counters: Counters::default(),
        }
    }
}

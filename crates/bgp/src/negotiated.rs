//! What two speakers agreed on in their OPEN messages: the facts everything after them depends on.
//!
//! Decided in [`crate::session`] from both OPENs; read by the wire (how to write a path), by the table (what kind of
//! peer this is) and by graceful restart. Never changes while the session is up.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::asn::Asn;
use crate::families::Families;

/// On which side of our border a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// Same AS number as ours.
    Internal,
    /// Another one.
    External,
}

/// The agreement of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Our AS number.
    pub local_asn: Asn,
    /// Our router id.
    pub local_router_id: Ipv4Addr,
    /// Our end of the connection: the next hop "self".
    pub local_address: IpAddr,
    /// The peer's AS number, four octets wide where it has them.
    pub peer_asn: Asn,
    /// The peer's router id.
    pub peer_router_id: Ipv4Addr,
    /// The peer's end of the connection.
    pub peer_address: IpAddr,
    /// Whether the AS numbers are the same.
    pub kind: PeerKind,
    /// The shorter of both hold times; zero means that nobody watches the other.
    pub hold_time: Duration,
    /// Families both sides carry.
    pub families: Families,
    /// AS numbers are four octets wide in AS_PATH and AGGREGATOR (RFC 6793).
    pub four_octet_asn: bool,
    /// Either side may ask for the other's routes again (RFC 2918).
    pub route_refresh: bool,
    /// Such an answer has a marked beginning and end (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Families of IPv4 prefixes whose next hop may be an IPv6 address (RFC 8950).
    pub extended_next_hop: Families,
    /// Both sides restart gracefully (RFC 4724): what the peer said about itself.
    pub graceful_restart: Option<PeerRestart>,
}

/// The peer's graceful restart capability, as far as it concerns families of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRestart {
    /// R bit: the peer has just restarted and waits for our End-of-RIB.
    pub restarting: bool,
    /// N bit on both sides: a NOTIFICATION, too, ends the session gracefully (RFC 8538).
    pub notification: bool,
    /// How long to keep the peer's paths while it is away: at most 4095 s.
    pub restart_time: Duration,
    /// Families whose paths survive the peer's absence.
    pub families: Families,
    /// Of these, the ones whose forwarding state survived the peer's last restart (F bit).
    pub forwarding_kept: Families,
}

impl Negotiated {
    /// Whether the peer is in our AS.
    pub fn is_internal(&self) -> bool {
        self.kind == PeerKind::Internal
    }
}

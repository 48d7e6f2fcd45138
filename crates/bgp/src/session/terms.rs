//! What we bring to a session, and what comes of it with the peer's OPEN.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::asn::Asn;
use crate::config::RemoteAsn;
use crate::families::Families;
use crate::family::Family;
use crate::graceful_restart;
use crate::negotiated::{Negotiated, PeerKind};
use crate::wire::notification::OpenError;
use crate::wire::{Capabilities, Notification, Open, RestartCapability};

/// Our side of the bargain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Our AS number.
    pub asn: Asn,
    /// Our router id.
    pub router_id: Ipv4Addr,
    /// Our hold time in seconds: zero or at least three.
    pub hold_time: u16,
    /// What the peer must be.
    pub remote_asn: RemoteAsn,
    /// Families we carry.
    pub families: Families,
    /// We take IPv4 prefixes with IPv6 next hops.
    pub extended_next_hop: bool,
    /// Graceful restart, if we do it.
    pub graceful_restart: Option<RestartCapability>,
}

impl Terms {
    /// The OPEN that says so.
    pub fn open(&self) -> Open {
        Open {
            asn: self.asn.get(),
            hold_time: self.hold_time,
            router_id: self.router_id,
            capabilities: Capabilities {
                families: self.families,
                route_refresh: true,
                enhanced_route_refresh: true,
                four_octet_asn: true,
                extended_next_hop: self.extended_next_hop(),
                graceful_restart: self.graceful_restart,
            },
        }
    }

    fn extended_next_hop(&self) -> Families {
        let offered = self.extended_next_hop.then_some(Family::Ipv4Unicast);
        offered.into_iter().collect::<Families>().and(self.families)
    }

    /// What both OPENs come to.
    ///
    /// # Errors
    /// The NOTIFICATION for a peer that is not whom we expect (RFC 4271 section 6.2, RFC 6286, RFC 5492).
    pub fn negotiate(&self, open: &Open, ends: Ends) -> Result<Negotiated, Notification> {
        let bad_as = || Notification::new(OpenError::BadPeerAs);
        let peer_asn = Asn::new(open.asn).map_err(|_| bad_as())?;
        let expected = match self.remote_asn {
            RemoteAsn::Exactly(asn) => peer_asn == asn,
            RemoteAsn::Internal => peer_asn == self.asn,
            RemoteAsn::External => peer_asn != self.asn,
            RemoteAsn::Any => true,
        };
        if !expected {
            return Err(bad_as());
        }
        let kind = if peer_asn == self.asn { PeerKind::Internal } else { PeerKind::External };
        if kind == PeerKind::Internal && open.router_id == self.router_id {
            return Err(Notification::with(OpenError::BadIdentifier, open.router_id.octets()));
        }
        let theirs = &open.capabilities;
        let families = self.families.and(theirs.families);
        if families.is_empty() {
            return Err(Notification::with(OpenError::UnsupportedCapability, self.family_capabilities()));
        }
        let graceful_restart = graceful_restart::agree(
            self.graceful_restart.as_ref(),
            theirs.graceful_restart.as_ref(),
            families,
        );
        Ok(Negotiated {
            local_asn: self.asn,
            local_router_id: self.router_id,
            local_address: ends.local,
            peer_asn,
            peer_router_id: open.router_id,
            peer_address: ends.remote,
            kind,
            hold_time: Duration::from_secs(self.hold_time.min(open.hold_time).into()),
            families,
            four_octet_asn: theirs.four_octet_asn,
            route_refresh: theirs.route_refresh,
            enhanced_route_refresh: theirs.route_refresh && theirs.enhanced_route_refresh,
            extended_next_hop: self.extended_next_hop().and(theirs.extended_next_hop),
            graceful_restart,
        })
    }

    /// Our families as capabilities: what a NOTIFICATION about a missing one quotes.
    fn family_capabilities(&self) -> Vec<u8> {
        let capability = |family: Family| {
            let [high, low] = family.afi().to_be_bytes();
            [1, 4, high, low, 0, family.safi()]
        };
        self.families.iter().flat_map(capability).collect()
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
}

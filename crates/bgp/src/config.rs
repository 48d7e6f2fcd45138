//! What a caller may ask of a speaker.
//!
//! A [`Config`] is the whole wish; a new one replaces the old. [`Config::objections`] says once what in it cannot be
//! used: a peer with a fault is left out and everything else goes on. Values that cannot be wrong by type
//! ([`Asn`], [`Password`]) are not looked at again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::asn::Asn;
use crate::families::Families;
use crate::password::Password;

/// The port of BGP (RFC 4271 section 4).
pub const BGP_PORT: u16 = 179;

/// The whole wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS number.
    pub asn: Asn,
    /// Our router id (BGP Identifier): not 0.0.0.0, unique among speakers of this AS.
    pub router_id: Ipv4Addr,
    /// Cluster id as a route reflector (RFC 4456); the router id if not given.
    pub cluster_id: Option<Ipv4Addr>,
    /// Where to listen; any addresses, any ports, none for a speaker that only dials.
    pub listen: Vec<SocketAddr>,
    /// Graceful restart (RFC 4724), if on.
    pub graceful_restart: Option<GracefulRestart>,
    /// Peers by their address.
    pub peers: BTreeMap<IpAddr, PeerConfig>,
}

/// How we restart, and bear with peers that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long peers are asked to wait for us: whole seconds, at most 4095.
    pub restart_time: Duration,
    /// How long selection waits for the peers' End-of-RIB after a restart of ours.
    pub deferral: Duration,
    /// How long a peer that is back may take to confirm its old paths before they are dropped.
    pub stale_time: Duration,
    /// This process follows one whose paths the peers may have kept (R bit until the deferral has ended).
    pub restarting: bool,
    /// Families whose routes stayed in the kernel meanwhile (F bit). The caller says the truth.
    pub forwarding_kept: Families,
}

/// What a peer must say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAsn {
    /// This number.
    Exactly(Asn),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Any,
}

/// How far packets of the session may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// One hop to an external peer, as far as the system lets them to an internal one.
    #[default]
    ByKind,
    /// At most so many hops, 1 to 255.
    Multihop(u8),
    /// GTSM (RFC 5082): sent with 255, accepted if they came over at most so many hops, 1 to 254. Both sides must do so.
    Security(u8),
}

/// How many prefixes of each family a peer may tell us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// More than this end the session; four fifths of it are worth a warning.
    pub limit: u32,
    /// After how long to try again; never, if not given, until the peer is changed or restarted by hand.
    pub restart_after: Option<Duration>,
}

/// What routes a peer gets from an internal peer's (RFC 4456). External peers are always `Plain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// No reflection.
    #[default]
    Plain,
    /// We reflect routes to and from it.
    ReflectorClient,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its AS number.
    pub remote_asn: RemoteAsn,
    /// Its port, when we dial.
    pub port: u16,
    /// Our end of the connection; the system's choice if not given. Of the peer's family.
    pub local_address: Option<IpAddr>,
    /// Wait for it to dial.
    pub passive: bool,
    /// Signs every segment (RFC 2385).
    pub password: Option<Password>,
    /// How far it may be away.
    pub ttl: Ttl,
    /// Time without a word after which it counts as gone: zero (never) or 3 s to 65535 s, whole seconds.
    pub hold_time: Duration,
    /// First and longest pause between attempts to connect; doubled from one to the next.
    pub connect_retry: (Duration, Duration),
    /// Families offered.
    pub families: Families,
    /// Offer graceful restart, if the speaker has it on.
    pub graceful_restart: bool,
    /// Bound on what it may tell us.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Reflector client or not.
    pub role: Role,
}

impl PeerConfig {
    /// A peer with the defaults: port 179, hold time 90 s, both families, graceful restart if the speaker has it.
    pub fn new(remote_asn: RemoteAsn) -> Self {
        PeerConfig {
            remote_asn,
            port: BGP_PORT,
            local_address: None,
            passive: false,
            password: None,
            ttl: Ttl::default(),
            hold_time: Duration::from_secs(90),
            connect_retry: (Duration::from_millis(500), Duration::from_secs(30)),
            families: Families::all(),
            graceful_restart: true,
            max_prefixes: None,
            role: Role::default(),
        }
    }
}

/// Something in a [`Config`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The peer it concerns, which is left out; `None` for the speaker itself, which then keeps its old configuration.
    pub peer: Option<IpAddr>,
    /// The field, as named in [`Config`] or [`PeerConfig`].
    pub field: &'static str,
    /// Its value; never a password.
    pub value: String,
    /// What it must be.
    pub remedy: &'static str,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "peer {peer}: ")?,
            None => f.write_str("speaker: ")?,
        }
        write!(f, "{} {} {}", self.field, self.value, self.remedy)
    }
}

impl Config {
    /// Everything that cannot be used, the speaker's own fields first. O(peers).
    pub fn objections(&self) -> Vec<Objection> {
        let mut found = Vec::new();
        self.check_speaker(&mut |field, value, remedy| {
            found.push(Objection { peer: None, field, value, remedy });
        });
        for (address, peer) in &self.peers {
            peer.check(*address, self.asn, &mut |field, value, remedy| {
                found.push(Objection { peer: Some(*address), field, value, remedy });
            });
        }
        found
    }

    /// Without the peers there are objections to. O(peers).
    #[must_use]
    pub fn usable(&self) -> Config {
        let mut config = self.clone();
        for objection in self.objections() {
            if let Some(peer) = objection.peer {
                config.peers.remove(&peer);
            }
        }
        config
    }

    fn check_speaker(&self, object: &mut dyn FnMut(&'static str, String, &'static str)) {
        if !is_identifier(self.router_id) {
            object("router_id", self.router_id.to_string(), "must not be zero");
        }
        if let Some(id) = self.cluster_id.filter(Ipv4Addr::is_unspecified) {
            object("cluster_id", id.to_string(), "must not be zero");
        }
        if let Some(restart) = &self.graceful_restart {
            let time = restart.restart_time;
            if time.as_secs() > 4095 || time.subsec_nanos() != 0 {
                object(
                    "graceful_restart.restart_time",
                    format!("{time:?}"),
                    "must be whole seconds, at most 4095",
                );
            }
        }
    }
}

impl PeerConfig {
    fn check(&self, remote: IpAddr, ours: Asn, object: &mut dyn FnMut(&'static str, String, &'static str)) {
        if remote.is_unspecified() || remote.is_multicast() {
            object("address", remote.to_string(), "must be the address of one router");
        }
        if self.port == 0 && !self.passive {
            object("port", "0".to_owned(), "must be 1 to 65535 for a peer that is dialled");
        }
        if let Some(local) = self.local_address
            && (local.is_ipv4() != remote.is_ipv4() || local.is_unspecified())
        {
            object("local_address", local.to_string(), "must be an address of the peer's family");
        }
        let hold = self.hold_time;
        if !hold.is_zero() && (hold.as_secs() < 3 || hold.as_secs() > 65_535 || hold.subsec_nanos() != 0) {
            object("hold_time", format!("{hold:?}"), "must be zero or whole seconds from 3 to 65535");
        }
        let (first, longest) = self.connect_retry;
        if first.is_zero() || longest < first {
            object("connect_retry", format!("{first:?}, {longest:?}"), "must be above zero and not shrink");
        }
        match self.ttl {
            Ttl::Multihop(0) => object("ttl", "multihop 0".to_owned(), "must be 1 to 255 hops"),
            Ttl::Security(hops @ (0 | 255)) => {
                object("ttl", format!("security {hops}"), "must be 1 to 254 hops");
            }
            _ => {}
        }
        if self.families.is_empty() {
            object("families", "{}".to_owned(), "must name one family at least");
        }
        if let Some(MaxPrefixes { limit: 0, .. }) = self.max_prefixes {
            object("max_prefixes", "0".to_owned(), "must be above zero; leave it out for no bound");
        }
        let internal = match self.remote_asn {
            RemoteAsn::Exactly(asn) => asn == ours,
            RemoteAsn::External => false,
            RemoteAsn::Internal | RemoteAsn::Any => true,
        };
        if self.role == Role::ReflectorClient && !internal {
            object("role", "reflector client".to_owned(), "is for peers of our own AS");
        }
    }
}

/// Whether four octets can identify a router: any but zero (RFC 6286 section 2.1, in place of RFC 4271's unicast address).
pub(crate) const fn is_identifier(id: Ipv4Addr) -> bool {
    !id.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let peer = PeerConfig::new(RemoteAsn::Internal);
        Config {
            asn: Asn::DEFAULT,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            cluster_id: None,
            listen: Vec::new(),
            graceful_restart: None,
            peers: BTreeMap::from([("192.0.2.2".parse().unwrap(), peer)]),
        }
    }

    fn peer_objection(change: impl FnOnce(&mut PeerConfig)) -> Vec<String> {
        let mut config = config();
        change(config.peers.values_mut().next().unwrap());
        config.objections().iter().map(Objection::to_string).collect()
    }

    #[test]
    fn the_defaults_are_fine() {
        assert_eq!(config().objections(), []);
    }

    #[test]
    fn names_peer_field_value_and_remedy() {
        assert_eq!(
            peer_objection(|peer| peer.hold_time = Duration::from_secs(2)),
            ["peer 192.0.2.2: hold_time 2s must be zero or whole seconds from 3 to 65535"]
        );
        for bad in [
            (|peer: &mut PeerConfig| peer.port = 0) as fn(&mut PeerConfig),
            |peer| peer.local_address = Some("2001:db8::1".parse().unwrap()),
            |peer| peer.ttl = Ttl::Multihop(0),
            |peer| peer.ttl = Ttl::Security(255),
            |peer| peer.families = Families::NONE,
            |peer| peer.max_prefixes = Some(MaxPrefixes { limit: 0, restart_after: None }),
            |peer| peer.connect_retry = (Duration::ZERO, Duration::ZERO),
            |peer| {
                peer.remote_asn = RemoteAsn::External;
                peer.role = Role::ReflectorClient;
            },
        ] {
            assert_eq!(peer_objection(bad).len(), 1);
        }
    }

    #[test]
    fn the_speakers_own_fields() {
        let mut config = config();
        config.router_id = Ipv4Addr::UNSPECIFIED;
        config.cluster_id = Some(Ipv4Addr::UNSPECIFIED);
        let fields: Vec<_> = config.objections().iter().map(|objection| objection.field).collect();
        assert_eq!(fields, ["router_id", "cluster_id"]);
    }
}

//! The configuration file. Fields that are not known are refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bgp::config::{GracefulRestart, MaxPrefixes, RemoteAsn, Role, Ttl};
use bgp::policy::{Actions, Conditions, NextHopAction, Policy, PrefixRange, PrefixSet, Statement, Verdict};
use bgp::rib::Multipath;
use bgp::speaker::Routing;
use bgp::{Asn, Attributes, Config, Families, Family, Password, PeerConfig};
use ipnet::IpNet;
use serde::Deserialize;

/// Name of the set of peers that are told our own address as next hop.
const NEXT_HOP_SELF: &str = "next-hop-self";

/// Paths to announce.
pub(crate) type Networks = BTreeMap<IpNet, Attributes>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    asn: u32,
    router_id: Ipv4Addr,
    #[serde(default)]
    cluster_id: Option<Ipv4Addr>,
    listen: Vec<IpAddr>,
    port: u16,
    #[serde(default = "one")]
    maximum_paths: u16,
    #[serde(default)]
    restarting: bool,
    #[serde(default)]
    graceful_restart: Option<Restart>,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    networks: Vec<Network>,
}

const fn one() -> u16 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    restart_seconds: u64,
    deferral_seconds: u64,
    #[serde(default)]
    forwarding_kept: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: IpAddr,
    asn: u32,
    port: u16,
    #[serde(default)]
    local_address: Option<IpAddr>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    ttl: Option<Hops>,
    hold_seconds: u64,
    families: Vec<FamilyName>,
    #[serde(default)]
    reflector_client: bool,
    #[serde(default)]
    next_hop_self: bool,
    #[serde(default)]
    max_prefix: Option<Bound>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Hops {
    Multihop(u8),
    Gtsm(u8),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FamilyName {
    Ipv4Unicast,
    Ipv6Unicast,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    limit: u32,
    #[serde(default)]
    restart_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    prefix: IpNet,
    #[serde(default)]
    next_hop: Option<IpAddr>,
    #[serde(default)]
    med: Option<u32>,
    #[serde(default)]
    local_pref: Option<u32>,
    #[serde(default)]
    communities: Vec<String>,
    #[serde(default)]
    large_communities: Vec<String>,
}

impl File {
    pub(crate) fn speaker(&self) -> Result<Config, String> {
        let peers = self.peers.iter().map(|peer| Ok((peer.address, peer.read()?)));
        Ok(Config {
            asn: Asn::new(self.asn).map_err(|error| format!("asn {}: {error}", self.asn))?,
            router_id: self.router_id,
            cluster_id: self.cluster_id,
            listen: self.listen.iter().map(|address| SocketAddr::new(*address, self.port)).collect(),
            graceful_restart: self.graceful_restart.as_ref().map(|restart| GracefulRestart {
                restart_time: Duration::from_secs(restart.restart_seconds),
                deferral: Duration::from_secs(restart.deferral_seconds),
                stale_time: Duration::from_secs(360),
                restarting: self.restarting,
                forwarding_kept: if restart.forwarding_kept { Families::all() } else { Families::NONE },
            }),
            peers: peers.collect::<Result<_, String>>()?,
        })
    }

    pub(crate) fn routing(&self) -> Routing {
        let ours: PrefixSet = self
            .peers
            .iter()
            .filter(|peer| peer.next_hop_self)
            .map(|peer| PrefixRange::from(peer.address))
            .collect();
        let export = Policy {
            statements: vec![Statement {
                name: NEXT_HOP_SELF.to_owned(),
                when: Conditions { neighbours: Some(NEXT_HOP_SELF.into()), ..Conditions::default() },
                then: Actions { next_hop: Some(NextHopAction::Ours), ..Actions::default() },
                verdict: Some(Verdict::Accept),
            }],
            default: Verdict::Accept,
        };
        Routing {
            export: Some(export),
            external_needs_policy: false,
            sets: BTreeMap::from([(NEXT_HOP_SELF.into(), ours)]),
            multipath: Multipath { paths: self.maximum_paths, relaxed: true },
            addresses: self.listen.clone(),
            ..Routing::default()
        }
    }

    pub(crate) fn networks(&self) -> Result<Networks, String> {
        self.networks.iter().map(Network::read).collect()
    }
}

impl Peer {
    fn read(&self) -> Result<PeerConfig, String> {
        let asn = Asn::new(self.asn)
            .map_err(|error| format!("peer {}: asn {}: {error}", self.address, self.asn))?;
        let password = self.password.as_ref().map(Password::new).transpose();
        Ok(PeerConfig {
            port: self.port,
            local_address: self.local_address,
            passive: self.passive,
            password: password.map_err(|error| format!("peer {}: {error}", self.address))?,
            ttl: match self.ttl {
                None => Ttl::ByKind,
                Some(Hops::Multihop(hops)) => Ttl::Multihop(hops),
                Some(Hops::Gtsm(hops)) => Ttl::Security(hops),
            },
            hold_time: Duration::from_secs(self.hold_seconds),
            families: self.families.iter().copied().map(Family::from).collect(),
            max_prefixes: self.max_prefix.as_ref().map(|bound| MaxPrefixes {
                limit: bound.limit,
                restart_after: bound.restart_seconds.map(Duration::from_secs),
            }),
            role: if self.reflector_client { Role::ReflectorClient } else { Role::Plain },
            ..PeerConfig::new(RemoteAsn::Exactly(asn))
        })
    }
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::Ipv4Unicast => Family::Ipv4Unicast,
            FamilyName::Ipv6Unicast => Family::Ipv6Unicast,
        }
    }
}

impl Network {
    pub(crate) fn read(&self) -> Result<(IpNet, Attributes), String> {
        let ours: IpAddr = match self.prefix {
            IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut attributes = Attributes::local(self.next_hop.unwrap_or(ours));
        attributes.med = self.med;
        attributes.local_pref = self.local_pref;
        let bad =
            |text: &str, error: &dyn std::fmt::Display| format!("network {}: {text}: {error}", self.prefix);
        for text in &self.communities {
            attributes.communities.push(text.parse().map_err(|error| bad(text, &error))?);
        }
        for text in &self.large_communities {
            attributes.large_communities.push(text.parse().map_err(|error| bad(text, &error))?);
        }
        attributes.normalize();
        Ok((self.prefix.trunc(), attributes))
    }
}

//! Flags of the BGP speaker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ::bgp::Asn;

use super::duration::GoDuration;
use super::peers::{ExternalPeer, PeerLists};
use super::refusal::BadFlag;
use super::syntax::{List, Switch, Uint};
use crate::secret::Secret;

/// How the speaker runs and what it advertises, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "BGP")]
pub(super) struct BgpFlags {
    /// AS number of the cluster, 64512 to 65535 or 4200000000 to 4294967294; 0 is 64512
    #[arg(long, default_value = "0")]
    pub(super) cluster_asn: Uint<u64>,
    /// Port to listen on, and of peers within the cluster
    #[arg(long, default_value = "179")]
    bgp_port: Uint<u32>,
    /// Hold time with external peers, 3s to 65535s
    #[arg(long, default_value = "1m30s")]
    bgp_holdtime: GoDuration,
    /// Prefixes of each family a peer may tell; one that tells more is left alone for half an hour. 0 is no bound
    #[arg(long, default_value = "100000")]
    bgp_max_prefixes: Uint<u32>,
    /// Keep forwarding while the speaker restarts (RFC 4724)
    #[arg(long, default_value = "false")]
    bgp_graceful_restart: Switch,
    /// Time peers wait for a restart, at most 4095s
    #[arg(long, default_value = "1m30s")]
    bgp_graceful_restart_time: GoDuration,
    /// Time after a restart in which no path is selected yet, at most 18h
    #[arg(long, default_value = "6m0s")]
    bgp_graceful_restart_deferral_time: GoDuration,
    /// IPv4 address that identifies the speaker, or "generate" to make one from an IPv6 address
    #[arg(long, default_value = "")]
    router_id: String,
    /// Peer with the other nodes
    #[arg(long, default_value = "true")]
    enable_ibgp: Switch,
    /// Peer with every node; otherwise with those of the same AS annotation
    #[arg(long, default_value = "true")]
    nodes_full_mesh: Switch,
    /// Advertise pod networks to external peers
    #[arg(long, default_value = "true")]
    advertise_pod_cidr: Switch,
    /// Advertise cluster IPs to external peers
    #[arg(long, default_value = "false")]
    advertise_cluster_ip: Switch,
    /// Advertise external IPs to external peers
    #[arg(long, default_value = "false")]
    advertise_external_ip: Switch,
    /// Advertise load-balancer IPs to external peers
    #[arg(long, default_value = "false")]
    advertise_loadbalancer_ip: Switch,
    /// Advertise the ranges that services have their IPs from in place of each IP, but for IPs that only local endpoints serve
    #[arg(long, default_value = "false")]
    advertise_aggregate: Switch,
    /// Put this node as next hop into what external peers are told
    #[arg(long, default_value = "false")]
    override_nexthop: Switch,
    /// IP addresses of external peers of all nodes
    #[arg(long)]
    pub(super) peer_router_ips: Vec<List<IpAddr>>,
    /// AS numbers of these peers, one each
    #[arg(long)]
    pub(super) peer_router_asns: Vec<List<Uint<u32>>>,
    /// Ports of these peers, one each or none
    #[arg(long)]
    peer_router_ports: Vec<List<Uint<u32>>>,
    /// Passwords of these peers in base64, one each (blank for a peer without) or none
    #[arg(long)]
    peer_router_passwords: Vec<List<Secret>>,
    /// File with one line as --peer-router-passwords takes it
    #[arg(long, default_value = "")]
    peer_router_passwords_file: String,
    /// Hops external peers may be away; below 2 they must be neighbours
    #[arg(long, default_value = "0")]
    peer_router_multihop_ttl: Uint<u8>,
    /// Watch external peers with BFD (RFC 5880)
    #[arg(long, default_value = "false")]
    enable_bfd: Switch,
    /// UDP port of BFD
    #[arg(long, default_value = "3784")]
    bfd_port: Uint<u32>,
    /// Missed packets after which a peer is down, 1 to 255
    #[arg(long, default_value = "3")]
    bfd_detection_multiplier: Uint<u32>,
    /// Milliseconds between packets sent
    #[arg(long, default_value = "1000")]
    bfd_desired_min_tx_interval: Uint<u32>,
    /// Milliseconds between packets a peer may send
    #[arg(long, default_value = "1000")]
    bfd_required_min_rx_interval: Uint<u32>,
    /// Address of the administration server
    #[arg(long, default_value = "127.0.0.1")]
    gobgp_admin_address: String,
    /// Port of the administration server; 0 is no server
    #[arg(long, default_value = "50051")]
    gobgp_admin_port: Uint<u16>,
}

/// How the speaker runs and what it advertises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// The cluster's AS number; `None` if not given.
    pub asn: Option<Asn>,
    /// Port to listen on, and of peers within the cluster.
    pub port: u16,
    /// Hold time with external peers: whole seconds, 3 to 65535.
    pub hold_time: Duration,
    /// Prefixes of each family a peer may tell, above zero; `None` for no bound.
    pub max_prefixes: Option<u32>,
    /// Graceful restart, if on.
    pub graceful_restart: Option<GracefulRestart>,
    /// What identifies the speaker.
    pub router_id: RouterId,
    /// Peer with other nodes.
    pub ibgp: bool,
    /// Peer with every node.
    pub full_mesh: bool,
    /// What external peers are told.
    pub advertise: Advertise,
    /// Next hop self towards external peers.
    pub override_next_hop: bool,
    /// External peers of all nodes.
    pub peers: Vec<ExternalPeer>,
    /// Where their passwords stand, unless they were given as a flag.
    pub peer_passwords_file: Option<PathBuf>,
    /// Hops external peers may be away, 2 or more; `None` for neighbours.
    pub multihop_ttl: Option<u8>,
    /// BFD with external peers, if on.
    pub bfd: Option<Bfd>,
    /// The administration server, if on.
    pub admin: Option<SocketAddr>,
}

/// Times of graceful restart (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long peers wait: at most 4095 s.
    pub restart: Duration,
    /// How long selection waits for End-of-RIB: at most 18 h.
    pub deferral: Duration,
}

/// What identifies the speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterId {
    /// The node's primary address, which then must be IPv4.
    PrimaryAddress,
    /// A hash of the node's primary address.
    Generate,
    /// This one.
    Fixed(Ipv4Addr),
}

/// What external peers are told unless a service says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// The node's pod networks.
    pub pod_cidr: bool,
    /// Cluster IPs.
    pub cluster_ip: bool,
    /// External IPs.
    pub external_ip: bool,
    /// Load-balancer IPs.
    pub load_balancer_ip: bool,
    /// Ranges in place of the IPs in them.
    pub aggregate: bool,
}

/// Timing of BFD (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// UDP port packets are sent to.
    pub port: u16,
    /// Missed packets after which a peer is down, 1 to 255.
    pub multiplier: u8,
    /// Time between packets sent.
    pub min_tx: Duration,
    /// Time between packets a peer may send.
    pub min_rx: Duration,
}

impl Bgp {
    pub(super) fn read(flags: BgpFlags) -> Result<Self, BadFlag> {
        let bfd = Bfd {
            port: in_range("bfd-port", flags.bfd_port.0, 1, 65_535)?,
            multiplier: in_range("bfd-detection-multiplier", flags.bfd_detection_multiplier.0, 1, 255)?,
            min_tx: interval("bfd-desired-min-tx-interval", flags.bfd_desired_min_tx_interval.0)?,
            min_rx: interval("bfd-required-min-rx-interval", flags.bfd_required_min_rx_interval.0)?,
        };
        let restart = flags.bgp_graceful_restart.0.then(|| {
            Ok(GracefulRestart {
                restart: span("bgp-graceful-restart-time", flags.bgp_graceful_restart_time, 1, 4_095)?,
                deferral: span(
                    "bgp-graceful-restart-deferral-time",
                    flags.bgp_graceful_restart_deferral_time,
                    1,
                    18 * 3600,
                )?,
            })
        });
        Ok(Self {
            asn: cluster_asn(flags.cluster_asn.0)?,
            port: in_range("bgp-port", flags.bgp_port.0, 1, 65_535)?,
            hold_time: span("bgp-holdtime", flags.bgp_holdtime, 3, 65_535)?,
            max_prefixes: Some(flags.bgp_max_prefixes.0).filter(|bound| *bound > 0),
            graceful_restart: restart.transpose()?,
            router_id: router_id(&flags.router_id)?,
            ibgp: flags.enable_ibgp.0,
            full_mesh: flags.nodes_full_mesh.0,
            advertise: Advertise {
                pod_cidr: flags.advertise_pod_cidr.0,
                cluster_ip: flags.advertise_cluster_ip.0,
                external_ip: flags.advertise_external_ip.0,
                load_balancer_ip: flags.advertise_loadbalancer_ip.0,
                aggregate: flags.advertise_aggregate.0,
            },
            override_next_hop: flags.override_nexthop.0,
            peer_passwords_file: (flags.peer_router_passwords.is_empty()
                && !flags.peer_router_passwords_file.is_empty())
            .then(|| flags.peer_router_passwords_file.into()),
            peers: PeerLists {
                ips: flags.peer_router_ips,
                asns: flags.peer_router_asns,
                ports: flags.peer_router_ports,
                passwords: flags.peer_router_passwords,
            }
            .zip()?,
            multihop_ttl: Some(flags.peer_router_multihop_ttl.0).filter(|ttl| *ttl >= 2),
            bfd: flags.enable_bfd.0.then_some(bfd),
            admin: admin(&flags.gobgp_admin_address, flags.gobgp_admin_port.0)?,
        })
    }
}

fn cluster_asn(number: u64) -> Result<Option<Asn>, BadFlag> {
    let bad = |reason: String| BadFlag::new("cluster-asn", number, reason);
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Asn::local(number).map(Some).map_err(|error| bad(error.to_string())),
        Err(_) => Err(bad(::bgp::AsnError::NotANumber.to_string())),
    }
}

/// A number between `low` and `high`, which fit `T`.
pub(super) fn in_range<T: TryFrom<u32>>(flag: &str, value: u32, low: u32, high: u32) -> Result<T, BadFlag> {
    let inside = (low..=high).contains(&value);
    let number = if inside { T::try_from(value).ok() } else { None };
    number.ok_or_else(|| BadFlag::new(flag, value, format!("must be {low} to {high}")))
}

/// BFD carries microseconds in 32 bits (RFC 5880 section 4.1).
fn interval(flag: &str, millis: u32) -> Result<Duration, BadFlag> {
    in_range::<u32>(flag, millis, 1, 4_294_967).map(|millis| Duration::from_millis(millis.into()))
}

/// A time of at least `low` and at most `high` seconds. Messages carry whole ones; what is above them is left out, as
/// upstream does.
fn span(flag: &str, value: GoDuration, low: u64, high: u64) -> Result<Duration, BadFlag> {
    let seconds = value.to_std().map(|span| span.as_secs()).filter(|seconds| (low..=high).contains(seconds));
    let bad = || BadFlag::new(flag, value, format!("must be {low}s or more and at most {high}s"));
    seconds.map(Duration::from_secs).ok_or_else(bad)
}

fn router_id(text: &str) -> Result<RouterId, BadFlag> {
    match (text, text.parse::<Ipv4Addr>()) {
        ("", _) => Ok(RouterId::PrimaryAddress),
        ("generate", _) => Ok(RouterId::Generate),
        (_, Ok(id)) if !id.is_unspecified() => Ok(RouterId::Fixed(id)),
        _ => Err(BadFlag::new("router-id", text, "neither an IPv4 address nor \"generate\"")),
    }
}

fn admin(address: &str, port: u16) -> Result<Option<SocketAddr>, BadFlag> {
    let ip: IpAddr = match address {
        "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        text => text.parse().map_err(|_| BadFlag::new("gobgp-admin-address", text, "not an IP address"))?,
    };
    Ok((port != 0).then_some(SocketAddr::new(ip, port)))
}

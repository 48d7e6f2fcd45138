//! Flags of the service proxy.

use std::time::Duration;

use ipnet::IpNet;

use super::duration::GoDuration;
use super::refusal::{BadFlag, positive};
use super::syntax::{Cidr, List, Switch, items};

/// What the service proxy does, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Service proxy")]
pub(super) struct ServiceProxyFlags {
    /// Time between two audits of the kernel's state
    #[arg(long, default_value = "1m0s")]
    ipvs_sync_period: GoDuration,
    /// Let a removed endpoint finish its connections: weight 0 first, removal when idle or due
    #[arg(long, default_value = "false")]
    ipvs_graceful_termination: Switch,
    /// How long a removed endpoint may take when its pod is unknown
    #[arg(long, default_value = "30s")]
    ipvs_graceful_period: GoDuration,
    /// Accept traffic to services on their ports and reject the rest of what is sent to service addresses
    #[arg(long, default_value = "true")]
    ipvs_permit_all: Switch,
    /// CIDRs whose virtual servers belong to others and are never touched
    #[arg(long)]
    excluded_cidrs: Vec<List<Cidr>>,
    /// Masquerade all traffic to services
    #[arg(long, default_value = "false")]
    masquerade_all: Switch,
    /// Let the pods of every service reach themselves through it
    #[arg(long, default_value = "false")]
    hairpin_mode: Switch,
    /// Serve NodePorts on every local address instead of the node's own
    #[arg(long, default_value = "false")]
    nodeport_bindon_all_ip: Switch,
    /// Idle time after which IPVS forgets a TCP connection; 0 keeps the kernel's
    #[arg(long, default_value = "0s")]
    service_tcp_timeout: GoDuration,
    /// Time after which IPVS forgets a TCP connection that was closed; 0 keeps the kernel's
    #[arg(long, default_value = "0s")]
    service_tcpfin_timeout: GoDuration,
    /// Idle time after which IPVS forgets a UDP flow; 0 keeps the kernel's
    #[arg(long, default_value = "0s")]
    service_udp_timeout: GoDuration,
    /// CRI socket as unix:///path, asked for the pods of services with direct server return
    #[arg(long, default_value = "")]
    runtime_endpoint: String,
}

/// What the service proxy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProxy {
    /// Time between two audits of the kernel's state.
    pub sync_period: Duration,
    /// How long a removed endpoint of an unknown pod drains; `None` if removed endpoints do not drain.
    pub drain: Option<Duration>,
    /// Whether the service firewall holds its rules.
    pub service_firewall: bool,
    /// Virtual servers in these networks belong to others.
    pub excluded: Vec<IpNet>,
    /// Masquerade all traffic to services.
    pub masquerade_all: bool,
    /// Hairpin for every service.
    pub hairpin: bool,
    /// NodePorts on every local address.
    pub node_ports_everywhere: bool,
    /// Kernel-wide IPVS timeouts.
    pub timeouts: Timeouts,
    /// The CRI socket.
    pub runtime_socket: Option<String>,
}

/// Kernel-wide IPVS timeouts in whole seconds; `None` keeps what the kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Idle TCP connections.
    pub tcp: Option<u32>,
    /// Closed TCP connections.
    pub tcp_fin: Option<u32>,
    /// Idle UDP flows.
    pub udp: Option<u32>,
}

impl ServiceProxy {
    pub(super) fn read(flags: ServiceProxyFlags) -> Result<Self, BadFlag> {
        let period = positive("ipvs-graceful-period", flags.ipvs_graceful_period)?;
        Ok(Self {
            sync_period: positive("ipvs-sync-period", flags.ipvs_sync_period)?,
            drain: flags.ipvs_graceful_termination.0.then_some(period),
            service_firewall: flags.ipvs_permit_all.0,
            excluded: items(flags.excluded_cidrs).into_iter().map(|cidr| cidr.0).collect(),
            masquerade_all: flags.masquerade_all.0,
            hairpin: flags.hairpin_mode.0,
            node_ports_everywhere: flags.nodeport_bindon_all_ip.0,
            timeouts: Timeouts {
                tcp: timeout("service-tcp-timeout", flags.service_tcp_timeout)?,
                tcp_fin: timeout("service-tcpfin-timeout", flags.service_tcpfin_timeout)?,
                udp: timeout("service-udp-timeout", flags.service_udp_timeout)?,
            },
            runtime_socket: runtime_socket(flags.runtime_endpoint)?,
        })
    }
}

/// The kernel refuses more than `INT_MAX / HZ` seconds (`ip_vs_set_timeout`), with `HZ` at most 1000.
const LONGEST_TIMEOUT: u64 = 2_147_483;

fn timeout(flag: &str, value: GoDuration) -> Result<Option<u32>, BadFlag> {
    let bad = |reason: &str| BadFlag::new(flag, value, reason);
    let span = value.to_std().ok_or_else(|| bad("must not be below 0"))?;
    match span.as_secs() {
        0 if span.is_zero() => Ok(None),
        // Cut to whole seconds it would be 0, which means the opposite of what was asked for.
        0 => Err(bad("the kernel counts in whole seconds")),
        seconds @ 1..=LONGEST_TIMEOUT => Ok(u32::try_from(seconds).ok()),
        _ => Err(bad("the kernel takes at most 2147483s")),
    }
}

fn runtime_socket(endpoint: String) -> Result<Option<String>, BadFlag> {
    match endpoint.strip_prefix("unix://") {
        None if endpoint.is_empty() => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(path.to_owned())),
        _ => Err(BadFlag::new("runtime-endpoint", endpoint, "not of the form unix:///path")),
    }
}

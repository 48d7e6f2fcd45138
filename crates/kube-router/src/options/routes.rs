//! Flags of pod routing: CNI, overlay, egress.

use std::time::Duration;

use super::duration::GoDuration;
use super::refusal::{BadFlag, positive};
use super::syntax::{Switch, Uint};

/// How pods are reached, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Pod routing")]
pub(super) struct RoutesFlags {
    /// Time between two audits of peers, policies and paths
    #[arg(long, default_value = "1m0s")]
    routes_sync_period: GoDuration,
    /// Time between two audits of learned routes in the kernel
    #[arg(long, default_value = "1m0s")]
    injected_routes_sync_period: GoDuration,
    /// Keep the CNI configuration file
    #[arg(long, default_value = "true")]
    enable_cni: Switch,
    /// Put the plugin kube-router-cni into the CNI configuration file: pods start when their policies are in force
    #[arg(long, default_value = "false")]
    cni_wait_for_policy: Switch,
    /// Set the MTU of kube-bridge and of pods from the node's interface
    #[arg(long, default_value = "true")]
    auto_mtu: Switch,
    /// Masquerade traffic of pods that leaves the cluster
    #[arg(long, default_value = "true")]
    enable_pod_egress: Switch,
    /// Tunnel between nodes of different subnets
    #[arg(long, default_value = "true")]
    enable_overlay: Switch,
    /// "subnet" tunnels between subnets, "full" between all nodes
    #[arg(long, default_value = "subnet")]
    overlay_type: String,
    /// "ipip" or "fou"
    #[arg(long, default_value = "ipip")]
    overlay_encap: String,
    /// UDP port of FoU tunnels, 1024 or more
    #[arg(long, default_value = "5555")]
    overlay_encap_port: Uint<u16>,
    /// Switch off the source and destination check of AWS instances
    #[arg(long, default_value = "true")]
    disable_source_dest_check: Switch,
}

/// How pods are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Time between two audits of peers, policies and paths.
    pub sync_period: Duration,
    /// Time between two audits of learned routes.
    pub injected_sync_period: Duration,
    /// Keep the CNI configuration file.
    pub cni: bool,
    /// The plugin that waits for network policy belongs into that file.
    pub cni_wait_for_policy: bool,
    /// MTU from the node's interface.
    pub auto_mtu: bool,
    /// Masquerade what pods send out of the cluster.
    pub pod_egress: bool,
    /// Between which nodes there are tunnels.
    pub overlay: Overlay,
    /// Of which kind the tunnels are.
    pub encap: Encap,
    /// The UDP port of tunnels, whether they are of the kind that has one or not: 1024-65535.
    pub encap_port: u16,
    /// Switch off the AWS check.
    pub disable_source_dest_check: bool,
}

/// Between which nodes there are tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// None.
    Off,
    /// Nodes of different subnets.
    Subnet,
    /// All nodes.
    Full,
}

/// The kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encap {
    /// IP in IP.
    IpIp,
    /// Generic UDP encapsulation to this port.
    Fou(u16),
}

impl Routes {
    pub(super) fn read(flags: &RoutesFlags) -> Result<Self, BadFlag> {
        let overlay = match flags.overlay_type.as_str() {
            "subnet" => Overlay::Subnet,
            "full" => Overlay::Full,
            other => return Err(BadFlag::new("overlay-type", other, "neither subnet nor full")),
        };
        let port = flags.overlay_encap_port.0;
        if port < 1024 {
            return Err(BadFlag::new("overlay-encap-port", port, "must be 1024 or more"));
        }
        let encap = match flags.overlay_encap.as_str() {
            "ipip" => Encap::IpIp,
            "fou" => Encap::Fou(port),
            other => return Err(BadFlag::new("overlay-encap", other, "neither ipip nor fou")),
        };
        Ok(Self {
            sync_period: positive("routes-sync-period", flags.routes_sync_period)?,
            injected_sync_period: positive("injected-routes-sync-period", flags.injected_routes_sync_period)?,
            cni: flags.enable_cni.0,
            cni_wait_for_policy: flags.cni_wait_for_policy.0,
            auto_mtu: flags.auto_mtu.0,
            pod_egress: flags.enable_pod_egress.0,
            overlay: if flags.enable_overlay.0 { overlay } else { Overlay::Off },
            encap,
            encap_port: port,
            disable_source_dest_check: flags.disable_source_dest_check.0,
        })
    }
}

//! Flags of the network policy controller and of the load-balancer address allocator.

use std::time::Duration;

use super::duration::GoDuration;
use super::refusal::{BadFlag, positive};
use super::syntax::Switch;

/// What the network policy controller does, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Network policy")]
pub(super) struct PolicyFlags {
    /// Time between two audits of the rules
    #[arg(long, default_value = "1m0s")]
    iptables_sync_period: GoDuration,
    /// Reject traffic of local pods until their rules are in place
    #[arg(long, default_value = "false")]
    netpol_default_deny: Switch,
    /// The same as --firewall-backend=nftables
    #[arg(long, default_value = "false")]
    pub(super) use_nftables_for_netpol: Switch,
}

/// What the network policy controller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Time between two audits of the rules.
    pub sync_period: Duration,
    /// Reject traffic of local pods until their rules are in place.
    pub default_deny: bool,
}

impl NetworkPolicy {
    pub(super) fn read(flags: &PolicyFlags) -> Result<Self, BadFlag> {
        Ok(Self {
            sync_period: positive("iptables-sync-period", flags.iptables_sync_period)?,
            default_deny: flags.netpol_default_deny.0,
        })
    }
}

/// What the load-balancer address allocator does, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Load-balancer addresses")]
pub(super) struct LoadBalancerFlags {
    /// Time between two walks over all services
    #[arg(long, default_value = "1m0s")]
    loadbalancer_sync_period: GoDuration,
    /// Serve services without a load-balancer class, or of class "default", too
    #[arg(long, default_value = "true")]
    loadbalancer_default_class: Switch,
}

/// What the load-balancer address allocator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Time between two walks over all services.
    pub sync_period: Duration,
    /// Serve services without a class, or of class "default", too.
    pub default_class: bool,
}

impl LoadBalancer {
    pub(super) fn read(flags: &LoadBalancerFlags) -> Result<Self, BadFlag> {
        Ok(Self {
            sync_period: positive("loadbalancer-sync-period", flags.loadbalancer_sync_period)?,
            default_class: flags.loadbalancer_default_class.0,
        })
    }
}

//! Names of early deployments, and what they mean today.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Families;
use super::Given;
use super::bgp::BgpFlags;
use super::duration::GoDuration;
use super::refusal::{BadFlag, of_enabled_family, positive};
use super::syntax::{Cidr, List, Uint, items};

/// Older names, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Older names")]
pub(super) struct OlderFlags {
    /// CIDRs of pods, with --run-router: inside for pod egress, and in place of a pod CIDR the node object does not have
    #[arg(long)]
    cluster_cidr: Vec<List<Cidr>>,
    /// No effect: changes are watched
    #[arg(long, default_value = "1m0s")]
    config_sync_period: GoDuration,
    /// Use --peer-router-ips
    #[arg(long)]
    peer_router: Vec<List<IpAddr>>,
    /// Use --peer-router-asns
    #[arg(long)]
    peer_asn: Vec<List<Uint<u32>>>,
}

/// What is told to whoever uses an older name, or a flag that has lost its effect.
const WARNINGS: [(&str, &str); 5] = [
    (
        "cluster-cidr",
        "--cluster-cidr is an older name without a successor: with --run-router it is inside for pod egress, and masquerading \
         uses it where this node's object has no pod CIDR; without, it has no effect",
    ),
    (
        "config-sync-period",
        "--config-sync-period has no effect and no successor: changes are watched as they happen",
    ),
    ("peer-router", "--peer-router is an older name: use --peer-router-ips"),
    ("peer-asn", "--peer-asn is an older name: use --peer-router-asns"),
    (
        "cache-sync-timeout",
        "--cache-sync-timeout has no effect: a start that cannot reach the API server says so and goes on trying",
    ),
];

impl OlderFlags {
    /// Moves the older peer flags to their successors, and returns the pod CIDRs. A flag and its successor together
    /// are refused, because one of them would silently lose.
    pub(super) fn apply(
        self,
        bgp: &mut BgpFlags,
        families: Families,
        given: &Given,
    ) -> Result<Vec<IpNet>, BadFlag> {
        positive("config-sync-period", self.config_sync_period)?;
        for (older, successor) in [("peer-router", "peer-router-ips"), ("peer-asn", "peer-router-asns")] {
            if given.has(older) && given.has(successor) {
                return Err(BadFlag::new(
                    older,
                    "…",
                    format!("--{successor} is given too, and means the same"),
                ));
            }
        }
        if given.has("peer-router") {
            bgp.peer_router_ips = self.peer_router;
        }
        if given.has("peer-asn") {
            bgp.peer_router_asns = self.peer_asn;
        }
        let pods: Vec<IpNet> = items(self.cluster_cidr).into_iter().map(|cidr| cidr.0).collect();
        of_enabled_family("cluster-cidr", &pods, families)?;
        Ok(pods)
    }
}

/// A warning for each of those that was used.
pub(super) fn warnings(given: &Given) -> Vec<&'static str> {
    WARNINGS.iter().filter(|(flag, _)| given.has(flag)).map(|(_, warning)| *warning).collect()
}

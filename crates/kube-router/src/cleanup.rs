//! `--cleanup-config`: the reconciler with nothing desired.
//!
//! Every lane is read, what is ours by the rule of [`crate::core::Ownership`] is adopted, and since nobody wants it, it
//! goes, in the order the reconciler knows. Needs no API server. What belongs to others is left alone; settings below
//! /proc/sys stay, they were somebody's before they were ours, and so do names of routing tables.
//!
//! Decided here: what is looked for beyond what the controllers keep: whatever a Go kube-router leaves that none of them
//! writes (direct server return, half-filled sets), rules of either flavour of iptables, both packet filters.

mod flavours;
mod half_filled;

use linux::firewall::{self, FirewallScope, SetsLane};
use linux::ipvs::IpvsLane;
use linux::lane::Lane;
use linux::nftables;
use linux::reconciler::Reconciler;
use linux::route::{OwnPorts, RouteLane, Rtnetlink, local_addresses};
use linux::row::{LaneName, Name};

use self::flavours::Flavours;
use crate::core::{self, Lanes, Needs, Ownership, RemovalError, Told, remove_all};
use crate::network_services::{base, direct_return};
use crate::node::{Facts, ThisNode};
use crate::options::Options;

/// Something could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Rows could not be read or removed.
    #[error(transparent)]
    Rows(#[from] RemovalError),
    /// The tables of nftables could not be looked for, read or removed.
    #[error("nftables: {0}")]
    Nftables(linux::netlink::Error),
    /// This node's addresses could not be read.
    #[error("reading this node's addresses: {0}")]
    Addresses(linux::netlink::Error),
}

/// Removes everything kube-router keeps on this node, whichever backend wrote it, and says what it was.
///
/// # Errors
/// [`CleanupError`], after all that could be removed is.
pub fn run(options: &Options) -> Result<(), CleanupError> {
    let needs = needs(options);
    let names = core::nftables_names();
    let in_nftables = nftables::is_in_use(&names).map_err(CleanupError::Nftables)?;
    let mut ownership = Ownership::at_clean_up(options);
    if in_nftables {
        let rows = nftables::SetsLane::new(names.clone()).read().map_err(RemovalError::Read)?;
        ownership.note(&Reconciler::new(), &rows);
    }
    let removed = remove_all(open(needs, options), &ownership, &this_node()?, Told::Names);
    half_filled::remove();
    // Last: it says whose virtual servers are.
    if in_nftables {
        nftables::remove(&names).map_err(CleanupError::Nftables)?;
        tracing::info!("removed the tables of nftables");
    }
    Ok(removed?)
}

/// Of every controller, whether it is switched on now or not, and what only a Go kube-router writes.
fn needs(options: &Options) -> Needs {
    let mut needs = core::needs(&core::all_controllers(), &Name::from(""), options);
    needs.routes.tables.extend(direct_return::TABLES);
    needs.routes.tables_with_priority.extend(direct_return::TABLES);
    needs.routes.udp_port = Some(options.routes.encap_port);
    needs.firewall.foreign.push(direct_return::place);
    needs
}

/// The lanes in the order their readings need: what tells whose a virtual server is comes before IPVS. A lane whose
/// kernel part is not there has nothing to clean, and iptables is not asked where it cannot hold anything of ours.
fn open(needs: Needs, options: &Options) -> Lanes {
    let mut lanes: Lanes =
        vec![(LaneName::Route, Box::new(RouteLane::new(needs.routes, OwnPorts::default())))];
    lanes.extend(open_firewall(needs.firewall));
    match IpvsLane::open(base::timeouts(options)) {
        Ok(lane) => lanes.push((LaneName::Ipvs, Box::new(lane))),
        Err(error) => tracing::info!("no virtual servers to clean up: {error}"),
    }
    // Without an agent the plugin would keep pods from starting.
    lanes.push((LaneName::Cni, Box::new(core::cni_lane())));
    lanes
}

/// Where there are neither sets nor chains of ours there may still be rules of ours in chains of the kernel's.
fn open_firewall(scope: FirewallScope) -> Lanes {
    let certain = firewall::may_hold(&scope);
    let possible = certain || nftables::chains_of_iptables().is_ok_and(|chains| !chains.is_empty());
    let mut lanes: Lanes = Vec::new();
    if certain {
        lanes.push((LaneName::Sets, Box::new(SetsLane::new(scope.clone()))));
    }
    if possible {
        match Flavours::open(&scope, certain) {
            Ok(rules) => lanes.push((LaneName::Firewall, Box::new(rules))),
            Err(error) => tracing::warn!("firewall rules are not cleaned up, nor sets they use: {error}"),
        }
    }
    lanes
}

fn this_node() -> Result<ThisNode, CleanupError> {
    let mut kernel = Rtnetlink::open().map_err(CleanupError::Addresses)?;
    let addresses = local_addresses(&mut kernel).map_err(CleanupError::Addresses)?;
    let addresses = addresses.into_iter().map(|address| (address.link, address.net)).collect();
    Ok(ThisNode { name: Name::from(""), object: None, facts: Facts { addresses, ..Facts::default() } })
}

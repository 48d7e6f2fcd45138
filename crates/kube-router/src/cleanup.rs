//! `--cleanup-config`: the reconciler with nothing desired.
//!
//! Every lane is read, what is ours by the rule of [`crate::core::Ownership`] is adopted, and since nobody wants it, it
//! goes, in the order the reconciler knows. Needs no API server. What belongs to others is left alone; settings below
//! /proc/sys stay, they were somebody's before they were ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use linux::firewall::{FirewallLane, SetsLane};
use linux::iptables::tool::Programs;
use linux::ipvs::IpvsLane;
use linux::lane::{Job, Lane, ReadError, run_batch};
use linux::reconciler::{Gate, Reconciler};
use linux::route::{OwnPorts, RouteLane, Rtnetlink, local_addresses};
use linux::row::{LaneName, Name, Table};

use crate::core::{self, Ownership};
use crate::network_services::base;
use crate::node::{Facts, ThisNode};
use crate::options::Options;
use crate::owner::Owner;

/// How long refused rows are tried again before they are left and named.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A lane's tables could not be read, so nothing of them was touched.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// This node's addresses could not be read.
    #[error("reading this node's addresses: {0}")]
    Addresses(linux::netlink::Error),
    /// Rows the kernel did not let go.
    #[error("left behind: {0}")]
    Left(String),
}

/// Removes everything kube-router keeps on this node, and says what it was.
///
/// # Errors
/// [`CleanupError`], after all that could be removed is.
pub fn run(options: &Options) -> Result<(), CleanupError> {
    let mut lanes = open(options);
    let ownership = Ownership::new(options);
    let node = this_node()?;
    let mut reconciler: Reconciler<Owner> = Reconciler::new();
    for (name, lane) in &mut lanes {
        reconciler.next_job(*name, Instant::now());
        let rows = lane.read()?;
        let ledger = ownership.of(&reconciler, &rows, &node);
        reconciler.was_read(*name, rows, |key, row| ledger.is_ours(key, row));
    }
    let found: BTreeMap<Table, usize> =
        reconciler.counts().map(|(table, count)| (table, count.actual)).collect();
    reconciler.allow_removals([Gate::all()]);
    remove(&mut reconciler, &mut lanes);
    for (table, count) in reconciler.counts() {
        let before = found.get(&table).copied().unwrap_or_default();
        if before > 0 {
            tracing::info!(
                "removed {} of {before} {}",
                before - count.actual,
                table.as_str().replace('_', " ")
            );
        }
    }
    let left: Vec<String> =
        reconciler.refusals().map(|(key, refused, _)| format!("{key:?} ({})", refused.reason)).collect();
    if left.is_empty() { Ok(()) } else { Err(CleanupError::Left(left.join("; "))) }
}

/// The lanes in the order their readings need: what tells whose a virtual server is comes before IPVS. A lane whose
/// kernel part is not there has nothing to clean.
fn open(options: &Options) -> Vec<(LaneName, Box<dyn Lane>)> {
    // Of every controller, whether it is switched on now or not.
    let needs = core::needs(&core::all_controllers(), &Name::from(""), options);
    let mut lanes: Vec<(LaneName, Box<dyn Lane>)> =
        vec![(LaneName::Route, Box::new(RouteLane::new(needs.routes, OwnPorts::default())))];
    lanes.push((LaneName::Sets, Box::new(SetsLane::new(needs.firewall.clone()))));
    match Programs::detect() {
        Ok(programs) => {
            lanes.push((LaneName::Firewall, Box::new(FirewallLane::with_programs(needs.firewall, programs))));
        }
        Err(error) => tracing::warn!("firewall rules are not cleaned up, nor sets they use: {error}"),
    }
    match IpvsLane::open(base::timeouts(options)) {
        Ok(lane) => lanes.push((LaneName::Ipvs, Box::new(lane))),
        Err(error) => tracing::info!("no virtual servers to clean up: {error}"),
    }
    // Without an agent the plugin would keep pods from starting.
    lanes.push((LaneName::Cni, Box::new(core::cni_lane())));
    lanes
}

fn this_node() -> Result<ThisNode, CleanupError> {
    let mut kernel = Rtnetlink::open().map_err(CleanupError::Addresses)?;
    let addresses = local_addresses(&mut kernel).map_err(CleanupError::Addresses)?;
    let addresses = addresses.into_iter().map(|address| (address.link, address.net)).collect();
    Ok(ThisNode { name: Name::from(""), object: None, facts: Facts { addresses, ..Facts::default() } })
}

fn remove(reconciler: &mut Reconciler<Owner>, lanes: &mut [(LaneName, Box<dyn Lane>)]) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut worked = false;
        // Virtual servers first: what tells that they are ours must not be gone while one is left.
        for (name, lane) in lanes.iter_mut().rev() {
            let now = Instant::now();
            if let Some(Job::Apply(stages)) = reconciler.next_job(*name, now) {
                let outcomes = run_batch(lane.as_mut(), stages);
                reconciler.applied(*name, outcomes, now);
                worked = true;
            }
        }
        if worked {
            continue;
        }
        match reconciler.next_deadline() {
            Some(at) if at < give_up => std::thread::sleep(at.saturating_duration_since(Instant::now())),
            _ => return,
        }
    }
}

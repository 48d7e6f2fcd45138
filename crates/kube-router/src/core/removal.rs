//! Removing everything of ours from some lanes: the reconciler with nothing desired.
//!
//! Every lane is read, what is ours by the rule of [`Ownership`] is adopted, and since nobody wants it, it goes, in the
//! order the reconciler knows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use linux::lane::{Job, Lane, ReadError, run_batch};
use linux::reconciler::{Gate, Reconciler};
use linux::row::{LaneName, Table};

use super::ownership::Ownership;
use crate::node::ThisNode;
use crate::owner::Owner;

/// How long refused rows are tried again before they are left and named.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lanes in the order in which they are read.
pub type Lanes = Vec<(LaneName, Box<dyn Lane>)>;

/// Something could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// A lane's tables could not be read, so nothing of them was touched.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows the kernel did not let go.
    #[error("left behind: {0}")]
    Left(String),
}

/// Removes what these lanes hold of ours, the last lane's first, and says what it was. What tells whose a virtual server
/// is must come before IPVS in the list. Blocks. O(rows).
///
/// # Errors
/// [`RemovalError`], after all that could be removed is.
pub fn remove_all(mut lanes: Lanes, ownership: &Ownership, node: &ThisNode) -> Result<(), RemovalError> {
    let mut reconciler: Reconciler<Owner> = Reconciler::new();
    for (name, lane) in &mut lanes {
        reconciler.next_job(*name, Instant::now());
        let rows = lane.read()?;
        let ledger = ownership.of(&reconciler, &rows, node);
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
    if left.is_empty() { Ok(()) } else { Err(RemovalError::Left(left.join("; "))) }
}

fn remove(reconciler: &mut Reconciler<Owner>, lanes: &mut Lanes) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut worked = false;
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

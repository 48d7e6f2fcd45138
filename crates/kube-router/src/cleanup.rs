//! `--cleanup-config`: every table with nothing desired, on what this program owns and nothing else.
//!
//! Needs no API server. What belongs to others (virtual servers, sets, rules) is left alone.

use crate::options::Options;

/// A table could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {}

/// Removes everything kube-router keeps on this node.
///
/// # Errors
/// [`CleanupError`], after all that could be removed is.
pub fn run(_options: &Options) -> Result<(), CleanupError> {
    tracing::info!("there is nothing to clean up: no table is built yet");
    Ok(())
}

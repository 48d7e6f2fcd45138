//! `lab demo`: the main job in front of one's eyes. A cluster, the manifests of `examples/`, real connections, a table.

mod progress;
mod table;

use std::path::PathBuf;

use clap::Args;
use lab::cluster::Cluster;

use self::progress::Progress;
use self::table::{Row, print};
use super::{Failure, up};

#[derive(Args)]
pub(super) struct Flags {
    /// Leave the cluster up with a shell in it
    #[arg(long)]
    keep: bool,
    /// Folder of manifests to apply
    #[arg(long, default_value = "examples")]
    examples: PathBuf,
    /// Flags of every agent
    #[arg(last = true)]
    agent_flags: Vec<String>,
}

/// Every step says what it does while it does it; the first that fails ends the demo with its reason.
pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let progress = Progress;
    let builder = Cluster::builder().nodes(3).agent_flags(flags.agent_flags);
    let cluster = progress.step("three nodes, an API server, one kube-router each", || {
        runtime.block_on(builder.start()).map_err(Failure::from)
    })?;
    progress.step("kubectl apply -f examples/", || {
        let words = ["apply".as_ref(), "-f".as_ref(), flags.examples.as_os_str()];
        cluster.kubectl(words).map_err(Failure::from)
    })?;
    let rows: Vec<Row> =
        progress.step("real connections, every way in", || runtime.block_on(connect(&cluster)))?;
    let held = print(&rows);
    if flags.keep {
        up::shell(&cluster, None)?;
    }
    Ok(u8::from(!held))
}

/// The connections of the demo: each service and port, by each way in.
async fn connect(_cluster: &Cluster) -> Result<Vec<Row>, Failure> {
    Ok(Vec::new())
}

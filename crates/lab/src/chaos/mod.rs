//! `lab chaos`: what goes wrong on real nodes, done on purpose under connections that go on all the time.
//!
//! Decided here: the order of the drills and what each is held to. [`stage`] has the cluster and the connections,
//! [`drill`] what is done to it ([`overflow`] and [`half_open`] are longer), [`deletion`] what others take away, [`still`] an
//! agent that does nothing meanwhile, [`report`] the table.

mod deletion;
mod drill;
mod half_open;
mod overflow;
mod report;
mod stage;
mod still;

use std::time::Duration;

pub use report::{Outcome, Report};

use crate::{cluster, node, process};
use drill::Drill;
use stage::{Seen, Stage};

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often an agent is killed, and stopped.
    pub deaths: u32,
    /// How long the API server is away.
    pub away: Duration,
    /// With the service proxy and connections through a service, which need IPVS.
    pub services: bool,
    /// The same choices of moments for the same number.
    pub seed: u64,
}

impl Options {
    /// Everything once or a few times: whether it holds at all.
    pub const SHORT: Options = Options { deaths: 3, away: Duration::from_secs(5), services: true, seed: 1 };
    /// As often and as long as the promise says.
    pub const LONG: Options =
        Options { deaths: 100, away: Duration::from_secs(600), services: true, seed: 1 };
}

/// Step that failed, so that there is no table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Building or driving the cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Entering a node.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// A tool on a node.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// An object the API server should have.
    #[error("the API server has no {0}")]
    Object(&'static str),
    /// The agent could not be held by a signal.
    #[error("holding the agent still: {0}")]
    Still(#[from] nix::errno::Errno),
    /// What was to go wrong did not, so that the drill says nothing.
    #[error("nothing went wrong: {0}")]
    NoFault(String),
    /// An agent that does not get ready, with the end of its log.
    #[error("{why}\n{log}")]
    NotReady {
        /// What is missing.
        why: cluster::Error,
        /// Its last lines.
        log: String,
    },
    /// The machine loses connections by itself.
    #[error("even the lowest rate of connections is too high for this machine when nothing is wrong: {0}")]
    Control(String),
}

/// Runs every drill whose line in the table `wanted` takes, in one cluster. `progress` is told each step.
pub async fn run(
    options: &Options,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Result<Report, Error> {
    let services = if options.services { ", a service" } else { " but the service proxy" };
    progress(&format!("two nodes with all controllers{services}, a policy"));
    let mut stage = Stage::new(options).await?;
    progress("a control run: the highest rate at which this machine loses nothing");
    let rate = stage.find_rate().await?;
    let mut outcomes = Vec::new();
    for drill in Drill::ALL.into_iter().filter(|drill| wanted(drill.name())) {
        progress(drill.name());
        let probes = stage.ask();
        let times = drill.perform(&mut stage, options).await;
        let Seen { asked, lost, leaked, why } = probes.stop().await;
        why.iter().for_each(|why| progress(&format!("lost: {why}")));
        let (times, said) = match times {
            Ok(times) => (times, None),
            Err(error) => (0, Some(error.to_string())),
        };
        outcomes.push(Outcome {
            what: drill.name().to_owned(),
            times,
            asked,
            lost,
            leaked,
            back: None,
            said,
        });
    }
    outcomes.extend(deletion::all(&mut stage, wanted, progress).await?);
    Ok(Report { rate, outcomes })
}

//! `lab bench`: what the agent costs, against what the kernel costs by itself, in one run on one machine.
//!
//! Decided here: what is measured, in which order, with which sizes. Every part starts from an empty node and a fresh
//! API server, and answers with [`Line`]s: what was measured, against what, and whether it holds.
//!
//! | part | measures |
//! |---|---|
//! | [`Part::Scale`] | cold start against the floor, then one changed endpoint, at two sizes |
//! | [`Part::Rest`] | requests, processes and system calls of an agent that has nothing to do |
//! | [`Part::Memory`] | resident memory with nothing and with much |
//! | [`Part::Churn`] | connections through a Service while others churn |
//! | [`Part::Policy`] | network policy: cold start, one more peer, memory, with either packet filter; natively |
//! | [`Part::Bgp`] | the speaker beside BIRD and GoBGP |

mod agent;
mod bgp;
mod churn;
mod cold_start;
mod floor;
mod memory;
mod objects;
mod one_change;
mod policies;
mod report;
mod rest;
mod trace;
mod world;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{Line, Report};

use crate::api_server::ApiError;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Cold start and one change, at two sizes.
    Scale,
    /// At rest.
    Rest,
    /// Memory.
    Memory,
    /// Connections while others churn.
    Churn,
    /// Network policy.
    Policy,
    /// The speaker beside others, and an agent's routes; needs no IPVS.
    Bgp,
}

impl Part {
    /// All, in the order they are run.
    pub const ALL: [Part; 6] = [Part::Scale, Part::Rest, Part::Memory, Part::Churn, Part::Policy, Part::Bgp];
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agent's executable.
    pub agent: PathBuf,
    /// Small sizes and short times: to see that it works, not to judge by.
    pub quick: bool,
    /// Which parts.
    pub parts: Vec<Part>,
}

/// Sizes and times of a run.
#[derive(Debug, Clone)]
struct Sizes {
    /// Services of the two cold starts.
    scales: [usize; 2],
    /// Endpoints of each.
    endpoints: usize,
    /// Changes timed at each scale.
    changes: usize,
    /// Endpoints of each Service where memory is measured, with the larger number of Services.
    endpoints_for_memory: usize,
    /// From the last row to the reading of memory.
    settle: Duration,
    rest: Duration,
    churn: Duration,
    /// Policies and pods of the two clusters of network policy.
    policies: [(usize, usize); 2],
    /// And of one more, where memory alone is measured.
    policies_for_memory: (usize, usize),
}

impl Sizes {
    fn of(options: &Options) -> Sizes {
        let seconds = Duration::from_secs;
        let full = Sizes {
            scales: [1_000, 10_000],
            endpoints: 4,
            changes: 200,
            endpoints_for_memory: 10,
            settle: seconds(30),
            rest: seconds(60),
            churn: seconds(30),
            policies: [(100, 1_000), (2_000, 20_000)],
            policies_for_memory: (10_000, 150_000),
        };
        match options.quick {
            false => full,
            true => Sizes {
                scales: [200, 1_000],
                changes: 100,
                settle: seconds(5),
                rest: seconds(10),
                churn: seconds(5),
                policies: [(100, 1_000), (400, 4_000)],
                policies_for_memory: (1_000, 10_000),
                ..full
            },
        }
    }
}

/// Step that failed. A measurement that cannot be made ends the run: half a table proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace, link or pod.
    #[error(transparent)]
    Node(#[from] crate::node::Error),
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// A BGP speaker.
    #[error(transparent)]
    Router(#[from] crate::router::Error),
    /// A tool.
    #[error(transparent)]
    Tool(#[from] crate::process::Error),
    /// The lab's API server did not start.
    #[error("starting the API server: {0}")]
    ApiServer(#[from] crate::api_server::Error),
    /// The lab's API server did not take an object.
    #[error("the API server says: {0}")]
    Object(#[from] ApiError),
    /// A file, a socket, a thread.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel's IPVS table could not be read.
    #[error("reading IPVS: {0}")]
    Ipvs(String),
    /// Something that must happen did not, within its bound.
    #[error("{what} not within {seconds} s{said}")]
    TooLate {
        /// What.
        what: String,
        /// The bound.
        seconds: u64,
        /// The last words of the agent.
        said: String,
    },
    /// The kernel does not hold what was to be there.
    #[error("{0}")]
    Wrong(String),
}

fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let doing = doing.into();
    move |source| Error::Io { doing, source }
}

/// Measures on this kernel. `progress` is told each step as it begins.
///
/// # Errors
/// When something could not be measured; a limit that does not hold is a [`Line`].
pub fn run(options: &Options, progress: &dyn Fn(&str)) -> Result<Report, Error> {
    let sizes = Sizes::of(options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(io("starting the runtime"))?;
    let lab = Lab { runtime: &runtime, agent: &options.agent, progress };
    let mut lines = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| options.parts.contains(part)) {
        lines.extend(match part {
            Part::Scale => scale(&lab, &sizes)?,
            Part::Rest => rest::measure(&lab, sizes.scales[1], sizes.endpoints, sizes.rest)?,
            Part::Memory => memory::measure(&lab, sizes.scales[1], sizes.endpoints_for_memory, sizes.settle)?,
            Part::Churn => churn::measure(&lab, sizes.scales[0], sizes.churn)?,
            Part::Policy => policy(&lab, &sizes)?,
            Part::Bgp => bgp::measure(&lab, &bgp::Sizes::of(options.quick))?,
        });
    }
    runtime.shutdown_background();
    Ok(Report::new(lines, options.quick))
}

/// What every part needs.
struct Lab<'a> {
    runtime: &'a tokio::runtime::Runtime,
    agent: &'a std::path::Path,
    progress: &'a dyn Fn(&str),
}

impl Lab<'_> {
    fn say(&self, text: impl AsRef<str>) {
        (self.progress)(text.as_ref());
    }
}

fn scale(lab: &Lab<'_>, sizes: &Sizes) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let mut before = None;
    for services in sizes.scales {
        let started = cold_start::measure(lab, services, sizes.endpoints)?;
        lines.extend(started.lines);
        let changed =
            one_change::measure(lab, &started.world, &started.agent, sizes.endpoints, sizes.changes, before)?;
        lines.extend(changed.lines);
        before = Some((services, changed.median));
    }
    Ok(lines)
}

fn policy(lab: &Lab<'_>, sizes: &Sizes) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for filter in policies::Filter::ALL {
        lines.extend(policies::measure(lab, filter, sizes.policies, sizes.changes, sizes.settle)?);
        lines.extend(policies::memory_at(lab, filter, sizes.policies_for_memory, sizes.settle)?);
    }
    Ok(lines)
}

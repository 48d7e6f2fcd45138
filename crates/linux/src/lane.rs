//! Lanes: one kernel interface, one blocking thread, no decisions.
//!
//! A lane reads the rows of its tables and applies changes it is handed, in stages: everything a change stands on
//! within its batch is in an earlier stage. What should change is the reconciler's business.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::netlink::Requests;
use crate::row::{Key, LaneName, Row};

/// One row to create, change or remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What is believed to be there; `None` is absent.
    pub from: Option<Row>,
    /// What should be there; `None` removes it.
    pub to: Option<Row>,
    /// Keys in earlier stages of the same batch without which this change is pointless.
    pub after: Vec<Key>,
}

/// Why the kernel (or the lane) did not take a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// For a person: operation, kernel's answer, remedy if known. Names no key; the report does.
    pub reason: String,
    /// Errno if the kernel gave one (positive).
    pub errno: Option<i32>,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(reason: impl Into<String>) -> Refusal {
        Refusal { reason: reason.into(), errno: None }
    }

    /// A refusal with an errno and what was tried.
    pub fn errno(doing: &str, errno: i32) -> Refusal {
        let said = std::io::Error::from_raw_os_error(errno);
        Refusal { reason: format!("{doing}: {said}"), errno: Some(errno) }
    }
}

/// A lane could not read its tables.
#[derive(Debug, thiserror::Error)]
#[error("reading {table}: {source}")]
pub struct ReadError {
    /// What was being read.
    pub table: &'static str,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// One kernel interface.
pub trait Lane: Send {
    /// Reads every row of this lane's tables that could be ours. O(rows there).
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError>;

    /// Applies one stage and answers each change in order. Already being in the desired state is success
    /// (EEXIST on create, ENOENT on remove). A refused change must not stop the others.
    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>>;

    /// Where it counts the netlink requests it sends; good for as long as the lane lives, whichever thread it moves to.
    /// `None` if it sends none.
    fn requests(&self) -> Option<Arc<Requests>> {
        None
    }
}

impl<L: Lane + ?Sized> Lane for Box<L> {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        (**self).read()
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        (**self).apply(stage)
    }

    fn requests(&self) -> Option<Arc<Requests>> {
        (**self).requests()
    }
}

/// What a lane thread is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Apply stages in order.
    Apply(Vec<Vec<Change>>),
    /// Read everything.
    Read,
}

/// What a lane thread answers.
#[derive(Debug)]
pub enum Report {
    /// Outcome of each change of a [`Job::Apply`] that was tried.
    Applied(LaneName, Vec<(Key, Result<(), Refusal>)>),
    /// Outcome of a [`Job::Read`].
    Read(LaneName, Result<Vec<(Key, Row)>, ReadError>),
}

/// Runs a batch: a change whose prerequisite in the same batch failed is neither tried nor answered.
pub fn run_batch(lane: &mut dyn Lane, stages: Vec<Vec<Change>>) -> Vec<(Key, Result<(), Refusal>)> {
    let mut failed: HashSet<Key> = HashSet::new();
    let mut outcomes = Vec::with_capacity(stages.iter().map(Vec::len).sum());
    for stage in stages {
        let (ready, held): (Vec<Change>, Vec<Change>) =
            stage.into_iter().partition(|change| change.after.iter().all(|key| !failed.contains(key)));
        failed.extend(held.into_iter().map(|change| change.key));
        let mut answers = lane.apply(&ready).into_iter();
        for change in ready {
            let answer = answers.next().unwrap_or_else(|| Err(Refusal::new("the lane gave no answer")));
            if answer.is_err() {
                failed.insert(change.key.clone());
            }
            outcomes.push((change.key, answer));
        }
    }
    outcomes
}

/// Handle to a lane thread; dropping it ends the thread after the job in hand.
#[derive(Debug)]
pub struct LaneThread {
    jobs: mpsc::SyncSender<Job>,
}

impl LaneThread {
    /// Starts the thread. `open` runs on it, so that sockets belong to the thread that uses them (and its network
    /// namespace); `report` must not block for long.
    pub fn spawn<L, F, R>(name: LaneName, open: F, report: R) -> std::io::Result<LaneThread>
    where
        L: Lane + 'static,
        F: FnOnce() -> L + Send + 'static,
        R: Fn(Report) + Send + 'static,
    {
        // One job at a time is in hand; the reconciler never queues a second before the first is answered.
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        thread::Builder::new().name(format!("lane-{name:?}").to_lowercase()).spawn(move || {
            let mut lane = open();
            while let Ok(job) = queue.recv() {
                report(match job {
                    Job::Apply(stages) => Report::Applied(name, run_batch(&mut lane, stages)),
                    Job::Read => Report::Read(name, lane.read()),
                });
            }
        })?;
        Ok(LaneThread { jobs })
    }

    /// Hands over a job. Returns false when the thread is gone.
    pub fn start(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(Arc<Requests>);

    impl Lane for Counting {
        fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
            Ok(Vec::new())
        }

        fn apply(&mut self, _stage: &[Change]) -> Vec<Result<(), Refusal>> {
            Vec::new()
        }

        fn requests(&self) -> Option<Arc<Requests>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[test]
    fn a_boxed_lane_counts_like_the_lane_in_it() {
        let requests: Arc<Requests> = Arc::default();
        let boxed: Box<dyn Lane> = Box::new(Counting(Arc::clone(&requests)));
        assert!(boxed.requests().is_some_and(|told| Arc::ptr_eq(&told, &requests)));
    }
}

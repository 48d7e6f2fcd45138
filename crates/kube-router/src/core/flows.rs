//! Looking at running flows and marking them, on a thread of its own: a walk over a large flow table takes long.
//!
//! Decided here: that questions asked meanwhile are answered together, and that what failed is tried again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;

use linux::conntrack::{Conntrack, Error, Flow};
use tokio::sync::mpsc::Sender;

use super::input::{Input, News};
use super::lanes::LaneError;
use crate::metrics::Metrics;
use crate::names::mark::FLOW_FORBIDDEN;

/// How long after a failure the same is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// What is asked of connection tracking.
#[derive(Debug)]
pub(super) enum Question {
    /// Flows that touch these addresses.
    Touching(Vec<IpAddr>),
    /// These are cut, or not any longer.
    Mark { flows: Vec<Flow>, forbidden: bool },
}

/// The thread's inbox.
pub(super) struct FlowWatch(mpsc::Sender<Question>);

impl FlowWatch {
    pub(super) fn start(core: &Sender<Input>, metrics: &Metrics) -> Result<FlowWatch, LaneError> {
        let (sender, inbox) = mpsc::channel::<Question>();
        let core = core.clone();
        let requests = metrics.netlink_requests.clone();
        let run = move || {
            let mut conntrack = None;
            // Whose flows could not be looked at, or not be marked.
            let mut missed: BTreeSet<IpAddr> = BTreeSet::new();
            while let Some(questions) = wait(&inbox, !missed.is_empty()) {
                let mut addresses = std::mem::take(&mut missed);
                let mut answered = Ok(());
                for question in questions {
                    match question {
                        Question::Touching(some) => addresses.extend(some),
                        Question::Mark { flows, forbidden } => {
                            requests.with_label_values(&["conntrack", "write"]).inc_by(flows.len() as u64);
                            let marked = set_mark(&mut conntrack, &flows, forbidden);
                            if marked.is_err() {
                                missed.extend(flows.iter().map(|flow| flow.original.source.0));
                            }
                            answered = answered.and(marked);
                        }
                    }
                }
                if !addresses.is_empty() {
                    requests.with_label_values(&["conntrack", "read"]).inc();
                    match touching(&mut conntrack, &addresses) {
                        Ok(flows) => {
                            if core.blocking_send(Input::News(News::Flows(flows))).is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            missed.extend(addresses);
                            answered = Err(error);
                        }
                    }
                }
                if let Err(error) = answered {
                    tracing::warn!("{error}; flows that policies forbid by now go on until the next try");
                    conntrack = None;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("flows".to_owned()).spawn(run);
        spawned.map_err(|source| LaneError::Thread { what: "flows", source })?;
        Ok(FlowWatch(sender))
    }

    pub(super) fn ask(&self, question: Question) {
        // The thread ends only with the process.
        let _ = self.0.send(question);
    }
}

/// What is asked next, together with what has been asked since; nothing, after a pause, where something is to be tried
/// `again`. `None` once nobody can ask any more.
fn wait(inbox: &mpsc::Receiver<Question>, again: bool) -> Option<Vec<Question>> {
    let first = if again {
        match inbox.recv_timeout(PAUSE) {
            Ok(question) => Some(question),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
        }
    } else {
        Some(inbox.recv().ok()?)
    };
    Some(first.into_iter().chain(inbox.try_iter()).collect())
}

fn opened(conntrack: &mut Option<Conntrack>) -> Result<&mut Conntrack, Error> {
    match *conntrack {
        Some(ref mut open) => Ok(open),
        None => Ok(conntrack.insert(Conntrack::open()?)),
    }
}

fn touching(conntrack: &mut Option<Conntrack>, addresses: &BTreeSet<IpAddr>) -> Result<Vec<Flow>, Error> {
    let addresses: Vec<IpAddr> = addresses.iter().copied().collect();
    opened(conntrack)?.touching(&addresses)
}

fn set_mark(conntrack: &mut Option<Conntrack>, flows: &[Flow], forbidden: bool) -> Result<(), Error> {
    let value = if forbidden { FLOW_FORBIDDEN } else { 0 };
    let marked = opened(conntrack)?.set_mark(flows, value, FLOW_FORBIDDEN)?;
    tracing::debug!(flows = marked, forbidden, "flows judged anew");
    Ok(())
}

//! IPVS: virtual servers, real servers and global timeouts as rows, by generic netlink.
//!
//! [`codec`] is the wire, [`table`] the socket, [`connections`] the view for drains and metrics; here is the lane.
//! Decided here: which command writes a row, and which refusals of the kernel mean that the row is as it should be.
//! Not here: which rows are wanted or whose they are; the lane reads every virtual server on the host.

mod codec;
mod connections;
mod refusal;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink::{self, Request};
use crate::row::{IpvsTimeouts, Key, Row};

use codec::command;
pub use codec::{ConnectionCount, Counters};
pub use connections::Connections;
use table::IpvsTable;
pub use table::OpenError;

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Change,
    Remove,
}

/// The IPVS lane: the kernel's IPVS table of one network namespace.
///
/// **Timeouts.** 0 in [`IpvsTimeouts`] means "keep what the kernel has", to the kernel as to us, so what is read back
/// can only equal what was written if the lane knows which fields are compared. It is told once, when it is opened:
/// a field that is 0 in `owned` reads as 0 for ever, and when all three are 0 there is no timeouts row at all.
///
/// **A dump is not a snapshot.** The kernel resumes a dump by counting rows, in a table that (on Linux 6.1) all network
/// namespaces share, and marks no interruption: rows removed meanwhile by someone else make it skip as many of ours,
/// rows added make it repeat some. So reading can miss a row that is there and may say one twice. That is harmless by
/// construction: creating a row that is there changes it in place, and nothing is removed for not having been read.
#[derive(Debug)]
pub struct IpvsLane {
    table: IpvsTable,
    owned: IpvsTimeouts,
    writes: Arc<AtomicU64>,
}

impl IpvsLane {
    /// Opens the lane in the calling thread's network namespace. `owned` is the timeouts row that will be desired.
    ///
    /// # Errors
    /// [`OpenError::NoIpvs`] when the kernel has no IPVS, with the remedy in its text.
    pub fn open(owned: IpvsTimeouts) -> Result<IpvsLane, OpenError> {
        Ok(IpvsLane { table: IpvsTable::open()?, owned, writes: Arc::default() })
    }

    /// Requests sent so far that write; stays valid after the lane has moved to its thread.
    pub fn writes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writes)
    }

    fn read_timeouts(&mut self, rows: &mut Vec<(Key, Row)>) -> Result<(), netlink::Error> {
        if self.owned == (IpvsTimeouts { tcp: 0, tcp_fin: 0, udp: 0 }) {
            return Ok(());
        }
        let there = self.table.timeouts()?;
        let if_owned = |owned: u32, there: u32| if owned == 0 { 0 } else { there };
        let row = IpvsTimeouts {
            tcp: if_owned(self.owned.tcp, there.tcp),
            tcp_fin: if_owned(self.owned.tcp_fin, there.tcp_fin),
            udp: if_owned(self.owned.udp, there.udp),
        };
        rows.push((Key::IpvsTimeouts, Row::IpvsTimeouts(row)));
        Ok(())
    }

    fn read_servers(&mut self, rows: &mut Vec<(Key, Row)>) -> Result<(), netlink::Error> {
        for service in self.table.services()? {
            let key = service.key;
            rows.push((Key::VirtualServer(key), Row::VirtualServer(service.server.into())));
            for real in self.table.destinations(&key)? {
                if let Some(server) = real.server {
                    rows.push((Key::RealServer(key, real.ip, real.port), Row::RealServer(server)));
                }
            }
        }
        Ok(())
    }

    /// The request that does `verb`; `None` when there is nothing to send.
    fn request(&self, verb: Verb, change: &Change) -> Result<Option<Request>, Refusal> {
        let built = match (&change.key, &change.to) {
            (Key::VirtualServer(key), None) => {
                self.table.message(command::DEL_SERVICE, |message| codec::put_service_key(message, key))
            }
            (Key::VirtualServer(key), Some(Row::VirtualServer(server))) => {
                let command = if verb == Verb::Create { command::NEW_SERVICE } else { command::SET_SERVICE };
                self.table.message(command, |message| codec::put_service(message, key, server))
            }
            (Key::RealServer(key, ip, port), None) => self.table.message(command::DEL_DEST, |message| {
                codec::put_service_key(message, key);
                codec::put_destination_key(message, *ip, *port);
            }),
            (Key::RealServer(key, ip, port), Some(Row::RealServer(server))) => {
                let command = if verb == Verb::Create { command::NEW_DEST } else { command::SET_DEST };
                self.table.message(command, |message| {
                    codec::put_service_key(message, key);
                    codec::put_destination(message, *ip, *port, server);
                })
            }
            // The kernel always has timeouts; giving them up leaves them as they are.
            (Key::IpvsTimeouts, None) => return Ok(None),
            (Key::IpvsTimeouts, Some(Row::IpvsTimeouts(timeouts))) => {
                self.table.message(command::SET_CONFIG, |message| codec::put_timeouts(message, timeouts))
            }
            _ => return Err(Refusal::new("not a row of the IPVS lane")),
        };
        built.map(Some).map_err(|error| Refusal::new(error.to_string()))
    }

    /// Sends one request for each attempt, all at once, and settles what needs no second attempt.
    fn send(&mut self, stage: &[Change], attempts: &[Attempt], answers: &mut [Answer]) -> Vec<Attempt> {
        let mut requests = Vec::with_capacity(attempts.len());
        let mut sent = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let Some(change) = stage.get(attempt.index) else { continue };
            match self.request(attempt.verb, change) {
                Ok(Some(request)) => {
                    requests.push(request);
                    sent.push((*attempt, change));
                }
                Ok(None) => settle(answers, attempt.index, Ok(())),
                Err(refusal) => settle(answers, attempt.index, Err(refusal)),
            }
        }
        self.writes.fetch_add(requests.len() as u64, Ordering::Relaxed);
        let outcomes = match self.table.batch(&requests) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                for (attempt, _) in sent {
                    settle(answers, attempt.index, Err(Refusal::new(error.to_string())));
                }
                return Vec::new();
            }
        };
        let mut again = Vec::new();
        for ((attempt, change), outcome) in sent.into_iter().zip(outcomes) {
            match judge(attempt, change, outcome) {
                Judgement::Settled(answer) => settle(answers, attempt.index, answer),
                Judgement::Otherwise(attempt) => again.push(attempt),
            }
        }
        again
    }
}

impl Lane for IpvsLane {
    /// One dump of virtual servers and one of real servers for each: O(rows on the host).
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows = Vec::new();
        let failed = |table, error| ReadError { table, source: Box::new(error) };
        self.read_timeouts(&mut rows).map_err(|error| failed("IPVS timeouts", error))?;
        self.read_servers(&mut rows).map_err(|error| failed("virtual and real servers", error))?;
        Ok(rows)
    }

    /// One batch of requests for the whole stage; a second, of those only, where a row was there that was believed
    /// absent or the reverse. O(stage).
    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut answers: Vec<Answer> = stage.iter().map(|_| None).collect();
        let first: Vec<Attempt> = stage.iter().enumerate().map(Attempt::first).collect();
        let again = self.send(stage, &first, &mut answers);
        if !again.is_empty() {
            self.send(stage, &again, &mut answers);
        }
        let unsettled = || Err(Refusal::new("the kernel keeps changing its mind whether the row is there"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unsettled)).collect()
    }
}

/// The outcome of a change, once known.
type Answer = Option<Result<(), Refusal>>;

fn settle(answers: &mut [Answer], index: usize, outcome: Result<(), Refusal>) {
    if let Some(answer) = answers.get_mut(index) {
        *answer = Some(outcome);
    }
}

/// A way to do the change at `index` of the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    index: usize,
    verb: Verb,
}

impl Attempt {
    fn first((index, change): (usize, &Change)) -> Attempt {
        let verb = match (&change.from, &change.to) {
            (_, None) => Verb::Remove,
            (None, Some(_)) => Verb::Create,
            (Some(_), Some(_)) => Verb::Change,
        };
        Attempt { index, verb }
    }
}

/// What an outcome comes to.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Settled(Result<(), Refusal>),
    /// The row was there, or was not, against belief: do it the other way.
    Otherwise(Attempt),
}

fn judge(attempt: Attempt, change: &Change, outcome: Result<(), netlink::Error>) -> Judgement {
    let Err(error) = outcome else { return Judgement::Settled(Ok(())) };
    // The kernel says ESRCH for a virtual server and ENOENT for a real server that is not there; ENOENT for a
    // virtual server is about its scheduler.
    let missing = match change.key {
        Key::VirtualServer(_) => libc::ESRCH,
        _ => libc::ENOENT,
    };
    match (attempt.verb, error.errno()) {
        (Verb::Create, Some(libc::EEXIST)) => Judgement::Otherwise(Attempt { verb: Verb::Change, ..attempt }),
        (Verb::Change, Some(errno)) if errno == missing => {
            Judgement::Otherwise(Attempt { verb: Verb::Create, ..attempt })
        }
        (Verb::Remove, Some(libc::ENOENT | libc::ESRCH)) => Judgement::Settled(Ok(())),
        (verb, _) => Judgement::Settled(Err(refusal::explain(verb, &change.key, change.to.as_ref(), &error))),
    }
}

#[cfg(test)]
mod tests;

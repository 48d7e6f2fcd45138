//! What asks: one question, a conversation that goes on, a steady rate of questions.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::server::{SEND_ALWAYS, Saying};
use super::socket::{Connected, Protocol, connect};
use crate::node::Namespace;

/// A question that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Name of who answered.
    pub by: String,
    /// This client as the server saw it.
    pub source: SocketAddr,
    /// From the call to the answer, connecting included.
    pub latency: Duration,
}

/// A question that was not answered, by what the client noticed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub enum Failure {
    /// A reset in answer to the connection attempt, or an ICMP port unreachable.
    #[error("refused")]
    Refused,
    /// Nothing came back in time.
    #[error("timeout")]
    Timeout,
    /// The connection was there and is not any more.
    #[error("reset")]
    Reset,
    /// No route, or an ICMP that says so or that it is forbidden.
    #[error("unreachable")]
    Unreachable,
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

/// What became of a question.
pub type Outcome = Result<Answer, Failure>;

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::TimedOut => Self::Timeout,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
                Self::Reset
            }
            // What a REJECT rule of the client's own host returns.
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::PermissionDenied => Self::Unreachable,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Where from and where to; everything a question needs.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) namespace: Arc<Namespace>,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) limit: Duration,
}

impl Asker {
    pub(super) async fn connect(&self) -> io::Result<Connected> {
        connect(&self.namespace, self.protocol, self.to, self.source, self.limit).await
    }

    /// One connection, one question.
    pub(super) async fn once(&self) -> Outcome {
        let start = Instant::now();
        let work = async {
            let mut connected = self.connect().await?;
            exchange(&mut connected).await
        };
        let saying = timeout(self.limit, work).await.map_err(|_| Failure::Timeout)??;
        Ok(Answer { by: saying.name, source: saying.client, latency: start.elapsed() })
    }
}

/// Sends a line and reads the answer.
async fn exchange(connected: &mut Connected) -> io::Result<Saying> {
    let mut answer = Vec::new();
    match connected {
        Connected::Stream(stream) => {
            stream.write_all(b"who\n").await?;
            while answer.last() != Some(&b'\n') {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Connected::Datagram(socket) => {
            socket.send(b"who\n").await?;
            answer.resize(2048, 0);
            // An ICMP shows as an error condition, not as something to read.
            let wanted = Interest::READABLE | Interest::ERROR;
            let mut receive = || Ok(recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?);
            let length = socket.async_io(wanted, &mut receive).await?;
            answer.truncate(length);
        }
        Connected::Handshake(initiator) => answer = initiator.exchange().await?,
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// What a conversation went through until it was stopped or broke.
#[derive(Debug, Clone, Serialize)]
pub struct Conversation {
    /// Questions answered, by whom.
    pub answered: BTreeMap<String, usize>,
    /// Datagrams not answered in time: they may be lost, and the conversation goes on.
    pub lost: usize,
    /// The longest wait for an answer.
    pub longest: Duration,
    /// How it broke, and when after its start; none if it was stopped.
    pub broke: Option<(Duration, Failure)>,
}

/// A conversation going on.
#[derive(Debug)]
pub struct Talking {
    stop: oneshot::Sender<()>,
    so_far: watch::Receiver<Conversation>,
    task: JoinHandle<()>,
}

impl Talking {
    /// Ends the conversation.
    pub async fn stop(self) -> Conversation {
        let _ = self.stop.send(());
        let ended = self.task.await;
        let mut report = self.so_far.borrow().clone();
        if let Err(error) = ended {
            report.broke = Some((Duration::ZERO, Failure::Other(error.to_string())));
        }
        report
    }

    /// What it went through until now.
    pub fn so_far(&self) -> Conversation {
        self.so_far.borrow().clone()
    }

    /// Whether it broke by itself.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

/// Opens one connection and asks on it every `every` until stopped. Returns when it is open and answered once.
pub(super) async fn talk(asker: Asker, every: Duration) -> Result<Talking, Failure> {
    let mut connected = timeout(asker.limit, asker.connect()).await.map_err(|_| Failure::Timeout)??;
    let first = timeout(asker.limit, exchange(&mut connected)).await.map_err(|_| Failure::Timeout)??;
    let (stop, mut stopped) = oneshot::channel();
    let answered = BTreeMap::from([(first.name, 1)]);
    let (report, so_far) =
        watch::channel(Conversation { answered, lost: 0, longest: Duration::ZERO, broke: None });
    let task = tokio::spawn(async move {
        let start = Instant::now();
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                _ = ticks.tick() => {}
            }
            let asked = Instant::now();
            let outcome = timeout(asker.limit, exchange(&mut connected)).await;
            report.send_modify(|report| {
                report.longest = report.longest.max(asked.elapsed());
                match outcome {
                    Ok(Ok(saying)) => *report.answered.entry(saying.name).or_default() += 1,
                    Ok(Err(error)) => report.broke = Some((start.elapsed(), error.into())),
                    Err(_) if asker.protocol == Protocol::Udp => report.lost += 1,
                    Err(_) => report.broke = Some((start.elapsed(), Failure::Timeout)),
                }
            });
            if report.borrow().broke.is_some() {
                return;
            }
        }
    });
    Ok(Talking { stop, so_far, task })
}

/// A flow that the server keeps alive: it sends all the time, this end only counts what arrives.
#[derive(Debug)]
pub struct Hearing {
    heard: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Hearing {
    /// Times something arrived so far.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether the flow ended as seen from here: closed or reset.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens one connection, asks once for answers without end, and counts them. Returns when the first is there.
pub(super) async fn hear(asker: Asker) -> Result<Hearing, Failure> {
    let mut connected = timeout(asker.limit, asker.connect()).await.map_err(|_| Failure::Timeout)??;
    let question = format!("{SEND_ALWAYS}\n");
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let task = tokio::spawn(async move {
        let mut buffer = [0u8; 4096];
        let asked = match &mut connected {
            Connected::Stream(stream) => stream.write_all(question.as_bytes()).await,
            Connected::Datagram(socket) => socket.send(question.as_bytes()).await.map(drop),
            Connected::Handshake(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        while asked.is_ok() {
            match &mut connected {
                Connected::Stream(stream) => match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                // An ICMP does not end a flow of datagrams.
                Connected::Datagram(socket) => {
                    if socket.recv(&mut buffer).await.is_err() {
                        continue;
                    }
                }
                Connected::Handshake(_) => return,
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let hearing = Hearing { heard, task };
    let first = async {
        while hearing.heard() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(asker.limit, first).await.map_err(|_| Failure::Timeout)?;
    Ok(hearing)
}

/// What a steady rate of new connections went through.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rate {
    /// Questions asked.
    pub asked: usize,
    /// Questions answered, by whom.
    pub answered: BTreeMap<String, usize>,
    /// Every question not answered: when it was asked after the start, and what the client noticed.
    pub failed: Vec<(Duration, Failure)>,
    /// Latencies of the answered ones, ascending.
    pub latencies: Vec<Duration>,
}

impl Rate {
    /// The latency that `percent` of the answers did not exceed; none without answers.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last * percent.min(100)).div_ceil(100)).copied()
    }

    fn count(&mut self, at: Duration, outcome: Outcome) {
        self.asked += 1;
        match outcome {
            Ok(answer) => {
                *self.answered.entry(answer.by).or_default() += 1;
                self.latencies.push(answer.latency);
            }
            Err(failure) => self.failed.push((at, failure)),
        }
    }
}

/// Steady questions going on.
#[derive(Debug)]
pub struct Asking {
    asked: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Rate>,
}

impl Asking {
    /// How many questions were asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Goes on until `asked` questions were asked, then stops: what a story shows is not to depend on how fast the
    /// machine went through it. Ends without them when the asking's own time is over.
    pub async fn stop_after(self, asked: usize) -> Rate {
        while self.asked() < asked && !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop().await
    }

    /// Asks no more and waits for the answers under way.
    pub async fn stop(self) -> Rate {
        let _ = self.stop.send(());
        result(self.task).await
    }

    /// Waits until its time is over.
    pub async fn finish(self) -> Rate {
        result(self.task).await
    }
}

async fn result(task: JoinHandle<Rate>) -> Rate {
    let lost = |error: tokio::task::JoinError| (Duration::ZERO, Failure::Other(error.to_string()));
    task.await.unwrap_or_else(|error| Rate { failed: vec![lost(error)], ..Rate::default() })
}

/// Asks `per_second` questions a second, each on a connection of its own, for `during` or until stopped. A slow answer
/// does not slow the asking; of a moment in which the machine stood still no question is made up for, as all of them at once
/// would be another load than the one asked for.
pub(super) fn rate(asker: Asker, per_second: u32, during: Duration) -> Asking {
    let (stop, mut stopped) = oneshot::channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let task = tokio::spawn(async move {
        let start = Instant::now();
        let mut report = Rate::default();
        let mut open: JoinSet<(Duration, Outcome)> = JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = true;
        while start.elapsed() < during {
            tokio::select! {
                // A handle that is dropped is no stop, and must not be asked again.
                stop = &mut stopped, if held => match stop {
                    Ok(()) => break,
                    Err(_) => held = false,
                },
                _ = ticks.tick() => {
                    let asker = asker.clone();
                    let at = start.elapsed();
                    counter.fetch_add(1, Ordering::Relaxed);
                    open.spawn(async move { (at, asker.once().await) });
                }
                Some(done) = open.join_next() => count(&mut report, done),
            }
        }
        while let Some(done) = open.join_next().await {
            count(&mut report, done);
        }
        report.latencies.sort();
        report.failed.sort();
        report
    });
    Asking { asked, stop, task }
}

fn count(report: &mut Rate, done: Result<(Duration, Outcome), tokio::task::JoinError>) {
    match done {
        Ok((at, outcome)) => report.count(at, outcome),
        Err(error) => report.count(Duration::ZERO, Err(Failure::Other(error.to_string()))),
    }
}

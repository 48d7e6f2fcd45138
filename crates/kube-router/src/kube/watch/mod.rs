//! Watches: one task per kind tells the store what the API server says, for as long as somebody listens.
//!
//! What a watch promises: a list begins, names objects, ends; then changes follow, each once or more, in the server's
//! order. A broken connection is taken up where it ended; only a version that the server no longer
//! has makes a new list. While the server is away nothing is said about objects, so nothing is forgotten.
//!
//! Why not `kube::runtime::watcher`: its streaming list starts at `resourceVersion=0`, which lets a stale API server
//! answer with a past in which newer objects are missing (here: consistent reads only); a resume answered by HTTP 410
//! is repeated for ever; a server without streaming lists needs a second watcher; and its types need a whole
//! `ObjectMeta`, most of the cost of an object. Connections are [`super::connection`]'s, the framing is kube's.

mod attempt;
mod pause;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::convert::Wire;
use super::interner::Interner;
use super::model::{Kind, WatchEvent};
use super::wire;
use crate::names::label;
use attempt::{Ended, Step, Strategy};
use pause::Pause;
pub use status::WatchStatus;

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Kind, in all namespaces.
    pub kind: Kind,
    /// Field selector, such as `spec.nodeName=node-1`.
    pub fields: Option<String>,
    /// Label selector.
    pub labels: Option<String>,
}

impl Selection {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Selection {
        Selection { kind, fields: None, labels: None }
    }

    /// The pods of a node.
    pub fn pods_of(node: &str) -> Selection {
        Selection { fields: Some(format!("spec.nodeName={node}")), ..Selection::all(Kind::Pod) }
    }

    /// What is in either of two selections of one kind: all of it, unless they are the same.
    pub fn or(self, other: Selection) -> Selection {
        if self == other { self } else { Selection::all(self.kind) }
    }

    /// Services or EndpointSlices, without headless ones: those concern no proxy and need not be sent.
    pub fn not_headless(kind: Kind) -> Selection {
        Selection { labels: Some(format!("!{}", label::HEADLESS)), ..Selection::all(kind) }
    }
}

/// Times and sizes. The default is for a real cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// The first list starts after this.
    pub start_after: Duration,
    /// Objects in a page of a list, if the server does not stream lists.
    pub page_size: u32,
    /// Shortest and longest pause after a failure; it doubles in between, and a random half of it is taken off.
    pub pause: (Duration, Duration),
    /// Longest wait for the answer to a request; kube itself sets no bound.
    pub answer: Duration,
    /// A watch on which nothing arrives for so long is dead or might be; it is resumed. Servers send a bookmark
    /// about once a minute.
    pub silence: Duration,
    /// A streaming list in which nothing arrives for so long is given up for a paged one.
    pub list_silence: Duration,
    /// How often a failure that lasts is repeated to the store.
    pub repeat: Duration,
    /// Most events told in one message. What came together is told together: a list of many objects would otherwise wake
    /// the receiver for each of them.
    pub batch: usize,
}

/// The nodes of a cluster that starts do not all ask at once, but within this.
const START: Duration = Duration::from_millis(200);

impl Tuning {
    /// The default, to start at a random moment. To be drawn once for all watches of a process: who needs several kinds
    /// would otherwise wait for the last of them.
    pub fn spread() -> Tuning {
        Tuning { start_after: pause::part_of(START), ..Tuning::default() }
    }
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            start_after: Duration::ZERO,
            page_size: 500,
            pause: (Duration::from_millis(500), Duration::from_secs(30)),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(150),
            list_silence: Duration::from_secs(30),
            repeat: Duration::from_secs(60),
            batch: 64,
        }
    }
}

/// Starts a watch. It ends when the receiver of `events` is gone; until then it waits whenever the receiver is slow.
/// The caller's runtime runs it. The receiver may take other messages too: events that came together are turned into
/// one of its own.
pub fn start<M: From<Vec<WatchEvent>> + Send + 'static>(
    client: Client,
    selection: Selection,
    tuning: Tuning,
    events: Sender<M>,
) -> (Arc<WatchStatus>, JoinHandle<()>) {
    let status = Arc::new(WatchStatus::new(selection.kind));
    let kind = selection.kind;
    let watch = Watch {
        client,
        selection,
        strategy: Strategy::Streaming,
        status: status.clone(),
        names: Interner::default(),
        pause: Pause::new(tuning.pause),
        broken: None,
        untold: Vec::new(),
        tuning,
        events,
    };
    let task = match kind {
        Kind::Service => tokio::spawn(watch.run::<wire::Service>()),
        Kind::EndpointSlice => tokio::spawn(watch.run::<wire::EndpointSlice>()),
        Kind::Node => tokio::spawn(watch.run::<wire::Node>()),
        Kind::Pod => tokio::spawn(watch.run::<wire::Pod>()),
        Kind::Namespace => tokio::spawn(watch.run::<wire::Namespace>()),
        Kind::NetworkPolicy => tokio::spawn(watch.run::<wire::NetworkPolicy>()),
    };
    (status, task)
}

/// A connection that lasted less is followed by a pause even if it ended in good order.
const SHORT: Duration = Duration::from_secs(1);

/// The receiver of the events is gone: there is nothing more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NobodyListens;

struct Watch<M> {
    client: Client,
    selection: Selection,
    tuning: Tuning,
    strategy: Strategy,
    status: Arc<WatchStatus>,
    names: Interner,
    pause: Pause,
    /// When the store was last told that this watch is broken, while it is.
    broken: Option<Instant>,
    /// Events on their way to the receiver.
    untold: Vec<WatchEvent>,
    events: Sender<M>,
}

impl<M: From<Vec<WatchEvent>> + Send> Watch<M> {
    async fn run<W: Wire>(mut self) {
        let events = self.events.clone();
        tokio::select! {
            NobodyListens = self.go_on::<W>() => {}
            () = events.closed() => {}
        }
    }

    async fn go_on<W: Wire>(&mut self) -> NobodyListens {
        tokio::time::sleep(self.tuning.start_after).await;
        let mut step = Step::List;
        loop {
            let began = Instant::now();
            let (next, ended) = match self.attempt::<W>(step).await {
                Ok(outcome) => outcome,
                Err(NobodyListens) => return NobodyListens,
            };
            let lasted = began.elapsed() >= SHORT;
            if lasted {
                self.pause.reset();
            }
            if let Some(why) = ended.failure()
                && self.report(why).await.is_err()
            {
                return NobodyListens;
            }
            if self.flush().await.is_err() {
                return NobodyListens;
            }
            let at_once = match ended {
                Ended::NoStreaming => true,
                Ended::Quietly => lasted,
                Ended::Expired | Ended::Failed(_) | Ended::Lost(_) => false,
            };
            if !at_once {
                tokio::time::sleep(self.pause.next()).await;
            }
            step = next;
        }
    }

    /// Tells the store that the watch is broken: at once, then from time to time.
    async fn report(&mut self, why: &str) -> Result<(), NobodyListens> {
        let due = self.broken.is_none_or(|last| last.elapsed() >= self.tuning.repeat);
        if due {
            self.broken = Some(Instant::now());
            self.status.set_broken(true);
            self.tell(WatchEvent::Broken(self.selection.kind, why.to_owned())).await?;
        }
        Ok(())
    }

    /// The server answers again.
    async fn mended(&mut self) -> Result<(), NobodyListens> {
        if self.broken.take().is_some() {
            self.status.set_broken(false);
            self.tell(WatchEvent::Mended(self.selection.kind)).await?;
        }
        Ok(())
    }

    /// Puts an event on its way. It is told when there are enough of them, or by [`Self::flush`], which comes before
    /// every wait for the server.
    async fn tell(&mut self, event: WatchEvent) -> Result<(), NobodyListens> {
        self.status.saw(&event);
        self.untold.push(event);
        if self.untold.len() >= self.tuning.batch { self.flush().await } else { Ok(()) }
    }

    /// Tells what is on its way.
    async fn flush(&mut self) -> Result<(), NobodyListens> {
        if self.untold.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.untold);
        self.events.send(events.into()).await.map_err(|_| NobodyListens)
    }
}

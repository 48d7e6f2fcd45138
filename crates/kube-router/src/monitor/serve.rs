//! The agent's side of `kube-router monitor`: one reader of the kernel's packet log while anybody watches.
//!
//! The kernel has one reader for each group, so the agent is it and shares what it reads; with nobody watching there is no
//! reader, and the kernel throws refused packets away as before.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use hyper::body::Bytes;
use linux::nflog::{self, Logged, PacketLog};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};

use super::{denied, question};
use crate::core::Input;
use crate::names::NFLOG_GROUP;

/// Lines a slow watcher may be behind before it misses some.
const LINES: usize = 256;
/// How often the reader looks whether anybody is still there.
const TICK: Duration = Duration::from_millis(250);
/// How often an empty line is sent, which finds watchers that left without a word.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Nobody can watch.
#[derive(Debug, thiserror::Error)]
enum MonitorError {
    #[error(transparent)]
    Log(#[from] nflog::Error),
    #[error("starting the monitor thread: {0}")]
    Thread(io::Error),
}

/// Where lines come from while there is a reader.
type Live = Arc<Mutex<Option<broadcast::Sender<Bytes>>>>;

#[derive(Clone)]
struct Monitor {
    core: mpsc::Sender<Input>,
    live: Live,
}

/// `/v1/monitor`: a line of JSON for each refused packet, until the client leaves.
pub(crate) fn routes(core: mpsc::Sender<Input>) -> Router {
    Router::new().route("/v1/monitor", get(monitor)).with_state(Monitor { core, live: Live::default() })
}

async fn monitor(State(monitor): State<Monitor>) -> Response {
    let lines = match tokio::task::spawn_blocking(move || monitor.watch()).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => return (StatusCode::CONFLICT, error.to_string()).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let lines = stream::unfold(lines, |mut lines| async move {
        loop {
            match lines.recv().await {
                Ok(line) => return Some((Ok::<Bytes, Infallible>(line), lines)),
                // What a slow watcher misses is lost: it is a sample anyway.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

impl Monitor {
    /// Joins the reader, or starts it.
    fn watch(self) -> Result<broadcast::Receiver<Bytes>, MonitorError> {
        let mut live = lock(&self.live);
        if let Some(lines) = live.as_ref() {
            return Ok(lines.subscribe());
        }
        let log = PacketLog::open(NFLOG_GROUP)?;
        let (lines, receiver) = broadcast::channel(LINES);
        let reader = Reader { core: self.core.clone(), live: Arc::clone(&self.live), lines: lines.clone() };
        std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || reader.run(log))
            .map_err(MonitorError::Thread)?;
        *live = Some(lines);
        Ok(receiver)
    }
}

struct Reader {
    core: mpsc::Sender<Input>,
    live: Live,
    lines: broadcast::Sender<Bytes>,
}

impl Reader {
    /// Until nobody watches, or the log cannot be read: watchers see the end then.
    fn run(self, mut log: PacketLog) {
        let mut beat_at = Instant::now() + HEARTBEAT;
        loop {
            match log.listen(TICK) {
                Ok(heard) => heard.packets.iter().for_each(|logged| self.tell(logged)),
                Err(error) => {
                    tracing::warn!("{error}; kube-router monitor ends");
                    *lock(&self.live) = None;
                    return;
                }
            }
            if Instant::now() >= beat_at {
                beat_at = Instant::now() + HEARTBEAT;
                let _ = self.lines.send(Bytes::from_static(b"\n"));
            }
            let mut live = lock(&self.live);
            if self.lines.receiver_count() == 0 {
                *live = None;
                // Before the next watcher may open it anew.
                drop(log);
                return;
            }
        }
    }

    fn tell(&self, logged: &Logged) {
        let (answer, answered) = oneshot::channel();
        if self.core.blocking_send(Input::Explain(question(logged), answer)).is_err() {
            return;
        }
        // An address nothing is known of is no reason to say nothing.
        let explanation = answered.blocking_recv().ok().and_then(Result::ok);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        if let Ok(mut line) = serde_json::to_vec(&denied(logged, explanation.as_deref(), time)) {
            line.push(b'\n');
            // Whoever watched may have left.
            let _ = self.lines.send(line.into());
        }
    }
}

fn lock(live: &Live) -> MutexGuard<'_, Option<broadcast::Sender<Bytes>>> {
    // One value, replaced as a whole.
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

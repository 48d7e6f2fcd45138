//! The unix socket of the agent, which root alone may open: questions about the agent, and what the CNI plugin hands over.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::cni::{socket as sandboxes, wire};
use crate::core::{Account, Input};
use crate::explain::{self, Question};
use crate::{monitor, names};

/// How long the BGP speaker may take to answer.
const SPEAKER_PATIENCE: Duration = Duration::from_secs(2);

/// The socket could not be opened. The agent works without it.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the agent's socket {}: {source}", path.display())]
pub struct SocketError {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Where the socket is: `KUBE_ROUTER_SOCKET`, or the usual place.
pub fn path() -> PathBuf {
    std::env::var_os("KUBE_ROUTER_SOCKET").map_or_else(|| names::SOCKET.into(), PathBuf::from)
}

/// Serves the socket until the process ends. One that a killed agent left is replaced; one that is answered is not.
///
/// # Errors
/// [`SocketError`], also when another agent serves it.
pub async fn serve(path: &Path, core: mpsc::Sender<Input>) -> Result<(), SocketError> {
    let listener = bind(path).await.map_err(|source| SocketError { path: path.to_owned(), source })?;
    // Bound, but not served yet: what a plugin says from here on comes after what it has written before.
    sandboxes::recall(path, &core).await;
    let monitor = monitor::serve::routes(core.clone());
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/explain", get(explain))
        .route(wire::PATH, put(sandboxes::put).delete(sandboxes::delete))
        .with_state(core)
        .merge(monitor);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!("the socket of the agent has ended: {error}");
        }
    });
    Ok(())
}

async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent serves it"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn status(State(core): State<mpsc::Sender<Input>>) -> Response {
    let Some(Account { mut status, peers }) = answer(&core, Input::Status).await else { return stopping() };
    // A speaker without a configuration does not answer, and one that is stuck must not hold up the rest.
    if let Some(peers) = peers
        && let Ok(Ok(reports)) = tokio::time::timeout(SPEAKER_PATIENCE, peers).await
    {
        super::peers::add(&mut status.peers, &reports, Instant::now());
    }
    json(&*status)
}

async fn explain(State(core): State<mpsc::Sender<Input>>, Query(question): Query<Question>) -> Response {
    let asked = answer(&core, |answer| Input::Explain(question, answer)).await;
    let mut explanation = match asked {
        Some(Ok(explanation)) => explanation,
        Some(Err(unanswerable)) => {
            return (StatusCode::BAD_REQUEST, unanswerable.to_string()).into_response();
        }
        None => return stopping(),
    };
    let done = tokio::task::spawn_blocking(move || {
        explain::route::look_up(&mut explanation);
        explanation.conclude();
        explanation
    });
    match done.await {
        Ok(explanation) => json(&*explanation),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Puts a question to the core; nothing if it is gone.
async fn answer<T>(
    core: &mpsc::Sender<Input>,
    question: impl FnOnce(oneshot::Sender<T>) -> Input,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    core.send(question(answer)).await.ok()?;
    answered.await.ok()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn stopping() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping").into_response()
}

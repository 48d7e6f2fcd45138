//! The unix socket of the agent, which root alone may open: questions about the agent, and what the CNI plugin hands over.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::cni::{socket as sandboxes, wire};
use crate::core::Input;
use crate::names;

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
    let router = Router::new()
        .route("/v1/status", get(status))
        .route(wire::PATH, put(sandboxes::put).delete(sandboxes::delete))
        .with_state(core);
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
    let (answer, answered) = oneshot::channel();
    let asked = core.send(Input::Status(answer)).await.is_ok();
    match answered.await {
        Ok(status) if asked => match serde_json::to_vec(&*status) {
            Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping").into_response(),
    }
}

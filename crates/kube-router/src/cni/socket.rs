//! The agent's end: what the plugin says goes to the core, and its answer back.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::records;
use super::wire::Sandbox;
use crate::core::{self, Input, Progress};

/// Longest wait a request may ask for.
const LONGEST: Duration = Duration::from_secs(600);

/// The parameters of a request.
#[derive(Debug, Deserialize)]
pub struct Terms {
    /// How long the answer is waited for, in milliseconds; 0 if absent.
    #[serde(default)]
    wait: u64,
}

/// What a request is answered: a status, and a line for a person.
type Answer = (StatusCode, String);

/// Tells the core of sandboxes that were made while nobody was here to be told. A record that cannot be read is said and
/// left out.
pub async fn recall(socket: &Path, core: &mpsc::Sender<Input>) {
    let (sandboxes, wrong) = records::read_all(&records::folder(socket));
    for error in wrong {
        tracing::warn!("{error}; this pod is known when the API server shows its addresses");
    }
    for sandbox in sandboxes.iter().filter(|sandbox| sandbox.lacks().is_none()) {
        // The core is gone only when the process ends.
        let _ = core.send(Input::Sandbox(core::Sandbox::Wired(sandbox.announced(), None))).await;
    }
}

/// A sandbox is wired: answered when its pod may send, or when the time is up, with the reason.
pub async fn put(
    State(core): State<mpsc::Sender<Input>>,
    Query(terms): Query<Terms>,
    Json(sandbox): Json<Sandbox>,
) -> Answer {
    if let Some(field) = sandbox.lacks() {
        return (StatusCode::BAD_REQUEST, format!("{field} is missing"));
    }
    let (asker, mut progress) = watch::channel(Progress::Unseen);
    let told = core::Sandbox::Wired(sandbox.announced(), Some(asker));
    if core.send(Input::Sandbox(told)).await.is_err() {
        return stopping();
    }
    let wait = Duration::from_millis(terms.wait).min(LONGEST);
    let end = async { progress.wait_for(|progress| progress.is_final()).await.map(|reached| *reached) };
    let reached = match tokio::time::timeout(wait, end).await {
        Ok(Ok(reached)) => reached,
        Ok(Err(_)) => return stopping(),
        Err(_) => *progress.borrow(),
    };
    let status = match reached {
        Progress::Ready => StatusCode::OK,
        Progress::Over => StatusCode::GONE,
        _ => StatusCode::GATEWAY_TIMEOUT,
    };
    if reached != Progress::Ready {
        let interface = sandbox.host_interface.as_deref().unwrap_or("an unknown link");
        tracing::warn!("pod {} behind {interface} is not let go after {wait:?}: {reached}", sandbox.pod());
    }
    (status, reached.to_string())
}

/// A sandbox is gone.
pub async fn delete(State(core): State<mpsc::Sender<Input>>, Json(sandbox): Json<Sandbox>) -> Answer {
    let removed = core::Sandbox::Removed { pod: sandbox.pod(), container: sandbox.container.as_str().into() };
    match core.send(Input::Sandbox(removed)).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(_) => stopping(),
    }
}

fn stopping() -> Answer {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned())
}

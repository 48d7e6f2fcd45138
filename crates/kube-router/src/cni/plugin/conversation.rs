//! Talking to the agent of the node: again and again until it answers, or until the time is up.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use super::PluginError;
use super::call::Call;
use crate::cni::wire::{self, Sandbox};
use crate::status::client::{ClientError, ask};

/// Between two tries to reach an agent that is not there.
const PAUSE: Duration = Duration::from_millis(100);
/// How much later than asked for an answer may come.
const GRACE: Duration = Duration::from_millis(500);
/// How long a removal may take to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// Announces the pod until its rules are in the kernel. Bounded by the call's timeout.
pub(super) async fn announce(call: &Call) -> Result<(), PluginError> {
    let body = body(&call.sandbox()?)?;
    let end = Instant::now() + call.timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let target = format!("{}?{}={}", wire::PATH, wire::WAIT, left.as_millis());
        let asked = ask(&call.socket, Method::PUT, &target, body.clone());
        let failure = match tokio::time::timeout(left + GRACE, asked).await {
            Err(_) => return Err(PluginError::Unanswered(ClientError::Late)),
            Ok(Ok((StatusCode::OK, _))) => return Ok(()),
            // It is about to end; its successor may be in time.
            Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, text))) => ClientError::Answer(said(&text)),
            Ok(Ok((StatusCode::NOT_FOUND, _))) => {
                let text = "the agent knows nothing of sandboxes; it is older than this plugin".to_owned();
                return Err(PluginError::NotReady(text));
            }
            Ok(Ok((_, text))) => return Err(PluginError::NotReady(said(&text))),
            Ok(Err(error)) => error,
        };
        if Instant::now() + PAUSE >= end {
            return Err(PluginError::Unanswered(failure));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether an agent answers, whatever it says.
pub(super) async fn is_there(call: &Call) -> Result<(), PluginError> {
    once(call, Method::OPTIONS, Bytes::new(), call.timeout).await.map_err(PluginError::Unavailable)
}

/// Tells an agent, if there is one, that the sandbox is gone.
pub(super) async fn withdraw(call: &Call, sandbox: &Sandbox) -> Result<(), PluginError> {
    once(call, Method::DELETE, body(sandbox)?, FAREWELL).await.map_err(PluginError::Unanswered)
}

/// Asks once. Any answer will do.
async fn once(call: &Call, method: Method, body: Bytes, limit: Duration) -> Result<(), ClientError> {
    let asked = ask(&call.socket, method, wire::PATH, body);
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(ClientError::Late)).map(drop)
}

fn body(sandbox: &Sandbox) -> Result<Bytes, PluginError> {
    let text = serde_json::to_vec(sandbox).map_err(PluginError::Decode)?;
    Ok(Bytes::from(text))
}

fn said(text: &Bytes) -> String {
    String::from_utf8_lossy(text).into_owned()
}

//! Asking a running agent over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Status;

/// How long an agent may take to answer: longer than its slowest event.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no kube-router answers at {}: {source}; is it running on this node, and are you root?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent is busy or stuck.
    #[error("the agent has not answered within {} s; see its /healthz", PATIENCE.as_secs())]
    Late,
    /// The connection broke.
    #[error("asking the agent: {0}")]
    Http(#[from] hyper::Error),
    /// The agent said no.
    #[error("the agent answers {0}")]
    Answer(String),
    /// Another version's answer.
    #[error("the agent's answer cannot be read: {0}")]
    Format(#[from] serde_json::Error),
}

/// What the agent behind this socket says of itself.
///
/// # Errors
/// [`ClientError`].
pub async fn status(path: &Path) -> Result<Status, ClientError> {
    let asked = ask(path, Method::GET, "/v1/status", Bytes::new());
    let (code, body) = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| ClientError::Late)??;
    if code.is_success() {
        Ok(serde_json::from_slice(&body)?)
    } else {
        Err(ClientError::Answer(code.to_string()))
    }
}

/// Sends one request, with a body of JSON or none, and returns what is answered. Waits for ever.
///
/// # Errors
/// [`ClientError`], if there is no answer.
pub(crate) async fn ask(
    path: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the request; its own error is the request's, too.
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "kube-router")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body));
    let request = request.map_err(|error| ClientError::Answer(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    Ok((code, response.into_body().collect().await?.to_bytes()))
}

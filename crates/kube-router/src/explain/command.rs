//! `kube-router explain --from … --to …`.

use std::path::PathBuf;

use clap::Parser;

use super::{Question, client, text};
use crate::status::client::ClientError;
use crate::status::socket;
use crate::terminal::{Output, Paint};

/// Explains what becomes of packets: which backends a Service has, which policies permit or refuse them by name, which
/// route they take. It is the answer of this node's agent; policies of pods elsewhere are enforced there.
#[derive(Parser, Debug)]
#[command(name = "kube-router explain", bin_name = "kube-router explain")]
pub struct ExplainCommand {
    /// Who sends: NAMESPACE/POD, an address, or "node" for this node
    #[arg(long, value_name = "POD|IP")]
    from: String,
    /// Who is to receive: NAMESPACE/POD, NAMESPACE/SERVICE (or service/NAME), an address, or "node"
    #[arg(long, value_name = "POD|SERVICE|IP")]
    to: String,
    /// Destination port; for a Service, one of its own. Without it: every port of a Service
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Protocol [default: tcp if there is a port]
    #[arg(long, value_parser = ["tcp", "udp", "sctp"])]
    protocol: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Socket of the agent [default: $KUBE_ROUTER_SOCKET, else /run/kube-router/kube-router.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// The command failed; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot be shown as JSON.
    #[error("cannot show the explanation")]
    Show(#[from] serde_json::Error),
}

impl ExplainCommand {
    /// Asks, and returns what is to be shown.
    ///
    /// # Errors
    /// [`ExplainError`].
    pub async fn run(self) -> Result<String, ExplainError> {
        let question = Question { from: self.from, to: self.to, port: self.port, protocol: self.protocol };
        let explanation = client::explain(&self.socket.unwrap_or_else(socket::path), &question).await?;
        Ok(match self.output {
            Output::Table => text::of(&explanation, Paint::for_stdout()),
            Output::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        })
    }
}

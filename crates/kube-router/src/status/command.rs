//! `kube-router status`: what the agent of this node says of itself.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::{client, socket, table};

/// Shows what the agent of this node knows, has programmed, and could not.
#[derive(Parser, Debug)]
#[command(name = "kube-router status", about, long_about = None)]
pub struct StatusCommand {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Socket of the agent [default: $KUBE_ROUTER_SOCKET, else /run/kube-router/kube-router.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The command failed; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// It cannot be shown as JSON.
    #[error("cannot show the status: {0}")]
    Show(#[from] serde_json::Error),
}

impl StatusCommand {
    /// Asks, and returns what is to be shown.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn run(self) -> Result<String, StatusError> {
        let status = client::status(&self.socket.unwrap_or_else(socket::path)).await?;
        Ok(match self.output {
            Output::Table => table::text(&status),
            Output::Json => serde_json::to_string_pretty(&status)? + "\n",
        })
    }
}

//! `kube-router status`: what the agent of this node says of itself.

use std::path::PathBuf;

use clap::Parser;

use super::section::{self, Section};
use super::{client, socket, table};
use crate::terminal::Output;

/// Shows what the agent of this node knows, has programmed, and could not.
#[derive(Parser, Debug)]
#[command(name = "kube-router status", bin_name = "kube-router status")]
pub struct StatusCommand {
    /// Parts to show; all, if none is named
    #[arg(value_enum, value_name = "PART")]
    sections: Vec<Section>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Socket of the agent [default: $KUBE_ROUTER_SOCKET, else /run/kube-router/kube-router.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// The command failed; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// It cannot be shown as JSON.
    #[error("cannot show the status")]
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
            Output::Table => table::text(&status, &self.sections),
            Output::Json => {
                let mut status = serde_json::to_value(&status)?;
                section::keep(&mut status, &self.sections);
                serde_json::to_string_pretty(&status)? + "\n"
            }
        })
    }
}

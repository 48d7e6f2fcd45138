//! `kube-router monitor`: shows refused packets until it is interrupted.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use http_body_util::BodyExt;

use super::{Denied, SAMPLE, line};
use crate::status::client::{self, ClientError};
use crate::status::socket;
use crate::terminal::Output;

/// Shows packets that network policy refuses on this node, with pods by name and the policies that restrict them. It is a
/// sample: at most 10 refused packets a minute are logged of pods restricted by the same policies (with iptables, of each
/// pod) and direction.
#[derive(Parser, Debug)]
#[command(name = "kube-router monitor", bin_name = "kube-router monitor")]
pub struct MonitorCommand {
    /// Only packets from or to this pod: NAMESPACE/NAME
    #[arg(long)]
    pod: Option<String>,
    /// End after so many packets
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,
    /// How to show it; JSON is one line a packet
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Socket of the agent [default: $KUBE_ROUTER_SOCKET, else /run/kube-router/kube-router.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// The command failed; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The agent has ended, or cannot read the log any more.
    #[error("the agent has stopped telling: see its log")]
    Ended,
}

impl MonitorCommand {
    /// Shows packets as they come; returns when there were enough, or nobody reads stdout any more.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub async fn run(self) -> Result<String, MonitorError> {
        let path = self.socket.clone().unwrap_or_else(socket::path);
        let mut body = client::open(&path, "/v1/monitor").await?.into_body();
        // To stderr: not a part of what programs read.
        let _ = writeln!(io::stderr(), "watching; {SAMPLE}");
        let (mut pending, mut left) = (Vec::new(), self.count.unwrap_or(u64::MAX));
        while left > 0 {
            let frame = body.frame().await.ok_or(MonitorError::Ended)?.map_err(ClientError::Http)?;
            let Some(data) = frame.data_ref() else { continue };
            pending.extend_from_slice(data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let Some(text) = self.shown(&line)? else { continue };
                if left == 0 || writeln!(io::stdout(), "{text}").is_err() {
                    return Ok(String::new());
                }
                left -= 1;
            }
        }
        Ok(String::new())
    }

    /// A line as it is to be shown; nothing for one that is empty, or about other pods.
    fn shown(&self, line_of_json: &[u8]) -> Result<Option<String>, ClientError> {
        if line_of_json.trim_ascii().is_empty() {
            return Ok(None);
        }
        let denied: Denied = serde_json::from_slice(line_of_json)?;
        let concerns = |pod: &String| [&denied.from.pod, &denied.to.pod].contains(&&Some(pod.clone()));
        if self.pod.as_ref().is_some_and(|pod| !concerns(pod)) {
            return Ok(None);
        }
        Ok(Some(match self.output {
            Output::Table => line(&denied),
            Output::Json => String::from_utf8_lossy(line_of_json.trim_ascii()).into_owned(),
        }))
    }
}

//! One `kube-router` process in a node's namespaces: started, stopped, killed, started again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use crate::node::{Node, plugin_path};
use crate::process;

/// What to start and how.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) program: PathBuf,
    /// `--master`; without it the agent looks for a kubeconfig, then for what a pod gets.
    pub(super) master: Option<String>,
    /// Variables besides those of every agent.
    pub(super) environment: Vec<(String, String)>,
    pub(super) arguments: Vec<String>,
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent in the node's network and mount namespace; its output is appended to `log`.
    pub(super) fn start(node: &Node, command: &Command, log: &Path) -> Result<Self, Error> {
        let opened = OpenOptions::new().create(true).append(true).open(log);
        let output = opened.map_err(|source| Error::Log { path: log.to_owned(), source })?;
        let errors = output.try_clone().map_err(|source| Error::Log { path: log.to_owned(), source })?;
        let mut agent = process::tied(&command.program);
        agent
            .args(&command.master)
            .args(&command.arguments)
            .env("NODE_NAME", node.name())
            .env("CNI_PATH", plugin_path())
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = node.namespace().run(move || process::spawn(&mut agent))??;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed since the cluster started, earlier lives included.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status as a shell reports it, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(process::exit_code)
    }

    /// kill -9.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for `limit` at most; returns its exit status, or none if it had to be killed.
    pub fn stop(mut self, limit: Duration) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).ok()?;
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

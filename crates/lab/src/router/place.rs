//! Where a router's daemons live: files, processes and tools inside its namespaces.
//!
//! Its `/run` is its own, so every daemon may use its usual socket and file names there.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Error;
use crate::node::Namespace;
use crate::process;

/// Seconds after which a tool that asks a daemon is given up.
const PATIENCE: &str = "60";
/// The same for a daemon that is asked over a socket.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) namespace: Arc<Namespace>,
    /// On the host, gone with the lab.
    pub(super) log: PathBuf,
    pub(super) addresses: Vec<IpNet>,
}

impl Place {
    /// The router's address of the family of `like`.
    pub(super) fn address(&self, like: IpAddr) -> Result<IpAddr, Error> {
        let same = |net: &&IpNet| net.addr().is_ipv4() == like.is_ipv4();
        let found = self.addresses.iter().find(same).map(IpNet::addr);
        found.ok_or_else(|| Error::NoAddress { router: self.name.clone(), like })
    }

    pub(super) fn write(&self, path: &str, text: String) -> Result<(), Error> {
        let path = PathBuf::from(path);
        let failed = {
            let path = path.clone();
            |source| Error::File { path, source }
        };
        let work = move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&path, text)
        };
        self.namespace.run(work)?.map_err(failed)
    }

    /// Writes into a named pipe somebody reads; fails if nobody does.
    pub(super) fn feed(&self, path: &str, text: String) -> Result<(), Error> {
        let failed = {
            let path = path.into();
            |source| Error::File { path, source }
        };
        let path = path.to_owned();
        let work = move || {
            let mut open = OpenOptions::new();
            open.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
            open.open(path)?.write_all(text.as_bytes())
        };
        self.namespace.run(work)?.map_err(failed)
    }

    /// Asks over a unix socket: one line there, one line back.
    pub(super) fn ask_socket(&self, path: &str, line: String) -> Result<String, Error> {
        let failed = {
            let path = path.into();
            |source| Error::File { path, source }
        };
        let path = path.to_owned();
        let work = move || {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(format!("{line}\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).map(|_| answer)
        };
        self.namespace.run(work)?.map_err(failed)
    }

    /// The file's text; nothing if there is none.
    pub(super) fn read(&self, path: &str) -> Result<String, Error> {
        let path = path.to_owned();
        let bytes = self.namespace.run(move || std::fs::read(path).unwrap_or_default())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs a tool and returns what it printed.
    pub(super) fn ask<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, Error> {
        let mut tool = process::command("timeout");
        tool.args([PATIENCE, program]).args(arguments);
        Ok(self.namespace.run(move || process::run(&mut tool))??)
    }

    /// [`Place::ask`] for a tool that answers with JSON.
    pub(super) fn ask_json<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<serde_json::Value, Error> {
        let text = self.ask(program, arguments)?;
        serde_json::from_str(&text).map_err(|_| Error::answer(program, &text))
    }

    /// Starts a daemon that ends with the namespace; what it prints goes to the router's log.
    pub(super) fn start<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Result<Child, Error> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.log);
        let failed = |source| Error::File { path: self.log.clone(), source };
        let output = opened.map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let mut daemon = process::tied(program);
        daemon.args(arguments).envs(environment.iter().copied());
        daemon.stdin(Stdio::null()).stdout(output).stderr(errors);
        Ok(self.namespace.run(move || process::spawn(&mut daemon))??)
    }

    /// Whether `path` is there.
    pub(super) fn has(&self, path: &str) -> Result<bool, Error> {
        let path = PathBuf::from(path);
        Ok(self.namespace.run(move || path.exists())?)
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), Error> {
        let path = PathBuf::from(path);
        self.namespace.run(move || {
            let _ = std::fs::remove_file(path);
        })?;
        Ok(())
    }
}

/// All of a log; nothing if there is none.
pub(super) fn text(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

/// A word of a message for people: the last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let text = text(log);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

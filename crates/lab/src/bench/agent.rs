//! The agent as a process: started with ordinary flags, asked over its own ports, read through `/proc`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::world::{World, get, wait_for};
use super::{Error, Lab, io, objects};
use crate::node::Namespace;
use crate::process;

const HEALTH: &str = "127.0.0.1:20244";
/// How often readiness is asked: fine against the tenths of a second it comes in, and still cheap against the work.
const READY_EVERY: Duration = Duration::from_millis(5);
/// Longest wait for a kernel that is as it should be.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// A running agent; killed when dropped, its rows stay.
pub(super) struct Agent {
    child: Child,
    namespace: Arc<Namespace>,
    log: PathBuf,
    pub(super) started: Instant,
}

/// Resident memory in KiB, from `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// `RssAnon`: what is the process's own.
    pub(super) anonymous: u64,
    /// `VmHWM`: the most that was ever resident, shared pages of the executable included.
    pub(super) peak: u64,
}

impl Agent {
    /// With the service proxy alone.
    pub(super) fn start(lab: &Lab<'_>, world: &World) -> Result<Agent, Error> {
        let flags = ["--run-service-proxy=true", "--run-firewall=false", "--run-router=false"];
        Agent::start_with(lab, world, &flags.map(str::to_owned))
    }

    pub(super) fn start_with(lab: &Lab<'_>, world: &World, flags: &[String]) -> Result<Agent, Error> {
        let log = std::env::temp_dir().join(format!("lab-bench-{}.log", std::process::id()));
        let file = File::create(&log).map_err(io(format!("writing {}", log.display())))?;
        let errors = file.try_clone().map_err(io("sharing the log"))?;
        let mut command = process::tied(lab.agent);
        command
            .arg(format!("--master=http://{}", world.address))
            .arg(format!("--hostname-override={}", objects::NODE))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors);
        let started = Instant::now();
        let child = world.namespace.run(move || process::spawn(&mut command))??;
        Ok(Agent { child, namespace: Arc::clone(&world.namespace), log, started })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the agent says that the kernel is as it should be for the first time. Returns when it was seen: at
    /// most the polling interval after the agent knew, which is after the kernel's last acknowledgement.
    pub(super) fn ready(&mut self) -> Result<Instant, Error> {
        let (namespace, log) = (Arc::clone(&self.namespace), self.log.clone());
        let address = HEALTH.parse().map_err(|_| Error::Wrong(format!("{HEALTH} is no address")))?;
        let child = &mut self.child;
        let outcome = wait_for("readiness of the agent", READY_LIMIT, READY_EVERY, || {
            if let Some(status) = child.try_wait().map_err(io("looking after the agent"))? {
                return Err(Error::Wrong(format!("the agent ended ({status}){}", last_words(&log))));
            }
            // Nobody listens yet in the first moments.
            let answer = get(&namespace, address, "/readyz");
            Ok(answer.ok().filter(|(status, _)| *status == 200).map(|_| Instant::now()))
        });
        outcome.map_err(|error| match error {
            Error::TooLate { what, seconds, .. } => {
                Error::TooLate { what, seconds, said: last_words(&self.log) }
            }
            other => other,
        })
    }

    /// Resident memory now.
    pub(super) fn memory(&self) -> Result<Memory, Error> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
        let field = |name| {
            field(&text, name)
                .ok_or_else(|| Error::Wrong(format!("{path} has no {name}; a kernel before 4.5?")))
        };
        Ok(Memory { anonymous: field("RssAnon")?, peak: field("VmHWM")? })
    }

    /// Context switches of all threads so far.
    pub(super) fn context_switches(&self) -> Result<u64, Error> {
        let mut sum = 0;
        for task in self.threads()? {
            // A thread that ended meanwhile takes its count along.
            let path = format!("/proc/{}/task/{task}/status", self.pid());
            let Ok(text) = fs::read_to_string(path) else { continue };
            sum += field(&text, "voluntary_ctxt_switches").unwrap_or(0)
                + field(&text, "nonvoluntary_ctxt_switches").unwrap_or(0);
        }
        Ok(sum)
    }

    /// User and system time so far, in clock ticks of 10 ms.
    pub(super) fn cpu_ticks(&self) -> Result<u64, Error> {
        let path = format!("/proc/{}/stat", self.pid());
        let text = fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
        // Behind the name in parentheses: state is field 3, utime and stime are 14 and 15 (proc(5)).
        let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        Ok(fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    /// Ids of its threads.
    pub(super) fn threads(&self) -> Result<Vec<u32>, Error> {
        let path = format!("/proc/{}/task", self.pid());
        let entries = fs::read_dir(&path).map_err(io(format!("reading {path}")))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!("; its last words:\n{}", last.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_status_are_found_by_their_whole_name() {
        let text = "VmHWM:\t   20480 kB\nRssAnon:\t    1024 kB\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "RssAnon"), Some(1024));
        assert_eq!(field(text, "VmHWM"), Some(20480));
        assert_eq!(field(text, "voluntary_ctxt_switches"), None);
    }
}

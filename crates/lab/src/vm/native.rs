//! The other way to run a job: on this kernel, in fresh namespaces, where it has what the agent needs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::job::Job;
use crate::process::{self, command};

/// What this kernel cannot do of what the whole test suite needs; empty when it can everything. Found by trying each in
/// a namespace of its own, never from version numbers or configuration files.
pub fn missing() -> Vec<&'static str> {
    let attempts: [(&str, &[&str]); 4] = [
        ("IPVS", &["ipvsadm", "-A", "-t", "192.0.2.1:80", "-s", "rr"]),
        ("dummy links", &["ip", "link", "add", "lab-probe", "type", "dummy"]),
        (
            "ipip links",
            &["ip", "link", "add", "lab-probe", "type", "ipip", "local", "192.0.2.1", "remote", "192.0.2.2"],
        ),
        ("FoU ports", &["ip", "fou", "add", "port", "5555", "ipproto", "4"]),
    ];
    let fails = |argv: &[&str]| process::run(command("unshare").args(["--net", "--"]).args(argv)).is_err();
    attempts.into_iter().filter(|(_, argv)| fails(argv)).map(|(name, _)| name).collect()
}

/// Runs the steps of `job` in a fresh mount and network namespace each, with their exit status; 124 for a step that was
/// not done when the time was up, as timeout(1) reports it.
pub fn run(job: &Job, timeout: Duration) -> Result<Vec<i32>, process::Error> {
    let deadline = Instant::now() + timeout;
    let mut statuses = Vec::new();
    for step in &job.steps {
        if let Some(title) = &step.title {
            eprintln!("{title}");
        }
        let left = deadline.saturating_duration_since(Instant::now()).as_secs().max(1);
        let mut command = command("timeout");
        command
            .args(["--foreground", "--kill-after=5", &left.to_string()])
            .args(["unshare", "--mount", "--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .args(&step.argv)
            .current_dir(&step.cwd)
            .envs(step.env.iter().map(|(name, value)| (name, value)));
        if !job.interactive {
            command.stdin(Stdio::null());
        }
        let name = process::describe(&command);
        let status = process::spawn(&mut command)?
            .wait()
            .map_err(|source| process::Error::Lost { command: name, source })?;
        statuses.push(process::exit_code(status));
    }
    Ok(statuses)
}

//! The agent's container from its start to its end: it becomes ready, has the privileges of its manifest and no others,
//! says that it has settled, and ends with 0 when it is asked to.

use std::fs;
use std::time::{Duration, Instant};

use lab::cluster::eventually;
use lab::process::{self, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::SOON;
use super::pod::Pod;
use super::stage::Stage;
use crate::agent;
use crate::privileges::Process;

/// From the start of the agent's container to its end; `at_work` looks at the node in between.
pub(super) async fn life(stage: &Stage, pod: &Pod, at_work: impl AsyncFnOnce()) {
    let log = stage.cluster.fabric().folder().join("container.log");
    let mut running = stage.containerd.spawn(pod, "kube-router", &log);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let probe = stage.cluster.node_probe(1).unwrap();
    let end = Instant::now() + SOON;
    loop {
        if let Some(status) = running.try_wait().unwrap() {
            panic!("it ended with {}:\n{}", process::exit_code(status), said());
        }
        match probe.get("127.0.0.1:20244".parse().unwrap(), "/readyz").await {
            Ok((200, _)) => break,
            other => assert!(Instant::now() < end, "/readyz: {other:?}\n{}", said()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = stage.containerd.pid("kube-router").unwrap();
    has_named_privileges_only(pod, pid);
    at_work().await;
    settles(stage).await;

    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
    let end = Instant::now() + SOON;
    let exit = loop {
        match running.try_wait().unwrap() {
            Some(status) => break process::exit_code(status),
            None if Instant::now() > end => panic!("it does not stop:\n{}", said()),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(exit, 0, "{}", said());
}

/// Waits for the agent's own word, over the socket that the manifest puts on the node.
async fn settles(stage: &Stage) {
    let look = || async {
        let program = agent();
        let text = stage.inside(move || process::run(command(program).args(["status", "-o", "json"])));
        let status: Value = serde_json::from_str(&text.expect("status exits 0")).unwrap();
        if status["settled"] == true { Ok(()) } else { Err(format!("it has not settled: {status:#}")) }
    };
    eventually(SOON, look).await.unwrap_or_else(|error| panic!("{error}"));
}

/// The kernel's view of the process: exactly the capabilities the manifest names, seccomp, and a root nobody can write.
fn has_named_privileges_only(pod: &Pod, pid: u32) {
    let named = pod.container("kube-router")["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let process = Process::of(pid);
    process.has_only(&named.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>());
    process.sees("/", "ro");
    process.sees("/proc/sys", "ro");
    process.sees("/host/proc/sys/net", "rw");
}

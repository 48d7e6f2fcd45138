//! A thread of the agent that hangs: the one thing a restart may help against, so the one thing that turns `/healthz`
//! red, once it had work for its period and grace; and nothing else does.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use lab::cluster::{Cluster, eventually};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::setup::{LATEST, PATIENCE, everyone_reaches_everyone, knows, routed, until};

const HEALTH: u16 = 20244;

/// A thread of another process that does not run until this is dropped.
struct Held {
    let_go: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Held {
    /// Stops the thread of this name. Only it: a signal would stop the whole process.
    fn thread(process: u32, name: &str) -> Held {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let is = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let task =
            tasks.map(|task| task.unwrap().path()).find(is).unwrap_or_else(|| panic!("a thread {name}"));
        let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        let (let_go, wait) = mpsc::channel();
        let (stopped, is_stopped) = mpsc::channel();
        // Who has stopped a thread is the only one to let it go.
        let tracer = std::thread::spawn(move || {
            ptrace::seize(thread, ptrace::Options::empty()).unwrap();
            ptrace::interrupt(thread).unwrap();
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            stopped.send(()).unwrap();
            let _ = wait.recv();
            ptrace::detach(thread, None).unwrap();
        });
        is_stopped.recv().unwrap();
        Held { let_go: Some(let_go), tracer: Some(tracer) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.let_go.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

async fn says(cluster: &Cluster, node: usize, path: &str) -> Result<(u16, String), String> {
    let probe = cluster.node_probe(node).map_err(|error| error.to_string())?.patience(LATEST);
    let to = SocketAddr::from(([127, 0, 0, 1], HEALTH));
    probe.get(to, path).await.map_err(|failure| format!("{path}: {failure}"))
}

/// Waits until node 1 answers so at `/healthz`.
async fn healthz(cluster: &Cluster, wanted: (u16, &str)) {
    let look = || async {
        let (status, body) = says(cluster, 1, "/healthz").await?;
        if (status, body.as_str()) == wanted {
            Ok(())
        } else {
            Err(format!("{wanted:?}, not {status} {body}"))
        }
    };
    // Period and grace are a minute and a half.
    eventually(2 * PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_hangs_turns_healthz_red_until_it_goes_on() {
    let mut cluster = routed(2, 1, &[]).await;
    knows(&cluster, 1, &[2]).await;
    healthz(&cluster, (200, "OK\n")).await;
    let process = cluster.agent(1).unwrap().pid();
    let held = Held::thread(process, "lane-route");
    let range = cluster.node(2).unwrap().pod_ranges()[0].to_string();
    cluster.on_node(1, &format!("ip route del {range}")).unwrap();
    assert_eq!(says(&cluster, 1, "/healthz").await.unwrap().0, 200, "not at once: a lane may take its time");
    healthz(&cluster, (500, "Unhealthy")).await;
    let (ready, why) = says(&cluster, 1, "/readyz").await.unwrap();
    assert!(ready == 503 && why.contains("route lane"), "{ready} {why}");
    assert_eq!(says(&cluster, 2, "/healthz").await.unwrap().0, 200, "of another node");
    let there = || cluster.on_node(1, &format!("ip route show {range}")).unwrap();
    assert_eq!(there(), "", "it did hang");

    drop(held);
    healthz(&cluster, (200, "OK\n")).await;
    until("the route is back", || match there() {
        text if text.contains("via") => Ok(()),
        text => Err(text),
    })
    .await;
    everyone_reaches_everyone("after all", &cluster, &[1, 2]).await;
}

//! The agent dies, the API server goes away or loses its memory: connections do not notice.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use lab::api_server::{Availability, Resource};
use lab::cluster::{Cluster, eventually};
use lab::probe::{Asking, Probe, Protocol};
use lab::process;
use serde_json::json;

use crate::setup::{
    Cell, SOON, cluster, cluster_ips, http, in_pod, log, metric, pod, programmed, reach, ready, service,
    set_ready, snapshot, tool,
};

/// Questions a second, each on a connection of its own.
const RATE: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn connections_do_not_notice() {
    let mut cluster = cluster(2, &[]).await;
    let web = service(&cluster, "web", "web", json!({}));
    for (name, node, app) in [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client")] {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1"]).await;
    let probe = in_pod(&cluster, "c-1");
    let cells: Vec<Cell> = cluster_ips(&web)
        .into_iter()
        .map(|ip| (probe.clone(), Protocol::Tcp, SocketAddr::new(ip, 80)))
        .collect();
    reach("before", &cells, &["web-1", "web-2"]).await;
    let control = probe.rate(Protocol::Tcp, cells[0].2, RATE, Duration::from_secs(3)).finish().await;
    assert!(control.failed.is_empty(), "this machine cannot carry the probe: {control:?}");

    killed_and_started_again(&mut cluster, &probe, &cells).await;
    api_server_gone(&mut cluster, &probe, &cells).await;
    api_server_hangs(&mut cluster, &probe, &cells).await;
    watches_break(&cluster, &probe).await;
    stopped(&mut cluster, &cells).await;
}

fn ask(probe: &Probe, cells: &[Cell]) -> Vec<Asking> {
    cells.iter().map(|cell| probe.rate(cell.1, cell.2, RATE / 2, Duration::from_secs(300))).collect()
}

async fn none_failed(about: &str, asking: Vec<Asking>) {
    for asking in asking {
        let rate = asking.stop().await;
        assert!(rate.asked > 10, "{about}: {rate:?}");
        assert!(
            rate.failed.is_empty(),
            "{about}: {} of {}: {:?}",
            rate.failed.len(),
            rate.asked,
            rate.failed
        );
    }
}

async fn killed_and_started_again(cluster: &mut Cluster, probe: &Probe, cells: &[Cell]) {
    let before = snapshot(cluster, 1);
    let watching = Watching::start(cluster, 1);
    let open = probe.talk(Protocol::Tcp, cells[0].2, Duration::from_millis(50)).await.unwrap();
    let asking = ask(probe, cells);
    let agent = cluster.take_agent(1).expect("it runs");
    agent.kill();
    assert_eq!(snapshot(cluster, 1), before, "kill -9 leaves everything");
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
    none_failed("kill -9 and start under the probe", asking).await;
    let open = open.stop().await;
    assert!(open.broke.is_none(), "an open connection: {open:?}");
    assert_eq!(snapshot(cluster, 1), before, "a restart changes nothing");
    assert_eq!(watching.stop(), "", "nor writes it anything anew");
    // Not written anew either: what is deleted and comes back counts from zero.
    let stats = tool(cluster, 1, "ipvsadm -Ln --stats --exact");
    let vip = cells[0].2.to_string();
    let row = stats.lines().find(|line| line.contains(&vip)).unwrap_or_else(|| panic!("{vip}: {stats}"));
    let connections: u64 = row.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(connections > 60, "the virtual server is the same as before the restart: {row}");
}

async fn api_server_gone(cluster: &mut Cluster, probe: &Probe, cells: &[Cell]) {
    let faults = cluster.faults();
    let before = snapshot(cluster, 1);
    let asking = ask(probe, cells);
    faults.set_availability(Availability::Refusing);
    let said =
        || async { if log(cluster, 2).contains("does not work") { Ok(()) } else { Err(log(cluster, 2)) } };
    eventually(SOON, said).await.expect("the log says that the API server is gone");
    // An agent that starts now says so, goes on trying, and touches nothing.
    cluster.take_agent(1).expect("it runs").kill();
    let before_start = log(cluster, 1).len();
    cluster.start_agent(1).unwrap();
    let said = || async {
        let log = log(cluster, 1);
        if log[before_start..].contains("does not work") { Ok(()) } else { Err(log) }
    };
    eventually(SOON, said).await.expect("an agent started without API server says so");
    let (status, _) = http(cluster, 1, "http://127.0.0.1:20244/readyz");
    assert_eq!(status, 503, "/readyz before the first list");
    assert_eq!(snapshot(cluster, 1), before, "without API server nothing changes");
    // What happens meanwhile is caught up with.
    set_ready(cluster, "web-2", false);
    faults.set_availability(Availability::Serving);
    programmed(cluster, 1).await;
    reach("the change made while it was away", cells, &["web-1"]).await;
    set_ready(cluster, "web-2", true);
    reach("and a change after", cells, &["web-1", "web-2"]).await;
    none_failed("with the API server gone and back", asking).await;
    let (status, body) = http(cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "{body}");
}

/// Connections to it are taken and never answered: worse than a refusal, because nothing says so.
async fn api_server_hangs(cluster: &mut Cluster, probe: &Probe, cells: &[Cell]) {
    let faults = cluster.faults();
    let before = snapshot(cluster, 1);
    let asking = ask(probe, cells);
    faults.set_availability(Availability::Hanging);
    cluster.take_agent(1).expect("it runs").kill();
    cluster.start_agent(1).unwrap();
    let alive = || async {
        match http(cluster, 1, "http://127.0.0.1:20244/readyz") {
            (503, _) => Ok(()),
            other => Err(format!("/readyz: {other:?}")),
        }
    };
    eventually(SOON, alive).await.expect("an agent that waits for its first list is not ready");
    let (status, body) = http(cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "waiting is no illness: {body}");
    set_ready(cluster, "web-2", false);
    assert_eq!(snapshot(cluster, 1), before, "while the API server hangs nothing changes");
    faults.set_availability(Availability::Serving);
    programmed(cluster, 1).await;
    reach("the change made while it hung", cells, &["web-1"]).await;
    set_ready(cluster, "web-2", true);
    reach("and a change after", cells, &["web-1", "web-2"]).await;
    none_failed("with the API server hanging and back", asking).await;
}

/// What the kernel tells everybody about changes of links, addresses, routes, policy rules and nftables (which
/// `iptables-nft` writes), as foreign tools print it.
struct Watching(Vec<(Child, PathBuf)>);

impl Watching {
    /// Listens from now on; a change made here and now is seen by both tools before this returns.
    fn start(cluster: &Cluster, node: usize) -> Watching {
        let lines: [&[&str]; 2] =
            [&["ip", "monitor", "link", "address", "route", "rule"], &["nft", "monitor"]];
        let listening = lines.map(|words| {
            let path = cluster.fabric().folder().join(format!("{}-monitor.txt", words[0]));
            let file = std::fs::File::create(&path).unwrap();
            let mut command = process::command(words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(file);
            let start = move || process::spawn(&mut command);
            (cluster.node(node).unwrap().namespace().run(start).unwrap().unwrap(), path)
        });
        let watching = Watching(listening.into());
        watching.wait_for_canary(cluster, node);
        watching
    }

    /// A rule and a table of our own making, gone at once: whoever listens says so.
    fn wait_for_canary(&self, cluster: &Cluster, node: usize) {
        for _ in 0..100 {
            for line in [
                "ip rule add priority 31999 lookup 31999",
                "ip rule del priority 31999 lookup 31999",
                "nft add table ip canary",
                "nft delete table ip canary",
            ] {
                tool(cluster, node, line);
            }
            let heard = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
            let all = self.0.iter().all(|(_, path)| {
                let text = heard(path);
                text.contains("31999") || text.contains("canary")
            });
            if all {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("ip monitor and nft monitor hear nothing");
    }

    /// What was heard but the canary.
    fn stop(self) -> String {
        let mut heard = String::new();
        for (mut child, path) in self.0 {
            let _ = child.kill();
            let _ = child.wait();
            let text = std::fs::read_to_string(path).unwrap();
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            // `nft monitor` tells the generation and who made it behind each change.
            let strange = lines.filter(|line| {
                !line.contains("31999") && !line.contains("canary") && !line.starts_with("# new generation")
            });
            heard.extend(strange.map(|line| format!("{line}\n")));
        }
        heard
    }
}

async fn watches_break(cluster: &Cluster, probe: &Probe) {
    let faults = cluster.faults();
    let breaks: [(&str, &dyn Fn()); 4] = [
        ("disconnected", &|| faults.disconnect_watches()),
        ("expired", &|| faults.expire_watches()),
        ("compacted and disconnected", &|| {
            faults.compact();
            faults.disconnect_watches();
        }),
        ("old news again", &|| faults.repeat_events(Resource::EndpointSlices, 10)),
    ];
    for (number, (about, break_it)) in breaks.into_iter().enumerate() {
        break_it();
        let web = service(cluster, &format!("after-{number}"), "web", json!({}));
        let ips = cluster_ips(&web).into_iter();
        let cells: Vec<Cell> =
            ips.map(|ip| (probe.clone(), Protocol::Tcp, SocketAddr::new(ip, 80))).collect();
        reach(about, &cells, &["web-1", "web-2"]).await;
        cluster.api().delete(Resource::Services, Some("default"), &format!("after-{number}"), None).unwrap();
    }
    assert!(metric(cluster, 1, "kube_router_watch_synced{resource=\"Service\"}") > 0.0);
}

async fn stopped(cluster: &mut Cluster, cells: &[Cell]) {
    let agent = cluster.take_agent(1).expect("it runs");
    assert_eq!(agent.stop(Duration::from_secs(30)), Some(0), "SIGTERM ends it with status 0");
    reach("after SIGTERM", cells, &["web-1", "web-2"]).await;
    let left = tool(cluster, 1, "ip addr show dev kube-dummy-if");
    assert!(left.contains(&format!("{}/32", cells[0].2.ip())), "{left}");
}

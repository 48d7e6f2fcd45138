//! Agents that are killed or restarted while pods speak to each other a thousand times a second, and one that hangs.
//!
//! With graceful restart nothing is lost: the kernel keeps forwarding, peers keep the routes, and what the restarted agent
//! says of itself is true. FRR above the nodes says what it was told; `ip monitor` says what became of routes. Without it,
//! routes of a node that says nothing go after the hold time.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, eventually};
use lab::probe::{Asking, Protocol};
use lab::router::{Router, Software};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::above::{above, peers_with_all, spreads};
use crate::setup::{
    LATEST, PATIENCE, PORT, addresses, established, everyone_reaches_everyone, knows, learned, log, metric,
    metrics, ranges, routed, until,
};

/// Questions a second, each on a socket of its own.
const RATE: u32 = 1000;
/// The same through tunnels, which an emulated machine has to carry.
const RATE_THROUGH_TUNNELS: u32 = 100;
pub(crate) const GRACEFUL: [&str; 5] = [
    "--bgp-graceful-restart=true",
    "--bgp-graceful-restart-time=300s",
    "--bgp-graceful-restart-deferral-time=100s",
    "--peer-router-ips=172.31.0.101",
    "--peer-router-asns=65000",
];

/// Everything that happens to the routes of a node from now on.
pub(crate) struct Watch {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Watch {
    pub(crate) fn on(cluster: &Cluster, node: usize) -> Watch {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = file.reopen().unwrap();
        let mut command: Command = lab::process::tied("ip");
        command.args(["-o", "monitor", "route"]).stdin(Stdio::null()).stdout(output);
        let namespace = cluster.node(node).unwrap().namespace();
        let child = namespace.run(move || lab::process::spawn(&mut command)).unwrap().unwrap();
        Watch { child, file }
    }

    /// Removals of routes to pods.
    pub(crate) fn lost(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file.path()).unwrap();
        let of_pods = |line: &&str| line.starts_with("Deleted") && line.contains("proto 17");
        let named = |line: &&str| line.starts_with("Deleted") && line.contains("proto mrouted");
        text.lines().filter(|line| of_pods(line) || named(line)).map(str::to_owned).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Questions between the pods of the first two nodes, each series with its name.
fn ask_both_ways(cluster: &Cluster, rate: u32) -> Vec<(String, Asking)> {
    let mut asking = Vec::new();
    for (from, to) in [(1, 2), (2, 1)] {
        let probe = cluster.pod_probe("default", &format!("pod-{from}")).unwrap().patience(LATEST);
        for ip in addresses(cluster, to).unwrap() {
            let to = SocketAddr::new(ip, PORT);
            let series = probe.rate(Protocol::Udp, to, rate / 2, Duration::from_secs(120));
            asking.push((format!("pod-{from} asks {to}"), series));
        }
    }
    asking
}

async fn nothing_was_lost(what: &str, cluster: &Cluster, asking: Vec<(String, Asking)>) {
    let mut lost = Vec::new();
    for (series, asking) in asking {
        let rate = asking.stop_after(500).await;
        assert!(rate.asked >= 500, "{what}: {series}: {rate:?}");
        if !rate.failed.is_empty() {
            lost.push(format!("{series}: of {}: {:?}", rate.asked, rate.failed));
        }
    }
    let logs = || (1..=3).map(|node| log(cluster, node)).collect::<Vec<_>>().join("\n");
    assert!(lost.is_empty(), "{what}: {lost:#?}\n{}", logs());
}

/// What FRR was told about graceful restart by node 2, of IPv4: whether it has restarted, whether it kept forwarding.
fn restart_bits(cluster: &Cluster, router: &Router) -> Result<(bool, bool), String> {
    let address = cluster.node(2).unwrap().addresses()[0];
    let peering = router.peering(address).map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(&peering.said).map_err(|error| error.to_string())?;
    let info = &said["gracefulRestartInfo"];
    if !peering.established || info["ipv4Unicast"].is_null() {
        return Err(peering.said);
    }
    Ok((info["rBit"] == true, info["ipv4Unicast"]["fBit"] == true))
}

/// Waits until every node has a route to the pods of each other, and so many peers.
async fn settled(cluster: &Cluster, peers: usize) {
    for node in 1..=3 {
        knows(cluster, node, &[1, 2, 3].into_iter().filter(|other| *other != node).collect::<Vec<_>>()).await;
        established(cluster, node, peers).await;
    }
}

/// Ends the agent of node 2, which has as many peers as the others, and starts it again.
async fn back_again(what: &str, cluster: &mut Cluster, peers: usize, end: impl FnOnce(&mut Cluster)) {
    end(cluster);
    until("node 1 misses node 2", || {
        let text = metrics(cluster, 1);
        let up = metric(&text, "kube_router_bgp_peer_info", &["state=\"established\""]);
        if up == (peers - 1) as f64 { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.start_agent(2).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    settled(cluster, peers).await;
    everyone_reaches_everyone(what, cluster, &[1, 2, 3]).await;
}

/// The same while pods speak to each other.
async fn nothing_is_lost(
    what: &str,
    cluster: &mut Cluster,
    (peers, rate): (usize, u32),
    end: impl FnOnce(&mut Cluster),
) {
    let asking = ask_both_ways(cluster, rate);
    back_again(what, cluster, peers, end).await;
    nothing_was_lost(what, cluster, asking).await;
}

fn killed(cluster: &mut Cluster) {
    cluster.take_agent(2).unwrap().kill();
}

/// As an update of the DaemonSet does it.
fn stopped(cluster: &mut Cluster) {
    assert_eq!(cluster.take_agent(2).unwrap().stop(PATIENCE), Some(0));
}

fn no_route_went(watches: &[Watch]) {
    for (watch, node) in watches.iter().zip(1..) {
        assert!(watch.lost().is_empty(), "node {node}: {:?}", watch.lost());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_an_agent_is_killed() {
    let mut cluster = routed(3, 1, &GRACEFUL).await;
    let mut router = above(&cluster, 1, Software::Frr);
    let mut config = peers_with_all(&cluster, 1);
    config.graceful_restart = Some(300);
    router.start(config).unwrap();
    settled(&cluster, 3).await;
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2, 3]).await;
    // What it kept is another matter: the router came twice, the second time to a node that forwards for it already.
    let bits = until("what node 2 says of itself", || restart_bits(&cluster, &router)).await;
    assert!(!bits.0, "a node that has just come has not restarted");

    let watches: Vec<Watch> = (1..=3).map(|node| Watch::on(&cluster, node)).collect();
    nothing_is_lost("killed", &mut cluster, (3, RATE), killed).await;
    let bits = until("what node 2 says of itself", || restart_bits(&cluster, &router)).await;
    assert_eq!(bits, (true, true), "restarted, and kept forwarding");
    nothing_is_lost("restarted", &mut cluster, (3, RATE), stopped).await;
    no_route_went(&watches);
}

/// The same between nodes of two subnets: tunnels stay, too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn nothing_is_lost_through_tunnels_when_an_agent_is_killed() {
    // Without the router, which is no neighbour of node 2, and with the usual time for peers to speak again.
    let mut cluster = routed(3, 2, &GRACEFUL[..2]).await;
    settled(&cluster, 2).await;
    everyone_reaches_everyone("through tunnels", &cluster, &[1, 2, 3]).await;
    let watches: Vec<Watch> = (1..=3).map(|node| Watch::on(&cluster, node)).collect();
    nothing_is_lost("killed", &mut cluster, (2, RATE_THROUGH_TUNNELS), killed).await;
    nothing_is_lost("restarted", &mut cluster, (2, RATE_THROUGH_TUNNELS), stopped).await;
    no_route_went(&watches);
}

/// Hold time between nodes, which no flag changes, and that with routers outside as set here.
const HOLD: [Duration; 2] = [Duration::from_secs(90), Duration::from_secs(9)];

/// An agent that hangs leaves its connections open, and the kernel acknowledges for it whatever comes: as with a machine
/// that lost its power, nothing but the hold time tells that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_is_missed_after_the_hold_time() {
    let flags = ["--bgp-holdtime=9s", GRACEFUL[3], GRACEFUL[4]];
    let mut cluster = routed(3, 1, &flags).await;
    let router = above(&cluster, 1, Software::Frr);
    settled(&cluster, 3).await;
    let range = cluster.node(2).unwrap().pod_ranges()[0];
    spreads(&cluster, &router, &range, &[2]).await;

    let pid = Pid::from_raw(cluster.agent(2).unwrap().pid().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let silent = Instant::now();
    spreads(&cluster, &router, &range, &[]).await;
    // The last word was said up to a third of the hold time before.
    assert!(silent.elapsed() > HOLD[1] / 2, "{:?}", silent.elapsed());
    assert_eq!(learned(&cluster, 1), ranges(&cluster, &[2, 3]), "nodes wait for longer");
    for node in [1, 3] {
        let wanted = ranges(&cluster, &[4 - node]);
        let look = || async {
            let there = learned(&cluster, node);
            if there == wanted { Ok(()) } else { Err(format!("node {node} has {there:?}")) }
        };
        eventually(HOLD[0] + PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(silent.elapsed() > HOLD[0] / 2, "{:?}", silent.elapsed());

    kill(pid, Signal::SIGCONT).unwrap();
    spreads(&cluster, &router, &range, &[2]).await;
    settled(&cluster, 3).await;
    everyone_reaches_everyone("with a node that speaks again", &cluster, &[1, 2, 3]).await;
}

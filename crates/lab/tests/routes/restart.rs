//! Agents that are killed or restarted while pods speak to each other a thousand times a second.
//!
//! With graceful restart nothing is lost: the kernel keeps forwarding, peers keep the routes, and what the restarted agent
//! says of itself is true. FRR above the nodes says what it was told; `ip monitor` says what became of routes.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::cluster::Cluster;
use lab::probe::{Asking, Protocol};
use lab::router::{Router, Software};
use serde_json::Value;

use crate::above::{above, peers_with_all};
use crate::setup::{
    PATIENCE, PORT, addresses, established, everyone_reaches_everyone, knows, metric, metrics, routed, until,
};

/// Questions a second, each on a socket of its own.
const RATE: u32 = 1000;
const GRACEFUL: [&str; 5] = [
    "--bgp-graceful-restart=true",
    "--bgp-graceful-restart-time=60s",
    "--bgp-graceful-restart-deferral-time=20s",
    "--peer-router-ips=172.31.0.101",
    "--peer-router-asns=65000",
];

/// Everything that happens to the routes of a node from now on.
struct Watch {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Watch {
    fn on(cluster: &Cluster, node: usize) -> Watch {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = file.reopen().unwrap();
        let mut command: Command = lab::process::tied("ip");
        command.args(["-o", "monitor", "route"]).stdin(Stdio::null()).stdout(output);
        let namespace = cluster.node(node).unwrap().namespace();
        let child = namespace.run(move || lab::process::spawn(&mut command)).unwrap().unwrap();
        Watch { child, file }
    }

    /// Removals of routes to pods.
    fn lost(&self) -> Vec<String> {
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

fn ask_both_ways(cluster: &Cluster) -> Vec<Asking> {
    let mut asking = Vec::new();
    for (from, to) in [(1, 2), (2, 1)] {
        let probe = cluster.pod_probe("default", &format!("pod-{from}")).unwrap();
        for ip in addresses(cluster, to).unwrap() {
            let to = SocketAddr::new(ip, PORT);
            asking.push(probe.rate(Protocol::Udp, to, RATE / 2, Duration::from_secs(120)));
        }
    }
    asking
}

async fn nothing_was_lost(what: &str, asking: Vec<Asking>) {
    for asking in asking {
        let rate = asking.stop_after(500).await;
        assert!(rate.asked >= 500, "{what}: {rate:?}");
        assert!(rate.failed.is_empty(), "{what}: of {}: {:?}", rate.asked, rate.failed);
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_an_agent_is_killed() {
    let mut cluster = routed(3, 1, &GRACEFUL).await;
    let mut router = above(&cluster, 1, Software::Frr);
    let mut config = peers_with_all(&cluster, 1);
    config.graceful_restart = Some(60);
    router.start(config).unwrap();
    for node in 1..=3 {
        knows(&cluster, node, &[1, 2, 3].into_iter().filter(|other| *other != node).collect::<Vec<_>>())
            .await;
        established(&cluster, node, 3).await;
    }
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2, 3]).await;
    // Nobody ran here before: neither "restarted" nor "kept" would be true.
    let bits = until("what node 2 says of itself", || restart_bits(&cluster, &router)).await;
    assert!(!bits.1, "a node that has just come kept nothing");

    let watches: Vec<Watch> = (1..=3).map(|node| Watch::on(&cluster, node)).collect();
    let asking = ask_both_ways(&cluster);
    cluster.take_agent(2).unwrap().kill();
    let gone = |cluster: &Cluster| {
        let text = metrics(cluster, 1);
        let up = metric(&text, "kube_router_bgp_peer_info", &["state=\"established\""]);
        if up == 2.0 { Ok(()) } else { Err(text) }
    };
    until("node 1 misses node 2", || gone(&cluster)).await;
    cluster.start_agent(2).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    for node in 1..=3 {
        established(&cluster, node, 3).await;
    }
    let bits = until("what node 2 says of itself", || restart_bits(&cluster, &router)).await;
    assert_eq!(bits, (true, true), "restarted, and kept forwarding");
    everyone_reaches_everyone("after the kill", &cluster, &[1, 2, 3]).await;
    nothing_was_lost("killed", asking).await;

    // The same with a restart as an update of the DaemonSet does it.
    let asking = ask_both_ways(&cluster);
    assert_eq!(cluster.take_agent(2).unwrap().stop(PATIENCE), Some(0));
    until("node 1 misses node 2", || gone(&cluster)).await;
    cluster.start_agent(2).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    for node in 1..=3 {
        established(&cluster, node, 3).await;
        knows(&cluster, node, &[1, 2, 3].into_iter().filter(|other| *other != node).collect::<Vec<_>>())
            .await;
    }
    nothing_was_lost("restarted", asking).await;
    for (watch, node) in watches.iter().zip(1..) {
        assert!(watch.lost().is_empty(), "node {node}: {:?}", watch.lost());
    }
}

//! A router outside that tells more than it may, and one that tells what cannot be used: what becomes of it, who is told,
//! and that nobody else notices.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use lab::cluster::Cluster;
use lab::router::{Config, Network, Software};
use serde_json::Value;

use crate::above::{above, peers_with_all};
use crate::setup::{
    PATIENCE, ROUTER_ONLY, established, knows, learned, log, metric, metrics, routed, status, until,
};

/// The bound, and what is more. A router also tells each node the pods of the other.
const FLAGS: [&str; 3] = [
    "--peer-router-ips=172.31.0.101,172.31.0.102",
    "--peer-router-asns=65000,65000",
    "--bgp-max-prefixes=20",
];
const TOO_MANY: u8 = 21;
const FLOODER: &str = "172.31.0.102";

/// The configuration of the second router above, with so many prefixes of its own.
fn flood(cluster: &Cluster, prefixes: u8) -> Config {
    let mut config = peers_with_all(cluster, 2);
    let host = |number| IpNet::from(IpAddr::V4(Ipv4Addr::new(198, 18, 0, number)));
    config.networks = (0..prefixes).map(|number| Network::new(host(number))).collect();
    config
}

/// What a node's agent says of a peer.
fn peer(cluster: &Cluster, node: usize, address: &str) -> Result<Value, String> {
    let status = status(cluster, node, "peers")?;
    let found = status["peers"].as_array().into_iter().flatten().find(|peer| peer["address"] == address);
    found.cloned().ok_or_else(|| format!("{status:#}"))
}

/// How often the sessions that must stay came up, of each node: with the other node, and with the router that tells
/// little.
async fn ups(cluster: &Cluster) -> Vec<u64> {
    let mut all = Vec::new();
    for node in 1..=2 {
        let other = cluster.node(3 - node).unwrap().addresses()[0].to_string();
        for address in [other.as_str(), "172.31.0.101"] {
            let said = until("what the agent says", || peer(cluster, node, address)).await;
            all.push(said["established"].as_u64().unwrap_or_else(|| panic!("{said:#}")));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_tells_too_much_loses_its_session_and_nobody_elses() {
    let mut cluster = routed(2, 1, &FLAGS).await;
    let _decent = above(&cluster, 1, Software::Frr);
    let mut flooder = above(&cluster, 2, Software::Bird);
    for node in 1..=2 {
        established(&cluster, node, 3).await;
        knows(&cluster, node, &[3 - node]).await;
    }
    let before = ups(&cluster).await;
    flooder.start(flood(&cluster, TOO_MANY)).unwrap();
    for node in 1..=2 {
        let said = until(&format!("node {node} ends the session"), || {
            let peer = peer(&cluster, node, FLOODER)?;
            if peer["faults"]["too_many_prefixes"].is_u64() { Ok(peer) } else { Err(format!("{peer:#}")) }
        })
        .await;
        assert_eq!(said["faults"]["too_many_prefixes"], 1, "it is left alone: {said:#}");
        assert!(said["last_error"].as_str().unwrap().starts_with("to it: "), "{said:#}");
        assert!(said["last_error"].as_str().unwrap().ends_with(" (6/1)"), "{said:#}");
        let pause = said["retry_seconds"].as_u64().unwrap();
        assert!((1500..=1800).contains(&pause), "{said:#}");
        // What it told is gone, and what the others told is not.
        knows(&cluster, node, &[3 - node]).await;
        established(&cluster, node, 2).await;
        let text = metrics(&cluster, node);
        let counted = ["reason=\"too_many_prefixes\"", FLOODER];
        assert_eq!(metric(&text, "kube_router_bgp_peer_faults_total", &counted), 1.0, "{text}");
        let log = log(&cluster, node);
        let warned =
            log.lines().find(|line| line.contains("too many prefixes")).unwrap_or_else(|| panic!("{log}"));
        for word in ["WARN", FLOODER, "count=2", "bound=20", "--bgp-max-prefixes"] {
            assert!(warned.contains(word), "{word}: {warned}");
        }
    }
    until("the router hears why", || {
        // From both nodes. What it says when asked is why its last attempt was turned away, by now.
        let log = flooder.whole_log();
        let told = log.matches("Received: Maximum number of prefixes reached").count();
        if told >= 2 { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(ups(&cluster).await, before, "the other sessions went on");

    // With a larger bound it is a router like others.
    let raised = ROUTER_ONLY.iter().chain(&FLAGS[..2]).copied().chain(["--bgp-max-prefixes=100"]);
    cluster.set_agent_flags(1, raised).unwrap();
    assert_eq!(cluster.take_agent(1).unwrap().stop(PATIENCE), Some(0));
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    // Anew, because BIRD waits for a minute after an error.
    flooder.start(flood(&cluster, TOO_MANY)).unwrap();
    established(&cluster, 1, 3).await;
    until("all its prefixes have routes", || {
        let there = learned(&cluster, 1);
        let told = there.iter().filter(|prefix| prefix.starts_with("198.18.0.")).count();
        if told == usize::from(TOO_MANY) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

/// A router tells each node what it heard from the other, whose AS number is the same: not used, and counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_with_our_own_number_is_refused_and_counted() {
    let cluster = routed(2, 1, &FLAGS).await;
    let router = above(&cluster, 1, Software::Frr);
    let address = router.addresses()[0].to_string();
    until("the path to the other node's pods is refused", || {
        let said = peer(&cluster, 1, &address)?;
        if said["refused"]["own_as"].as_u64() >= Some(1) { Ok(()) } else { Err(format!("{said:#}")) }
    })
    .await;
    let text = metrics(&cluster, 1);
    let labels = ["reason=\"own_as\"", address.as_str()];
    assert!(metric(&text, "kube_router_bgp_peer_refused_total", &labels) >= 1.0, "{text}");
    let announced = ["type=\"announce\"", address.as_str()];
    assert!(metric(&text, "kube_router_bgp_peer_updates_received_total", &announced) >= 1.0, "{text}");
    knows(&cluster, 1, &[2]).await;
}

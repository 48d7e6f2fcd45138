//! Routers that say they are another one: said, counted, and no harm to what others tell.

use lab::cluster::Cluster;
use lab::router::{Config, Neighbour, Network, Router, Software};
use serde_json::Value;

use crate::above::{ABOVE_ASN, NODES_ASN};
use crate::setup::{everyone_reaches_everyone, knows_beside, log, metric, metrics, routed, status, until};

/// The third is in the nodes' own AS.
const FLAGS: [&str; 2] =
    ["--peer-router-ips=172.31.0.101,172.31.0.102,172.31.0.103", "--peer-router-asns=65000,65000,64512"];
/// What each of the first two announces.
const TOLD: [&str; 2] = ["192.0.2.0/27", "192.0.2.32/27"];

/// The `index`th router, which peers with node 1.
fn router(cluster: &Cluster, software: Software, index: u8, asn: u32, id: [u8; 4], told: &str) -> Router {
    let mut router = Router::new(cluster.fabric(), 0, index, software).unwrap();
    let mut config = Config::new(asn, id.into());
    config.neighbours = vec![Neighbour::new(cluster.node(1).unwrap().addresses()[0], NODES_ASN)];
    config.networks = vec![Network::new(told.parse().unwrap())];
    router.start(config).unwrap_or_else(|error| panic!("{error}"));
    router
}

/// RFC 6286: a router id is unique in its AS. Two that share one are two all the same; one that has the node's own is
/// not spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn router_ids_of_two_are_told_and_hurt_nobody() {
    let cluster = routed(2, 1, &FLAGS).await;
    let _one = router(&cluster, Software::GoBgp, 1, ABOVE_ASN, [10, 255, 1, 1], TOLD[0]);
    knows_beside(&cluster, 1, &[2], &TOLD[..1]).await;
    let twin = router(&cluster, Software::GoBgp, 2, ABOVE_ASN, [10, 255, 1, 1], TOLD[1]);
    knows_beside(&cluster, 1, &[2], &TOLD).await;
    let said = || log(&cluster, 1);
    let label = ["reason=\"duplicate_router_id\""];
    until("the twin is counted and told", || {
        let count = metric(&metrics(&cluster, 1), "kube_router_bgp_peer_faults_total", &label);
        let told = said().contains("172.31.0.101 and 172.31.0.102 have the same router id");
        if count >= 1.0 && told { Ok(()) } else { Err(format!("{count}: {}", said())) }
    })
    .await;
    // The end of one is no end of the other.
    drop(twin);
    knows_beside(&cluster, 1, &[2], &TOLD[..1]).await;

    let std::net::IpAddr::V4(own) = cluster.node(1).unwrap().addresses()[0] else { panic!("IPv4") };
    let _impostor = router(&cluster, Software::Bird, 3, NODES_ASN, own.octets(), "192.0.2.64/27");
    until("the impostor is named", || match said() {
        log if log.contains("172.31.0.103") && log.contains("do not agree on a session") => Ok(()),
        log => Err(log),
    })
    .await;
    let peers = until("the agent's status", || status(&cluster, 1, "peers")).await;
    let peer = peers["peers"].as_array().unwrap().iter().find(|peer| peer["address"] == "172.31.0.103");
    assert!(peer.is_some_and(|peer: &Value| peer["state"] != "established"), "{peers:#}");
    knows_beside(&cluster, 1, &[2], &TOLD[..1]).await;
    everyone_reaches_everyone("beside an impostor", &cluster, &[1, 2]).await;
}

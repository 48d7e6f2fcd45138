//! Twelve nodes, two of which reflect: nodes come, go, move and die.

use std::net::IpAddr;
use std::time::Instant;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use serde_json::json;

use crate::setup::{
    PATIENCE, annotate, established, everyone_reaches_everyone, ip, knows, log, pod, routed_in,
};

/// Nodes 1 and 2 reflect, the others are their clients.
fn reflect(cluster: &Cluster, nodes: &[usize]) {
    for node in nodes {
        let role = if *node <= 2 { "server" } else { "client" };
        annotate(cluster, *node, json!({ format!("kube-router.io/rr.{role}"): "42" }));
    }
}

fn others(nodes: &[usize], node: usize) -> Vec<usize> {
    nodes.iter().copied().filter(|other| *other != node).collect()
}

async fn all_know_all(cluster: &Cluster, nodes: &[usize]) {
    for node in nodes {
        knows(cluster, *node, &others(nodes, *node)).await;
    }
}

async fn reflected(families: Families, nodes: u8) -> Cluster {
    let cluster = routed_in(families, nodes, 1, &[]).await;
    let all: Vec<usize> = (1..=nodes.into()).collect();
    reflect(&cluster, &all);
    // Applied live: from a mesh to two sessions for each client.
    for node in &all {
        established(&cluster, *node, if *node <= 2 { all.len() - 1 } else { 2 }).await;
    }
    all_know_all(&cluster, &all).await;
    everyone_reaches_everyone("through reflectors", &cluster, &all).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_nodes_of_both_families() {
    let mut cluster = reflected(Families::Dual, 12).await;
    let mut nodes: Vec<usize> = (1..=12).collect();

    // A node comes.
    let index = cluster.add_node().unwrap();
    let came = Instant::now();
    annotate(&cluster, index, json!({ "kube-router.io/rr.client": "42" }));
    pod(&cluster, index);
    nodes.push(index);
    everyone_reaches_everyone("with one more", &cluster, &[3, 12, index]).await;
    let took = came.elapsed();
    println!("a node that came was reached after {took:?}");
    all_know_all(&cluster, &nodes).await;

    // A node goes.
    drop(cluster.take_agent(12));
    cluster.api().delete(Resource::Nodes, None, "node-12", None).unwrap();
    nodes.retain(|node| *node != 12);
    all_know_all(&cluster, &nodes).await;

    // An agent dies: without graceful restart its routes go with its sessions. Its successor brings them back.
    cluster.take_agent(5).unwrap().kill();
    let left = others(&nodes, 5);
    for node in &left {
        knows(&cluster, *node, &others(&left, *node)).await;
    }
    cluster.start_agent(5).unwrap();
    all_know_all(&cluster, &nodes).await;

    // One reflector dies: the other has it all.
    cluster.take_agent(1).unwrap().kill();
    let left = others(&nodes, 1);
    for node in left.iter().filter(|node| **node > 2) {
        established(&cluster, *node, 1).await;
        knows(&cluster, *node, &others(&left, *node)).await;
    }
    everyone_reaches_everyone("with one reflector", &cluster, &left).await;
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    all_know_all(&cluster, &nodes).await;

    moves(&cluster, 7).await;
    everyone_reaches_everyone("with one that moved", &cluster, &nodes).await;
}

/// A node gets other addresses: its peers find it there, and routes to its pods lead there.
async fn moves(cluster: &Cluster, node: usize) {
    let namespace = cluster.node(node).unwrap().namespace();
    let fresh = ["172.31.0.60", "fd31::60"];
    // Or the kernel takes the second address of a subnet away with the first.
    namespace.sysctls(&[("net/ipv4/conf/eth0/promote_secondaries", "1")]).unwrap();
    namespace.ip("addr add 172.31.0.60/24 dev eth0\naddr add fd31::60/64 dev eth0 nodad\n").unwrap();
    for net in cluster.node(node).unwrap().networks() {
        namespace.ip(&format!("addr del {net} dev eth0\n")).unwrap();
    }
    // The kernel takes routes away with the address they stood on.
    for gateway in cluster.fabric().gateway(0) {
        namespace.ip(&format!("route replace default via {gateway}\n")).unwrap();
    }
    // The watch was opened from the old address, and the kernel does not close it: nothing of this arrives there.
    let addresses: Vec<_> = fresh.iter().map(|ip| json!({ "type": "InternalIP", "address": ip })).collect();
    let status = json!({ "addresses": addresses });
    cluster.api().patch_status(Resource::Nodes, None, &format!("node-{node}"), &status).unwrap();
    for (range, hop) in cluster.node(node).unwrap().pod_ranges().iter().zip(fresh) {
        let hop: IpAddr = hop.parse().unwrap();
        let look = || async {
            let routes = ip(cluster, 3, &format!("route show {range}"));
            let there = routes.iter().any(|route| route["gateway"] == hop.to_string());
            if there { Ok(()) } else { Err(format!("{range} by way of {hop}: {routes:?}")) }
        };
        eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}\n{}", log(cluster, node)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_of_ipv4() {
    reflected(Families::V4, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_of_ipv6() {
    reflected(Families::V6, 4).await;
}

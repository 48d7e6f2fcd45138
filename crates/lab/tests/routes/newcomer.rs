//! What is inside of the cluster, for packets that leave pods: pod networks, `--cluster-cidr`, and nodes that come
//! while agents run (upstream's W12).

use std::net::{IpAddr, SocketAddr};

use lab::cluster::{Cluster, eventually};
use lab::probe::Protocol;

use crate::setup::{PATIENCE, PORT, addresses, everyone_reaches_everyone, knows, pod, ranges, routed, until};

/// No audit helps: what is written is written because something changed.
const FLAGS: [&str; 3] =
    ["--cluster-cidr=10.99.0.0/16,fd99::/48", "--routes-sync-period=1h", "--injected-routes-sync-period=1h"];
/// A host of `--cluster-cidr`, in each family, and the port it answers at.
const INSIDE: [&str; 2] = ["10.99.0.9", "fd99::9"];
const ANSWERS: u16 = 9054;

/// The address a server sees of the first question of a pod that is answered.
async fn seen_first(cluster: &Cluster, pod: usize, protocol: Protocol, server: SocketAddr) -> IpAddr {
    let name = format!("pod-{pod}");
    let ask = || async {
        let probe = cluster.pod_probe("default", &name).ok_or(format!("{name} does not run"))?;
        let answer = probe.ask(protocol, server).await;
        answer.map(|answer| answer.source.ip()).map_err(|failure| format!("{name} asks {server}: {failure}"))
    };
    eventually(PATIENCE, ask).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The members of the sets of pod networks on a node.
fn inside(cluster: &Cluster, node: usize) -> String {
    let list = |set: &str| cluster.on_node(node, &format!("ipset list {set}")).unwrap_or_default();
    list("kube-router-pod-subnets") + &list("inet6:kube-router-pod-subnets")
}

/// Gives the outside host its addresses inside of `--cluster-cidr`, and the ways there and back.
fn move_in(cluster: &Cluster) {
    let outside = cluster.outside();
    let node = cluster.node(1).unwrap();
    for (address, hop) in INSIDE.iter().zip(outside.addresses()) {
        let nodad = if hop.is_ipv6() { " nodad" } else { "" };
        let length = if hop.is_ipv6() { 128 } else { 32 };
        outside.namespace().ip(&format!("addr add {address}/{length} dev eth0{nodad}\n")).unwrap();
        node.namespace().ip(&format!("route add {address}/{length} via {hop}\n")).unwrap();
    }
    for (range, hop) in node.pod_ranges().iter().zip(node.addresses()) {
        outside.namespace().ip(&format!("route add {range} via {hop}\n")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_is_inside_at_once() {
    let mut cluster = routed(2, 1, &FLAGS).await;
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2]).await;

    // A server in --cluster-cidr sees the pod, one elsewhere sees the node.
    move_in(&cluster);
    let _serves = cluster.outside_probe().serve(Protocol::Tcp, ANSWERS).await.unwrap();
    let pod_1 = addresses(&cluster, 1).unwrap();
    let node_1 = cluster.node(1).unwrap().addresses();
    let elsewhere = cluster.outside().addresses();
    for (at, near) in INSIDE.iter().enumerate() {
        let near = SocketAddr::new(near.parse().unwrap(), ANSWERS);
        assert_eq!(seen_first(&cluster, 1, Protocol::Tcp, near).await, pod_1[at], "{near} is inside");
        let far = SocketAddr::new(elsewhere[at], ANSWERS);
        assert_eq!(seen_first(&cluster, 1, Protocol::Tcp, far).await, node_1[at], "{far} is outside");
    }

    // A node comes: its networks are in the sets of the others, although nothing is audited.
    let index = cluster.add_node().unwrap();
    let new = ranges(&cluster, &[index]);
    for node in [1, 2] {
        until(&format!("{new:?} inside on node {node}"), || {
            let there = inside(&cluster, node);
            if new.iter().all(|range| there.contains(range.as_str())) { Ok(()) } else { Err(there) }
        })
        .await;
    }
    for range in ["10.99.0.0/16", "fd99::/48"] {
        assert!(inside(&cluster, 1).contains(range), "{range} stays");
    }

    // From the first answer on, pods are seen as who they are, in both directions.
    pod(&cluster, index);
    let pod_new = until("addresses of the new pod", || {
        addresses(&cluster, index).filter(|ips| ips.len() == 2).ok_or("none yet".to_owned())
    })
    .await;
    for (old, new) in pod_1.iter().zip(&pod_new) {
        let (to_new, to_old) = (SocketAddr::new(*new, PORT), SocketAddr::new(*old, PORT));
        assert_eq!(seen_first(&cluster, 1, Protocol::Udp, to_new).await, *old, "as {new} sees it");
        assert_eq!(seen_first(&cluster, index, Protocol::Udp, to_old).await, *new, "as {old} sees it");
    }
    knows(&cluster, 1, &[2, index]).await;
    everyone_reaches_everyone("with one more", &cluster, &[1, 2, index]).await;
}

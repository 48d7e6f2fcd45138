//! Nodes of different subnets: tunnels between them, plain and in UDP. Needs a kernel with `ipip`, `ip6tnl` and FoU.

use lab::cluster::Cluster;
use lab::node::Families;
use serde_json::json;

use crate::setup::{
    PATIENCE, annotate, established, everyone_reaches_everyone, ip, knows, routed, routed_in, until,
};

/// Names of a node's tunnels, sorted.
pub(crate) fn tunnels(cluster: &Cluster, node: usize) -> Vec<String> {
    let links = ip(cluster, node, "link show");
    let names = links.iter().filter_map(|link| link["ifname"].as_str());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("tun-")).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// With tunnels in UDP to this port, or plain ones.
async fn story(flags: &[&str], tunnels_of_node_1: usize, port: Option<u16>) {
    let cluster = routed(3, 2, flags).await;
    joined(&cluster, tunnels_of_node_1, port).await;
}

/// Three nodes are joined by tunnels, and are again when one is taken away.
async fn joined(cluster: &Cluster, tunnels_of_node_1: usize, port: Option<u16>) {
    everyone_reaches_everyone("through tunnels", cluster, &[1, 2, 3]).await;
    knows(cluster, 1, &[2, 3]).await;
    let tunnels = tunnels(cluster, 1);
    assert_eq!(tunnels.len(), tunnels_of_node_1, "{tunnels:?}");
    for tunnel in &tunnels {
        let shown = cluster.on_node(1, &format!("ip -d link show {tunnel}")).unwrap();
        let wrapped = port.map(|port| format!("encap-dport {port} "));
        let good = wrapped.map_or(!shown.contains("encap-dport"), |wrapped| shown.contains(&wrapped));
        assert!(good, "{port:?}: {shown}");
    }
    let rules = ip(cluster, 1, "rule show").iter().filter(|rule| rule["table"] == "kube-router").count();
    assert_eq!(rules, cluster.node(1).unwrap().pod_ranges().len());
    // Taken away by somebody: back, with the routes over it.
    let first = &tunnels[0];
    cluster.on_node(1, &format!("ip link del {first}")).unwrap();
    everyone_reaches_everyone("with the tunnel put back", cluster, &[1, 2, 3]).await;
    knows(cluster, 1, &[2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn subnets_are_joined_by_plain_tunnels() {
    // Of three nodes in two subnets, node 2 is alone in its own: a tunnel for each family.
    story(&[], 2, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn every_node_is_joined_by_plain_tunnels() {
    story(&["--overlay-type=full"], 4, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn subnets_are_joined_by_tunnels_in_udp_of_another_port() {
    story(&["--overlay-encap=fou", "--overlay-encap-port=6666"], 2, Some(6666)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn every_node_is_joined_by_tunnels_in_udp() {
    story(&["--overlay-type=full", "--overlay-encap=fou"], 4, Some(5555)).await;
}

/// The same without IPv4.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn subnets_of_ipv6_are_joined_by_tunnels_of_both_kinds() {
    for (flags, port) in [(&[][..], None), (&["--overlay-encap=fou"][..], Some(5555))] {
        let flags: Vec<&str> = ["--enable-ipv4=false"].iter().chain(flags).copied().collect();
        let cluster = routed_in(Families::V6, 3, 2, &flags).await;
        joined(&cluster, 1, port).await;
    }
}

/// Twelve nodes in three subnets, by tunnels of both kinds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn twelve_nodes_are_joined_by_tunnels_of_both_kinds() {
    let all: Vec<usize> = (1..=12).collect();
    for flags in [&[][..], &["--overlay-encap=fou"]] {
        let cluster = routed(12, 3, flags).await;
        for node in &all {
            let others: Vec<usize> = all.iter().copied().filter(|other| other != node).collect();
            knows(&cluster, *node, &others).await;
        }
        everyone_reaches_everyone("twelve nodes", &cluster, &all).await;
        // Eight are in other subnets: a tunnel to each, in each family.
        assert_eq!(tunnels(&cluster, 1).len(), 16, "{:?}", tunnels(&cluster, 1));
    }
}

/// A node that ran the Go kube-router has its tunnels under other names, made by `ip`: they are used as they are.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn tunnels_of_upstream_are_taken_over() {
    let mut cluster = routed(2, 2, &[]).await;
    everyone_reaches_everyone("through tunnels", &cluster, &[1, 2]).await;
    assert_eq!(cluster.take_agent(1).unwrap().stop(PATIENCE), Some(0));
    let namespace = cluster.node(1).unwrap().namespace();
    for name in tunnels(&cluster, 1) {
        namespace.ip(&format!("link del {name}\n")).unwrap();
    }
    let (own, other) = (cluster.node(1).unwrap().addresses(), cluster.node(2).unwrap().addresses());
    // Names as upstream makes them: of a hash of the address without its dots and colons.
    namespace
        .ip(&format!(
            "link add name tun-7a11c0ffee0 type ipip remote {} local {} ttl inherit nopmtudisc\n\
             link add name tun-7a11c0ffee1 type ip6tnl remote {} local {} mode any\n\
             link set tun-7a11c0ffee0 up\nlink set tun-7a11c0ffee1 up\n",
            other[0], own[0], other[1], own[1]
        ))
        .unwrap();
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    knows(&cluster, 1, &[2]).await;
    everyone_reaches_everyone("through the tunnels that were there", &cluster, &[1, 2]).await;
    assert_eq!(tunnels(&cluster, 1), ["tun-7a11c0ffee0", "tun-7a11c0ffee1"]);
}

/// Two subnets and reflectors: clients of one subnet reach those of the other through tunnels, in both families.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn reflectors_join_two_subnets() {
    let cluster = routed(4, 2, &[]).await;
    for node in 1..=4 {
        let role = if node <= 2 { "server" } else { "client" };
        annotate(&cluster, node, json!({ format!("kube-router.io/rr.{role}"): "42" }));
    }
    for node in 1..=4 {
        established(&cluster, node, if node <= 2 { 3 } else { 2 }).await;
        knows(&cluster, node, &(1..=4).filter(|other| *other != node).collect::<Vec<_>>()).await;
    }
    everyone_reaches_everyone("through reflectors and tunnels", &cluster, &[1, 2, 3, 4]).await;
    // Nodes 2 and 4 are in the other subnet.
    until("tunnels of node 3", || match tunnels(&cluster, 3).len() {
        4 => Ok(()),
        count => Err(format!("{count}")),
    })
    .await;
}

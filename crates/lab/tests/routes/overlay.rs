//! Nodes of different subnets: tunnels between them, plain and in UDP. Needs a kernel with `ipip`, `ip6tnl` and FoU.

use crate::setup::{everyone_reaches_everyone, ip, knows, routed};

async fn story(flags: &[&str], tunnels_of_node_1: usize) {
    let cluster = routed(3, 2, flags).await;
    everyone_reaches_everyone("through tunnels", &cluster, &[1, 2, 3]).await;
    knows(&cluster, 1, &[2, 3]).await;
    let links = ip(&cluster, 1, "link show");
    let tunnels: std::collections::BTreeSet<&str> = links
        .iter()
        .filter_map(|link| link["ifname"].as_str())
        .filter(|name| name.starts_with("tun-"))
        .collect();
    assert_eq!(tunnels.len(), tunnels_of_node_1, "{tunnels:?}");
    let rules = cluster.on_node(1, "ip rule").unwrap();
    assert!(rules.contains("lookup 77"), "{rules}");
    // Taken away by somebody: back, with the routes over it.
    let first = tunnels.iter().next().unwrap();
    cluster.on_node(1, &format!("ip link del {first}")).unwrap();
    everyone_reaches_everyone("with the tunnel put back", &cluster, &[1, 2, 3]).await;
    knows(&cluster, 1, &[2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn subnets_are_joined_by_plain_tunnels() {
    // Of three nodes in two subnets, node 2 is alone in its own: a tunnel for each family.
    story(&[], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn every_node_is_joined_by_tunnels_in_udp() {
    story(&["--overlay-type=full", "--overlay-encap=fou"], 4).await;
}

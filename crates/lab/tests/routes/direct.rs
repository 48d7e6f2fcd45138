//! Nodes of one subnet: routes go straight to the other node.

use std::net::SocketAddr;
use std::time::Instant;

use lab::api_server::Resource;
use lab::probe::Protocol;
use serde_json::{Value, json};

use crate::setup::{
    PATIENCE, addresses, agent, everyone_reaches_everyone, ip, knows, learned, routed, status, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_pods_on_every_node() {
    let mut cluster = routed(3, 1, &[]).await;
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2, 3]).await;
    knows(&cluster, 1, &[2, 3]).await;

    // Straight, and by nobody else's tables: no tunnel where a subnet is shared.
    assert!(ip(&cluster, 1, "link show type ipip").is_empty());
    let bridge = cluster.on_node(1, "ip -d link show kube-bridge").unwrap();
    assert!(bridge.contains("mtu 1500"), "{bridge}");

    status_tells_of_peers_and_routes(&cluster).await;
    comes_back_at_once(&cluster).await;
    pods_leave_as_themselves_and_as_their_node(&cluster);
    outside_sees_the_node(&cluster).await;

    // One that is stopped says good-bye.
    assert_eq!(cluster.take_agent(3).unwrap().stop(PATIENCE), Some(0));
    knows(&cluster, 1, &[2]).await;
    cluster.start_agent(3).unwrap();
    knows(&cluster, 1, &[2, 3]).await;

    // A killed agent leaves its routes, and its successor takes them over.
    cluster.take_agent(1).unwrap().kill();
    assert_eq!(learned(&cluster, 1).len(), 4, "what is in the kernel stays");
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap();
    everyone_reaches_everyone("with a new agent", &cluster, &[1, 2, 3]).await;
    knows(&cluster, 1, &[2, 3]).await;

    // A node that is gone is no peer.
    cluster.api().delete(Resource::Nodes, None, "node-3", None).unwrap();
    knows(&cluster, 1, &[2]).await;
}

/// The agent's own account agrees with the kernel's.
async fn status_tells_of_peers_and_routes(cluster: &lab::cluster::Cluster) {
    let status = until("the agent's status", || status(cluster, 1, "peers routes")).await;
    let peers = status["peers"].as_array().unwrap();
    let nodes: Vec<&str> = peers.iter().map(|peer| peer["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["node-2", "node-3"], "{status:#}");
    for peer in peers {
        assert_eq!((&peer["state"], &peer["received"]), (&json!("established"), &json!(2)), "{peer:#}");
        assert!(peer["up_seconds"].is_u64() && peer["told"].as_u64() >= Some(2), "{peer:#}");
    }
    let routes = status["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 4, "two nodes, two families: {status:#}");
    for route in routes {
        let prefix = route["prefix"].as_str().unwrap();
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let kernel = cluster.on_node(1, &format!("ip -j {family} route show {prefix}")).unwrap();
        let kernel: Value = serde_json::from_str(&kernel).unwrap();
        assert_eq!(
            (&route["next_hop"], &route["link"]),
            (&kernel[0]["gateway"], &kernel[0]["dev"]),
            "{prefix}"
        );
        assert_eq!(route["programmed"], true, "{route:#}");
    }
    let text = until("the status for people", || agent(cluster, 1, "status")).await;
    assert!(text.contains("established for") && text.contains("node node-2"), "{text}");
    // What is planned and what the kernel does for one pod, in one answer.
    let to = addresses(cluster, 2).unwrap()[0];
    let line = format!("explain --from node --to {to} -o json");
    let told: Value =
        serde_json::from_str(&until("the explanation", || agent(cluster, 1, &line)).await).unwrap();
    let path = &told["paths"][0];
    assert_eq!(path["planned"]["node"], "node-2", "{told:#}");
    assert_eq!(path["planned"]["link"], path["route"]["link"], "{told:#}");
}

/// Others take a route away: it is back long before the next audit, which is minutes away.
async fn comes_back_at_once(cluster: &lab::cluster::Cluster) {
    let range = cluster.node(2).unwrap().pod_ranges()[0].to_string();
    cluster.on_node(1, &format!("ip route del {range}")).unwrap();
    let taken = Instant::now();
    knows(cluster, 1, &[2, 3]).await;
    println!("a route was back {:?} after it was taken", taken.elapsed());
    everyone_reaches_everyone("with the route put back", cluster, &[1, 2, 3]).await;
}

/// The sets of inside addresses have every node's, and the rule that looks into them is there.
fn pods_leave_as_themselves_and_as_their_node(cluster: &lab::cluster::Cluster) {
    for (set, count) in
        [("kube-router-pod-subnets", 3), ("inet6:kube-router-pod-subnets", 3), ("kube-router-node-ips", 3)]
    {
        let text = cluster.on_node(1, &format!("ipset list {set}")).unwrap();
        assert!(text.contains(&format!("Number of entries: {count}")), "{text}");
    }
    for tool in ["iptables", "ip6tables"] {
        let nat = cluster.on_node(1, &format!("{tool} -t nat -S POSTROUTING")).unwrap();
        assert!(nat.contains("kube-router-pod-subnets src") && nat.contains("MASQUERADE"), "{nat}");
        let forward = cluster.on_node(1, &format!("{tool} -S FORWARD")).unwrap();
        assert!(forward.contains("-i kube-bridge") && forward.contains("-o kube-bridge"), "{forward}");
    }
}

/// A host outside of the cluster is asked by a pod, and sees the pod's node.
async fn outside_sees_the_node(cluster: &lab::cluster::Cluster) {
    let port = 9053;
    let _serves = cluster.outside_probe().serve(Protocol::Udp, port).await.unwrap();
    let probe = cluster.pod_probe("default", "pod-1").expect("it runs");
    let nodes = cluster.node(1).unwrap().addresses();
    for (outside, node) in cluster.outside().addresses().into_iter().zip(nodes) {
        let look = || async {
            match probe.ask(Protocol::Udp, SocketAddr::new(outside, port)).await {
                Ok(answer) if answer.source.ip() == node => Ok(()),
                other => Err(format!("{outside} sees {node}: {other:?}")),
            }
        };
        lab::cluster::eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_is_reached_and_one_that_changes_its_range_too() {
    // With the other packet filter.
    let cluster = routed(2, 1, &["--firewall-backend=nftables"]).await;
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2]).await;
    for table in ["ip kube-router-filter-ipv4", "ip6 kube-router-filter-ipv6"] {
        let nat = cluster.on_node(1, &format!("nft list chain {table} nat-POSTROUTING")).unwrap();
        assert!(nat.contains("saddr @kube-router-pod-subnets") && nat.contains("masquerade"), "{nat}");
    }
    outside_sees_the_node(&cluster).await;
    // The operator gives node 2 another range by annotation: its peers learn it live.
    let patch =
        json!({ "metadata": { "annotations": { "kube-router.io/pod-cidrs": "10.99.2.0/24,fd99:2::/64" } } });
    cluster
        .kubectl(["annotate", "node", "node-2", "kube-router.io/pod-cidrs=10.99.2.0/24,fd99:2::/64"])
        .unwrap();
    let look = || async {
        let there = learned(&cluster, 1);
        if there == ["10.99.2.0/24", "fd99:2::/64"] {
            Ok(())
        } else {
            Err(format!("{there:?} after {patch}"))
        }
    };
    lab::cluster::eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
    // Others may know of it before the file is written.
    let written = || async {
        let cni = cluster.on_node(2, "cat /etc/cni/net.d/10-kuberouter.conflist");
        let cni = cni.map_err(|error| error.to_string())?;
        if cni.contains("10.99.2.0/24") && cni.contains("\"mtu\":1500") { Ok(()) } else { Err(cni) }
    };
    lab::cluster::eventually(PATIENCE, written).await.unwrap_or_else(|error| panic!("{error}"));
}

//! Services while a node goes from one packet filter to the other and back, and is cleaned up after either.

use std::net::SocketAddr;
use std::time::Duration;

use lab::cluster::Cluster;
use lab::probe::{Failure, ONCE, Protocol};
use serde_json::json;

use crate::setup::{
    Cell, NFTABLES, agent_program, cluster, cluster_ips, fails, flags, in_pod, node_port, pod, programmed,
    reach, ready, service, tool, until,
};

const IPTABLES: &str = "--firewall-backend=iptables";
/// Connections a second of each probe: the VM's processor is emulated.
const RATE: u32 = 5;
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Lists what a packet filter holds; 0 is iptables with its sets, 1 is nftables.
const LISTS: [&[&str]; 2] = [&["iptables-save", "ip6tables-save", "ipset save"], &["nft list tables"]];

/// Nothing of ours is where `lists` look.
async fn gone(cluster: &Cluster, about: &str, lists: &[&str]) {
    for list in lists {
        until(about, cluster, 1, list, |text| !text.contains("KUBE-ROUTER") && !text.contains("kube-router"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn services_go_on_while_the_packet_filter_changes() {
    let mut cluster = cluster(2, &[]).await;
    let web = service(&cluster, "web", "web", json!({ "spec": { "type": "NodePort" } }));
    for (name, node, app) in [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client")] {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1"]).await;
    let (client, outside) = (in_pod(&cluster, "c-1"), cluster.outside_probe());
    let at = |ips: Vec<std::net::IpAddr>, port| ips.into_iter().map(move |ip| SocketAddr::new(ip, port));
    let inside: Vec<Cell> = at(cluster_ips(&web), 80).map(|to| (client.clone(), Protocol::Tcp, to)).collect();
    // From outside to the other node's pod: masqueraded here.
    let through: Vec<Cell> = at(cluster.node(1).unwrap().addresses(), node_port(&web, 0))
        .map(|to| (outside.clone(), Protocol::Tcp, to))
        .collect();
    let all: Vec<Cell> = inside.iter().chain(&through).cloned().collect();
    let unserved: Vec<Cell> =
        at(cluster_ips(&web), 2222).map(|to| (client.clone(), Protocol::Tcp, to)).collect();
    let node = cluster.node_probe(1).unwrap();
    let _listens = node.serve(Protocol::Tcp, 2222).await.unwrap();
    reach("with iptables", &all, &["web-1", "web-2"]).await;

    let ask =
        |(probe, protocol, to): &Cell| probe.clone().patience(ONCE).rate(*protocol, *to, RATE, FOR_EVER);
    let asking: Vec<_> = all.iter().map(ask).collect();
    for (flag, other) in [(NFTABLES, 0), (IPTABLES, 1), (NFTABLES, 0)] {
        cluster.set_agent_flags(1, flags(&[flag])).unwrap();
        cluster.start_agent(1).unwrap();
        programmed(&cluster, 1).await;
        gone(&cluster, &format!("{flag}: nothing is left of the other"), LISTS[other]).await;
        reach(flag, &all, &["web-1", "web-2"]).await;
        fails("a port no service has", &unserved, &[Failure::Refused]).await;
    }
    for (cell, asking) in all.iter().zip(asking) {
        let rate = asking.stop_after(50).await;
        assert!(rate.failed.is_empty() && rate.asked >= 50, "{:?}: {rate:?}", cell.2);
    }

    cluster.take_agent(1).expect("it runs").kill();
    tool(&cluster, 1, &format!("{} --cleanup-config", agent_program().display()));
    for lists in LISTS {
        gone(&cluster, "cleaned up", lists).await;
    }
    let servers = tool(&cluster, 1, "ipvsadm -Sn");
    assert_eq!(servers.trim(), "", "no virtual servers");
}

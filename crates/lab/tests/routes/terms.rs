//! The terms of a session with a router outside: ports, hops, router ids, the addresses sessions begin at, next hops.
//!
//! FRR is the judge: what it says of its end of the session, and of the paths it was told. Each session here is one
//! that does not come up on the usual terms.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use lab::cluster::Cluster;
use lab::router::{Config, Distance, Neighbour, Router, Software};
use serde_json::{Value, json};

use crate::above::{ABOVE_ASN, NODES_ASN, peers_with_all};
use crate::setup::{
    PATIENCE, ROUTER_ONLY, annotate, established, everyone_reaches_everyone, ip, knows, learned, routed,
    until,
};

const FLAGS: [&str; 6] = [
    "--bgp-port=1179",
    "--peer-router-ips=172.31.0.101",
    "--peer-router-asns=65000",
    "--peer-router-ports=1790",
    "--peer-router-multihop-ttl=2",
    "--enable-overlay=false",
];

/// Runs a tool inside of a router.
fn inside(router: &Router, program: &'static str, arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let work = move || lab::process::run(lab::process::command(program).args(arguments));
    router.namespace().run(work).unwrap().unwrap_or_else(|error| panic!("{error}"));
}

/// What FRR says of an established session.
async fn session(router: &Router, peer: IpAddr) -> Value {
    until(&format!("a session with {peer}"), || {
        let peering = router.peering(peer).map_err(|error| error.to_string())?;
        if !peering.established {
            return Err(format!("{}\n{}", peering.said, router.log()));
        }
        serde_json::from_str::<Value>(&peering.said).map_err(|error| error.to_string())
    })
    .await
}

/// Waits until the router has been told that a prefix is behind `hop`, and behind nothing else.
async fn told_via(router: &Router, prefix: &IpNet, hop: IpAddr) {
    until(&format!("{prefix} via {hop}"), || {
        let paths = router.paths(prefix).map_err(|error| error.to_string())?;
        let there: BTreeSet<IpAddr> = paths.iter().map(|path| path.next_hop).collect();
        if there == BTreeSet::from([hop]) { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
}

/// Waits until what listens on port 1179 of a node are exactly these sockets, as `ss` shows them.
async fn listens(cluster: &Cluster, node: usize, wanted: &[&str]) {
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    until(&format!("sockets of node {node}"), || {
        let text = cluster.on_node(node, "ss -Hltn").map_err(|error| error.to_string())?;
        let at = text.lines().filter_map(|line| line.split_whitespace().nth(3));
        let there: BTreeSet<&str> = at.filter(|at| at.ends_with(":1179")).collect();
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

/// Starts the agent of a node anew, with these flags besides those of every agent here.
fn start_with(cluster: &mut Cluster, node: usize, flags: &[&str]) {
    assert_eq!(cluster.take_agent(node).unwrap().stop(PATIENCE), Some(0));
    let flags: Vec<&str> = ROUTER_ONLY.iter().chain(flags).copied().collect();
    cluster.set_agent_flags(node, flags).unwrap();
    cluster.start_agent(node).unwrap();
}

/// FRR neither dials nor keeps a peer whom only a default route leads to, unless told so.
fn resolve_by_default(router: &Router) {
    let line = "ip nht resolve-via-default";
    inside(router, "vtysh", &["-d", "zebra", "-c", "configure terminal", "-c", line]);
}

/// The router's part: node 2 is behind another router. One that is `passive` waits to be dialled.
fn two_hops(cluster: &Cluster, passive: bool) -> Config {
    let mut config = peers_with_all(cluster, 1);
    for neighbour in &mut config.neighbours {
        neighbour.distance = Distance::Multihop(2);
        neighbour.passive = passive;
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_hops_and_router_ids_are_those_of_the_flags() {
    let mut cluster = routed(2, 2, &FLAGS).await;
    for node in [1, 2] {
        let id = format!("--router-id=192.0.2.{node}");
        let flags: Vec<&str> = FLAGS.into_iter().chain([id.as_str()]).collect();
        start_with(&mut cluster, node, &flags);
    }
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    let mut router = Router::new(cluster.fabric(), 0, 1, Software::Frr).unwrap();

    // Whoever dials port 1790 gets FRR, which dials nobody.
    let redirect = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1790"];
    let redirect: Vec<&str> = redirect.into_iter().chain(["-j", "REDIRECT", "--to-ports", "179"]).collect();
    inside(&router, "iptables", &redirect);
    router.start(two_hops(&cluster, true)).unwrap_or_else(|error| panic!("{error}"));
    resolve_by_default(&router);
    for node in [1, 2] {
        let address = cluster.node(node).unwrap().addresses()[0];
        let said = session(&router, address).await;
        assert_eq!(said["remoteRouterId"], format!("192.0.2.{node}"), "{said:#}");
        for (range, hop) in cluster.node(node).unwrap().pod_ranges().iter().zip(own(&cluster, node)) {
            told_via(&router, range, hop).await;
        }
    }

    // Nobody is there any more, and FRR dials agents where they listen.
    inside(&router, "iptables", &["-t", "nat", "-F", "PREROUTING"]);
    router.start(two_hops(&cluster, false)).unwrap_or_else(|error| panic!("{error}"));
    resolve_by_default(&router);
    let addresses = [1, 2].map(|node| own(&cluster, node)[0]);
    for address in addresses {
        let (router_line, line) =
            (format!("router bgp {ABOVE_ASN}"), format!("neighbor {address} port 1179"));
        let lines = ["-d", "bgpd", "-c", "configure terminal", "-c", &router_line, "-c", &line];
        inside(&router, "vtysh", &lines);
    }
    for address in addresses {
        let said = session(&router, address).await;
        assert_eq!(said["portForeign"], 1179, "{said:#}");
    }

    // Nodes dial each other at that port, too; and without an overlay another subnet is no business of ours.
    for node in [1, 2] {
        established(&cluster, node, 2).await;
        assert!(learned(&cluster, node).is_empty(), "{:?}", learned(&cluster, node));
        let links = ip(&cluster, node, "link show");
        let tunnel = |link: &Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("tun-"));
        assert!(!links.iter().any(tunnel), "{links:?}");
        let rules = cluster.on_node(node, "ip rule").unwrap();
        assert!(!rules.contains("lookup kube-router") && !rules.contains("lookup 77"), "{rules}");
    }
}

fn own(cluster: &Cluster, node: usize) -> Vec<IpAddr> {
    cluster.node(node).unwrap().addresses()
}

/// Node 1 has a second address, which its object does not name.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_where_annotations_say() {
    let second: IpAddr = "172.31.0.60".parse().unwrap();
    let mut cluster = routed(2, 1, &["--bgp-port=1179", "--override-nexthop=true"]).await;
    cluster.node(1).unwrap().namespace().ip("addr add 172.31.0.60/24 dev eth0\n").unwrap();
    let annotations = json!({
        "kube-router.io/peer.ips": "172.31.0.101",
        "kube-router.io/peer.asns": "65000",
        "kube-router.io/peer.localips": "172.31.0.60",
        "kube-router.io/bgp-local-addresses": "172.31.0.60",
    });
    annotate(&cluster, 1, annotations);
    let mut router = Router::new(cluster.fabric(), 0, 1, Software::Frr).unwrap();
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
    // It knows of no other address of the node.
    config.neighbours = vec![Neighbour::new(second, NODES_ASN)];
    router.start(config).unwrap_or_else(|error| panic!("{error}"));

    session(&router, second).await;
    listens(&cluster, 1, &["172.31.0.60:1179"]).await;
    listens(&cluster, 2, &["172.31.0.12:1179", "[fd31::c]:1179"]).await;
    let ranges = cluster.node(1).unwrap().pod_ranges().to_vec();
    let address = own(&cluster, 1);
    // The session's end where the family allows, otherwise the node's address.
    for (range, hop) in ranges.iter().zip([second, address[1]]) {
        told_via(&router, range, hop).await;
    }
    // Nodes are told the node's address whatever routers are told.
    knows(&cluster, 2, &[1]).await;
    everyone_reaches_everyone("with a session from another address", &cluster, &[1, 2]).await;

    // Without the flag the node is known by one address to all.
    start_with(&mut cluster, 1, &["--bgp-port=1179"]);
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    session(&router, second).await;
    for (range, hop) in ranges.iter().zip(address) {
        told_via(&router, range, hop).await;
    }
}

//! Nodes that run the Go kube-router beside ours: GoBGP, which it has built in, speaks for them. Where its behaviour is
//! known to be a weakness ours differs, and the other side gets along with that.
//!
//! GoBGP writes no routes, so those of its node are set by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::cluster::Cluster;
use lab::node::Families;
use lab::router::{Config, Neighbour, Network, Path, Router, Software};
use serde_json::json;

use crate::above::{ABOVE_ASN, NODES_ASN};
use crate::setup::{
    PATIENCE, annotate, everyone_reaches_everyone, ip, knows, learned, metric, metrics, ranges, routed,
    routed_in, until,
};

/// A cluster whose last node has GoBGP in place of our agent.
async fn mixed(nodes: u8, more: &[&str]) -> (Cluster, Router) {
    let mut cluster = routed(nodes, 1, more).await;
    let last = usize::from(nodes);
    assert_eq!(cluster.take_agent(last).unwrap().stop(PATIENCE), Some(0));
    let other = Router::on(cluster.node(last).unwrap(), Software::GoBgp);
    (cluster, other)
}

/// What GoBGP is on node `own`: a peer of `peers` that announces the node's pod ranges.
pub(crate) fn config(cluster: &Cluster, own: usize, asn: u32, peers: &[usize]) -> Config {
    let node = cluster.node(own).unwrap();
    let Some(IpAddr::V4(router_id)) = node.addresses().first().copied() else { panic!("IPv4") };
    let mut config = Config::new(asn, router_id);
    let address = |peer: &usize| cluster.node(*peer).unwrap().addresses()[0];
    config.neighbours = peers.iter().map(|peer| Neighbour::new(address(peer), NODES_ASN)).collect();
    config.networks = node.pod_ranges().iter().copied().map(Network::new).collect();
    config
}

async fn path(router: &Router, prefix: &IpNet) -> Path {
    until(&format!("a path to {prefix} on {}", router.name()), || {
        let paths = router.paths(prefix).map_err(|error| error.to_string())?;
        let foreign = paths.iter().find(|path| path.from.is_some()).cloned();
        foreign.ok_or_else(|| format!("{paths:?}\n{}", router.log()))
    })
    .await
}

fn has_path(router: &Router, prefix: &str) -> bool {
    !router.paths(&prefix.parse().unwrap()).unwrap().is_empty()
}

fn route_by_hand(cluster: &Cluster, on: usize, to: &[usize]) {
    for other in to {
        let node = cluster.node(*other).unwrap();
        for (range, hop) in node.pod_ranges().iter().zip(node.addresses()) {
            let line = format!("route replace {range} via {hop} proto 17\n");
            cluster.node(on).unwrap().namespace().ip(&line).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_upstream_is_a_node() {
    let (cluster, mut other) = mixed(3, &[]).await;
    other.start(config(&cluster, 3, NODES_ASN, &[1, 2])).unwrap();
    route_by_hand(&cluster, 3, &[1, 2]);
    knows(&cluster, 1, &[2, 3]).await;
    knows(&cluster, 2, &[1, 3]).await;
    everyone_reaches_everyone("in a mixed cluster", &cluster, &[1, 2, 3]).await;
    // What it is told is what upstream tells: explicit next hops of the prefix's family, nothing along.
    for node in [1, 2] {
        let node = cluster.node(node).unwrap();
        for (range, own) in node.pod_ranges().iter().zip(node.addresses()) {
            let path = path(&other, range).await;
            assert_eq!((path.next_hop, path.as_path.len(), path.local_pref), (own, 0, Some(100)), "{path:?}");
            assert!(path.communities.is_empty() && path.clusters.is_empty(), "{path:?}");
        }
    }
    // Of another AS it is nobody's peer, whatever address it has (upstream takes any, W29).
    other.start(config(&cluster, 3, 64513, &[1, 2])).unwrap();
    let first = cluster.node(1).unwrap().addresses()[0];
    until("GoBGP is told so", || {
        let peering = other.peering(first).map_err(|error| error.to_string())?;
        let said: serde_json::Value =
            serde_json::from_str(&peering.said).map_err(|error| error.to_string())?;
        let told = said.pointer("/state/messages/received/notification").and_then(serde_json::Value::as_u64);
        if told.is_some_and(|told| told > 0) && !peering.established {
            return Ok(());
        }
        Err(format!("{}\n{}", peering.said, other.log()))
    })
    .await;
    knows(&cluster, 1, &[2]).await;
    other.start(config(&cluster, 3, NODES_ASN, &[1, 2])).unwrap();
    knows(&cluster, 1, &[2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_upstream_hears_our_reflector() {
    let flags = ["--advertise-cluster-ip=true", "--peer-router-ips=172.31.0.101", "--peer-router-asns=65000"];
    let (cluster, mut other) = mixed(3, &flags).await;
    annotate(&cluster, 1, json!({ "kube-router.io/rr.server": "42" }));
    for client in [2, 3] {
        annotate(&cluster, client, json!({ "kube-router.io/rr.client": "42" }));
    }
    crate::above::web(&cluster).await;
    other.start(config(&cluster, 3, NODES_ASN, &[1])).unwrap();
    route_by_hand(&cluster, 3, &[1, 2]);
    for range in cluster.node(2).unwrap().pod_ranges() {
        let path = path(&other, range).await;
        // A number is the cluster it says (upstream makes its router id of it, W30). The next hop stays.
        assert_eq!(path.clusters, [Ipv4Addr::new(0, 0, 0, 42)], "{path:?}");
        let own = cluster.node(2).unwrap().addresses();
        assert!(own.contains(&path.next_hop), "{path:?}");
        assert_eq!(path.originator.map(IpAddr::V4), Some(own[0]), "{path:?}");
    }
    everyone_reaches_everyone("through our reflector", &cluster, &[1, 2, 3]).await;
    a_reflector_has_rules_too(&cluster, &other).await;
}

/// Upstream's reflectors take and tell everything (W21).
async fn a_reflector_has_rules_too(cluster: &Cluster, client: &Router) {
    let mut above = Router::new(cluster.fabric(), 0, 1, Software::GoBgp).unwrap();
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
    config.neighbours = vec![Neighbour::new(cluster.node(1).unwrap().addresses()[0], NODES_ASN)];
    let announced = ["0.0.0.0/0", "192.0.2.0/24"].map(|prefix| Network::new(prefix.parse().unwrap()));
    config.networks = announced.to_vec();
    above.start(config).unwrap();
    let own = cluster.node(1).unwrap().pod_ranges()[0];
    assert_eq!(path(&above, &own).await.as_path, [NODES_ASN]);
    let service = cluster.api().get(lab::api_server::Resource::Services, Some("default"), "web").unwrap();
    let vip: IpNet = format!("{}/32", service["spec"]["clusterIP"].as_str().unwrap()).parse().unwrap();
    path(&above, &vip).await;
    for others in ranges(cluster, &[2, 3]) {
        assert!(!has_path(&above, &others), "{others} is its own node's to tell");
    }
    until("the ordinary prefix is a route", || {
        let there = learned(cluster, 1);
        if there.contains(&"192.0.2.0/24".to_owned()) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    assert!(!learned(cluster, 1).contains(&"default".to_owned()), "nobody's way to everything is taken");
    assert!(!has_path(client, "0.0.0.0/0"));
    assert!(!has_path(client, &vip.to_string()), "services are not for nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_ours_hear_upstreams_reflector() {
    let (cluster, mut other) = mixed(3, &[]).await;
    // Annotated as a server its node is the only peer of the others. Its cluster is its router id, as upstream's is (W30).
    annotate(&cluster, 3, json!({ "kube-router.io/rr.server": "42" }));
    for client in [1, 2] {
        annotate(&cluster, client, json!({ "kube-router.io/rr.client": "42" }));
    }
    let mut config = config(&cluster, 3, NODES_ASN, &[1, 2]);
    config.neighbours.iter_mut().for_each(|neighbour| neighbour.reflector_client = true);
    other.start(config).unwrap();
    route_by_hand(&cluster, 3, &[1, 2]);
    knows(&cluster, 1, &[2, 3]).await;
    knows(&cluster, 2, &[1, 3]).await;
    everyone_reaches_everyone("through upstream's reflector", &cluster, &[1, 2, 3]).await;
}

/// Upstream's graceful restart is off unless it is asked for, and such a peer never says that it is through. An agent
/// that restarts gracefully keeps what is in the kernel all the same, and does not wait for what never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_graceful_restart_costs_no_route() {
    let (mut cluster, mut other) = mixed(3, &crate::restart::GRACEFUL[..3]).await;
    other.start(config(&cluster, 3, NODES_ASN, &[1, 2])).unwrap();
    route_by_hand(&cluster, 3, &[1, 2]);
    knows(&cluster, 1, &[2, 3]).await;
    knows(&cluster, 2, &[1, 3]).await;
    for _ in 0..5 {
        let watch = crate::restart::Watch::on(&cluster, 1);
        let in_time = restarted(&mut cluster, &other).await;
        path(&other, &cluster.node(1).unwrap().pod_ranges()[0]).await;
        knows(&cluster, 1, &[2, 3]).await;
        everyone_reaches_everyone("after the restart", &cluster, &[1, 2, 3]).await;
        let lost = watch.lost();
        if lost.is_empty() {
            return;
        }
        assert!(!in_time, "{lost:?}");
    }
    panic!("five times peers took longer than an agent waits, and routes went");
}

/// Kills the agent of node 1 and starts another, until it has heard everything from its two peers. Whether they were as
/// quick as it expects: what was confirmed by nobody within a minute goes, or two seconds after all peers were up.
async fn restarted(cluster: &mut Cluster, other: &Router) -> bool {
    cluster.take_agent(1).unwrap().kill();
    // It notices the end of the connection, and what it was told is over for it.
    let own = cluster.node(1).unwrap().pod_ranges()[0].to_string();
    until("GoBGP misses node 1", || match has_path(other, &own) {
        false => Ok(()),
        true => Err(other.log()),
    })
    .await;
    let started = Instant::now();
    cluster.start_agent(1).unwrap();
    let mut not_up = started;
    until("node 1 has heard its peers", || {
        let asked = Instant::now();
        let text = metrics(cluster, 1);
        let of = |name: &str, labels: &[&str]| metric(&text, &format!("kube_router_bgp_peer_{name}"), labels);
        if of("info", &["state=\"established\""]) < 2.0 {
            not_up = asked;
        }
        // Two ranges of each.
        if of("prefixes_received", &[]) == 4.0 { Ok(()) } else { Err(text) }
    })
    .await;
    let in_time = started.elapsed() < Duration::from_secs(60) && not_up.elapsed() < Duration::from_secs(2);
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    in_time
}

/// A set of neighbours that is empty matches nobody; with upstream it is everybody, so that with IPv6 addresses pod
/// networks leak to the world (W20).
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_from_a_cluster_of_ipv6() {
    let flags = [
        "--peer-router-ips=fd31::65",
        "--peer-router-asns=65000",
        "--enable-ipv4=false",
        "--advertise-pod-cidr=false",
        "--advertise-cluster-ip=true",
        "--service-cluster-ip-range=fd96::/112",
    ];
    let cluster = routed_in(Families::V6, 2, 1, &flags).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let service = cluster.api().create(lab::api_server::Resource::Services, service).unwrap();
    let vip: IpNet = format!("{}/128", service["spec"]["clusterIP"].as_str().unwrap()).parse().unwrap();
    let mut above = Router::new(cluster.fabric(), 0, 1, Software::GoBgp).unwrap();
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
    for node in cluster.nodes() {
        let mut neighbour = Neighbour::new(node.addresses()[0], NODES_ASN);
        neighbour.families = Families::V6;
        config.neighbours.push(neighbour);
    }
    above.start(config).unwrap();
    path(&above, &vip).await;
    knows(&cluster, 1, &[2]).await;
    for range in ranges(&cluster, &[1, 2]) {
        assert!(!has_path(&above, &range), "{range} is nobody's business outside");
    }
}

/// A router outside whose next hop is in another subnet gets no tunnel: only nodes do (W15).
#[tokio::test(flavor = "multi_thread")]
async fn paths_of_outside_make_no_tunnels() {
    let flags = ["--peer-router-ips=172.31.0.101", "--peer-router-asns=65000"];
    let cluster = routed(2, 1, &flags).await;
    let mut above = Router::new(cluster.fabric(), 0, 1, Software::GoBgp).unwrap();
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
    config.neighbours =
        cluster.nodes().iter().map(|node| Neighbour::new(node.addresses()[0], NODES_ASN)).collect();
    let mut far = Network::new("198.18.0.0/24".parse().unwrap());
    far.next_hop = Some("172.31.9.9".parse().unwrap());
    config.networks = vec![far, Network::new("192.0.2.0/24".parse().unwrap())];
    above.start(config).unwrap();
    until("both paths arrived, and the near one is a route", || {
        let text = metrics(&cluster, 1);
        let received =
            metric(&text, "kube_router_bgp_peer_prefixes_received", &["address=\"172.31.0.101\"", "ipv4"]);
        let there = learned(&cluster, 1);
        let good = received == 2.0 && there.contains(&"192.0.2.0/24".to_owned());
        if good { Ok(()) } else { Err(format!("{there:?}\n{text}")) }
    })
    .await;
    assert!(!learned(&cluster, 1).contains(&"198.18.0.0/24".to_owned()));
    let links = ip(&cluster, 1, "link show");
    let tunnel =
        |link: &serde_json::Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("tun-"));
    assert!(!links.iter().any(tunnel), "{links:?}");
    // Nor was one tried that this kernel could not make.
    assert_eq!(metric(&metrics(&cluster, 1), "kube_router_rows_refused", &[]), 0.0);
}

//! Routers above the nodes, outside of the cluster: what they learn from agents, and how they spread it over the nodes.
//!
//! Agents route only, so that this runs on every kernel: paths are judged here, packets go to pods. Packets to services
//! are in [`crate::services`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::kubelet::READY;
use lab::node::Families;
use lab::probe::Protocol;
use lab::router::{Config, Neighbour, Router, Software};
use serde_json::{Value, json};

use crate::setup::{
    PATIENCE, PORT, addresses, annotate, established, everyone_reaches_everyone, metric, metrics, routed,
    until,
};

pub(crate) const NODES_ASN: u32 = 64512;
pub(crate) const ABOVE_ASN: u32 = 65000;

/// Flags by which agents peer with the two routers above and tell them everything.
pub(crate) const TELL: [&str; 8] = [
    "--peer-router-ips=172.31.0.101,172.31.0.102",
    "--peer-router-asns=65000,65000",
    "--advertise-cluster-ip=true",
    "--advertise-external-ip=true",
    "--advertise-loadbalancer-ip=true",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--service-external-ip-range=203.0.113.0/24,fd03::/112",
    "--loadbalancer-ip-range=198.51.100.0/24,fd98::/112",
];
const EXTERNAL: [&str; 2] = ["203.0.113.10", "fd03::10"];

/// A router on the nodes' subnet that peers with all of them, in an AS of its own.
pub(crate) fn above(cluster: &Cluster, index: u8, software: Software) -> Router {
    let mut router = Router::new(cluster.fabric(), 0, index, software).unwrap();
    // Whoever is told of the shorter way would no longer come through here.
    let spread = [
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
    ];
    router.namespace().sysctls(&spread).unwrap();
    // With IPv4, either of the two is enough to take them.
    let deaf = ["ipv6/conf/eth0", "ipv4/conf/eth0", "ipv4/conf/all"];
    let deaf = deaf.map(|link| format!("net/{link}/accept_redirects"));
    let deaf = deaf.each_ref().map(|key| (key.as_str(), "0"));
    cluster.outside().namespace().sysctls(&deaf).unwrap();
    router.start(peers_with_all(cluster, index)).unwrap_or_else(|error| panic!("{error}"));
    router
}

/// The configuration of the `index`th router above.
pub(crate) fn peers_with_all(cluster: &Cluster, index: u8) -> Config {
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, index].into());
    config.maximum_paths = 16;
    let neighbour = |node: &std::sync::Arc<lab::node::Node>| Neighbour::new(node.addresses()[0], NODES_ASN);
    config.neighbours = cluster.nodes().iter().map(neighbour).collect();
    config
}

/// Waits until the kernel of a router spreads `prefix` over exactly these nodes; over none is no route.
pub(crate) async fn spreads(cluster: &Cluster, router: &Router, prefix: &IpNet, nodes: &[usize]) {
    let v4 = prefix.addr().is_ipv4();
    let hops = nodes.iter().flat_map(|index| cluster.node(*index).unwrap().addresses());
    let wanted: BTreeSet<IpAddr> = hops.filter(|hop| hop.is_ipv4() == v4).collect();
    until(&format!("{prefix} over nodes {nodes:?} on {}", router.name()), || {
        let routes = router.kernel_routes(prefix).map_err(|error| error.to_string())?;
        let there: BTreeSet<IpAddr> = routes.into_iter().flat_map(|route| route.gateways).collect();
        if there == wanted { Ok(()) } else { Err(format!("{there:?}\n{}", router.log())) }
    })
    .await;
}

fn host(ip: &str) -> IpNet {
    IpNet::from(ip.parse::<IpAddr>().unwrap())
}

/// Creates the Service `web` of all kinds in front of the pods; returns its cluster IPs and its load-balancer IPs.
pub(crate) async fn web(cluster: &Cluster) -> (Vec<IpNet>, Vec<IpNet>) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "web" }, "ipFamilyPolicy": "RequireDualStack",
            "externalIPs": EXTERNAL, "ports": [{ "port": 80, "targetPort": PORT }],
        },
    });
    cluster.api().create(Resource::Services, service).unwrap();
    until("addresses of the service", || {
        let service = cluster.api().get(Resource::Services, Some("default"), "web").ok_or("no service")?;
        let list = |at: &str| service.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
        let cluster_ips = list("/spec/clusterIPs").iter().filter_map(|ip| Some(host(ip.as_str()?))).collect();
        let ingress = list("/status/loadBalancer/ingress");
        let balancer: Vec<IpNet> = ingress.iter().filter_map(|one| Some(host(one["ip"].as_str()?))).collect();
        if balancer.len() == 2 { Ok((cluster_ips, balancer)) } else { Err(format!("{service}")) }
    })
    .await
}

fn patch_service(cluster: &Cluster, patch: Value) {
    cluster.api().patch(Resource::Services, Some("default"), "web", &patch).unwrap();
}

fn set_ready(cluster: &Cluster, pod: usize, ready: bool) {
    let patch = json!({ "metadata": { "annotations": { READY: ready.to_string() } } });
    cluster.api().patch(Resource::Pods, Some("default"), &format!("pod-{pod}"), &patch).unwrap();
}

struct Story {
    cluster: Cluster,
    routers: [Router; 2],
    cluster_ips: Vec<IpNet>,
    external: Vec<IpNet>,
    balancer: Vec<IpNet>,
}

impl Story {
    async fn spread(&self, prefixes: &[IpNet], nodes: &[usize]) {
        for router in &self.routers {
            for prefix in prefixes {
                spreads(&self.cluster, router, prefix, nodes).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frr_and_bird_learn_pods_and_services() {
    let cluster = routed(3, 1, &TELL).await;
    let (cluster_ips, balancer) = web(&cluster).await;
    let routers = [above(&cluster, 1, Software::Frr), above(&cluster, 2, Software::Bird)];
    let external = EXTERNAL.map(host).to_vec();
    let mut story = Story { cluster, routers, cluster_ips, external, balancer };
    for index in 1..=3 {
        let ranges = story.cluster.node(index).unwrap().pod_ranges().to_vec();
        story.spread(&ranges, &[index]).await;
    }
    for prefixes in [&story.cluster_ips, &story.external, &story.balancer] {
        story.spread(prefixes, &[1, 2, 3]).await;
    }
    everyone_reaches_everyone("with routers above", &story.cluster, &[1, 2, 3]).await;
    pods_are_reached_from_outside(&story).await;
    what_is_told_is_counted(&story).await;
    annotations_overrule_flags(&story).await;
    local_addresses_follow_ready_endpoints(&story).await;
    what_goes_out_is_dressed(&story).await;

    // One that is stopped says good-bye; the others take over. One that is killed is missed at once as well.
    assert_eq!(story.cluster.take_agent(2).unwrap().stop(PATIENCE), Some(0));
    story.spread(&story.cluster_ips, &[1, 3]).await;
    story.cluster.start_agent(2).unwrap();
    story.spread(&story.cluster_ips, &[1, 2, 3]).await;
    story.cluster.take_agent(3).unwrap().kill();
    story.spread(&story.cluster_ips, &[1, 2]).await;
    story.cluster.start_agent(3).unwrap();
    story.spread(&story.cluster_ips, &[1, 2, 3]).await;

    story.cluster.api().delete(Resource::Services, Some("default"), "web", None).unwrap();
    for prefixes in [&story.cluster_ips, &story.external, &story.balancer] {
        story.spread(prefixes, &[]).await;
    }
}

async fn pods_are_reached_from_outside(story: &Story) {
    for (at, router) in story.routers.iter().enumerate() {
        for index in 1..=3 {
            for range in story.cluster.node(index).unwrap().pod_ranges() {
                let via = router.addresses().into_iter().find(|hop| hop.is_ipv4() == range.addr().is_ipv4());
                let line = format!("route replace {range} via {}\n", via.unwrap());
                story.cluster.outside().namespace().ip(&line).unwrap();
            }
            for ip in addresses(&story.cluster, index).unwrap() {
                let probe = story.cluster.outside_probe();
                let ask = || async {
                    let answer = probe.ask(Protocol::Tcp, SocketAddr::new(ip, PORT)).await;
                    match answer {
                        Ok(answer) if answer.by == format!("pod-{index}") => Ok(()),
                        other => Err(format!("{ip} through router {at}: {other:?}")),
                    }
                };
                eventually(PATIENCE, ask).await.unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

/// `/metrics`: upstream's names, the sessions as they are, and what has been told and heard.
async fn what_is_told_is_counted(story: &Story) {
    established(&story.cluster, 1, 4).await;
    let router = story.routers[0].addresses()[0];
    let node = story.cluster.node(2).unwrap().addresses()[0];
    // One page may be from amid a change.
    until("what is told is counted", || {
        let text = metrics(&story.cluster, 1);
        counted(&text, router, node).map_err(|wrong| format!("{wrong}\n{text}"))
    })
    .await;
}

/// What is wrong with a page of metrics of node 1, if anything.
fn counted(text: &str, router: IpAddr, node: IpAddr) -> Result<(), String> {
    for (peer, asn, kind) in [(router, ABOVE_ASN, "external"), (node, 0, "internal")] {
        let info = format!(
            "kube_router_bgp_peer_info{{address=\"{peer}\",asn=\"{asn}\",state=\"established\",type=\"{kind}\"}} 1"
        );
        text.contains(&info).then_some(()).ok_or(info)?;
    }
    let (of_router, of_node) = (format!("address=\"{router}\""), format!("address=\"{node}\""));
    let sent = "controller_bgp_advertisements_sent";
    let exactly: [(&str, &[&str], f64); 7] = [
        // A pod network, a cluster IP, an external IP and a load-balancer IP of each family.
        ("bgp_peer_prefixes_sent", &[&of_router, "ipv4"], 4.0),
        ("bgp_peer_prefixes_sent", &[&of_router, "ipv6"], 4.0),
        ("bgp_peer_prefixes_received", &[&of_node], 2.0),
        // Services are not for nodes.
        ("bgp_peer_prefixes_sent", &[&of_node], 2.0),
        (sent, &["type=\"pod-route\""], 2.0),
        (sent, &["type=\"advertise-vip\""], 6.0),
        ("host_routes_synced", &[], 4.0),
    ];
    let at_least = [
        ("controller_bgp_advertisements_received", 4.0),
        ("host_routes_added", 4.0),
        ("host_routes_sync_time_count", 1.0),
        ("controller_bgp_internal_peers_sync_time_count", 1.0),
        ("controller_routes_sync_time_count", 1.0),
    ];
    let value = |name: &str, labels: &[&str]| metric(text, &format!("kube_router_{name}"), labels);
    for (name, labels, wanted) in exactly {
        let is = value(name, labels);
        (is == wanted).then_some(()).ok_or(format!("{name} {labels:?}: {is} instead of {wanted}"))?;
    }
    for (name, least) in at_least {
        let is = value(name, &[]);
        (is >= least).then_some(()).ok_or(format!("{name}: {is} instead of {least} or more"))?;
    }
    Ok(())
}

async fn annotations_overrule_flags(story: &Story) {
    let annotate = |key: &str, value: Value| {
        let key = format!("kube-router.io/service.advertise.{key}");
        patch_service(&story.cluster, json!({ "metadata": { "annotations": { key: value } } }));
    };
    for (key, prefixes) in [
        ("clusterip", &story.cluster_ips),
        ("externalip", &story.external),
        ("loadbalancerip", &story.balancer),
    ] {
        annotate(key, json!("false"));
        story.spread(prefixes, &[]).await;
        annotate(key, json!(null));
        story.spread(prefixes, &[1, 2, 3]).await;
    }
}

async fn local_addresses_follow_ready_endpoints(story: &Story) {
    patch_service(&story.cluster, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    set_ready(&story.cluster, 2, false);
    for prefixes in [&story.external, &story.balancer] {
        story.spread(prefixes, &[1, 3]).await;
    }
    story.spread(&story.cluster_ips, &[1, 2, 3]).await;
    set_ready(&story.cluster, 2, true);
    story.spread(&story.external, &[1, 2, 3]).await;
    story.cluster.api().delete(Resource::Pods, Some("default"), "pod-3", Some(0)).unwrap();
    story.spread(&story.external, &[1, 2]).await;
    crate::setup::pod(&story.cluster, 3);
    story.spread(&story.external, &[1, 2, 3]).await;
    patch_service(&story.cluster, json!({ "spec": { "externalTrafficPolicy": "Cluster" } }));
}

/// Communities and prepended numbers of a node's annotations, as FRR reads them; applied live.
async fn what_goes_out_is_dressed(story: &Story) {
    let dressed = json!({
        "kube-router.io/node.bgp.communities": "64512:7, no-export",
        "kube-router.io/path-prepend.as": "64512",
        "kube-router.io/path-prepend.repeat-n": "2",
    });
    annotate(&story.cluster, 1, dressed);
    let range = story.cluster.node(1).unwrap().pod_ranges()[0];
    let look = |length: usize, community: bool| {
        move || {
            let paths = story.routers[0].paths(&range).map_err(|error| error.to_string())?;
            let good = |path: &lab::router::Path| {
                path.as_path == vec![NODES_ASN; length] && path.communities.contains("64512:7") == community
            };
            if paths.iter().any(good) { Ok(()) } else { Err(format!("{paths:?}")) }
        }
    };
    until("a community and two numbers more", look(3, true)).await;
    let bare = json!({
        "kube-router.io/node.bgp.communities": null,
        "kube-router.io/path-prepend.as": null,
        "kube-router.io/path-prepend.repeat-n": null,
    });
    annotate(&story.cluster, 1, bare);
    until("neither", look(1, false)).await;
}

/// With `--advertise-aggregate` switches see ranges, and host routes only where nodes differ.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_stand_for_their_addresses() {
    let flags: Vec<&str> = TELL.into_iter().chain(["--advertise-aggregate"]).collect();
    let cluster = routed(2, 1, &flags).await;
    let (cluster_ips, balancer) = web(&cluster).await;
    let router = above(&cluster, 1, Software::Frr);
    let ranges: [IpNet; 3] =
        ["10.96.0.0/16", "fd96::/112", "203.0.113.0/24"].map(|range| range.parse().unwrap());
    for range in &ranges {
        spreads(&cluster, &router, range, &[1, 2]).await;
    }
    for single in cluster_ips.iter().chain(&balancer) {
        spreads(&cluster, &router, single, &[]).await;
    }
    patch_service(&cluster, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    set_ready(&cluster, 2, false);
    spreads(&cluster, &router, &host(EXTERNAL[0]), &[1]).await;
    spreads(&cluster, &router, &ranges[2], &[]).await;
    spreads(&cluster, &router, &ranges[0], &[1, 2]).await;
    cluster.api().delete(Resource::Services, Some("default"), "web", None).unwrap();
    spreads(&cluster, &router, &host(EXTERNAL[0]), &[]).await;
    for range in &ranges {
        spreads(&cluster, &router, range, &[]).await;
    }
}

/// One family only, with IPv6 sessions, too: the router id is then made of the address.
#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_ipv6_are_told_over_ipv6() {
    let flags = ["--peer-router-ips=fd31::65", "--peer-router-asns=65000", "--enable-ipv4=false"];
    let cluster = crate::setup::routed_in(Families::V6, 2, 1, &flags).await;
    let router = above(&cluster, 1, Software::Bird);
    everyone_reaches_everyone("over IPv6", &cluster, &[1, 2]).await;
    for index in [1, 2] {
        until(&format!("the pods of node {index}"), || {
            let range = cluster.node(index).unwrap().pod_ranges()[0];
            let paths = router.paths(&range).map_err(|error| error.to_string())?;
            let hop = cluster.node(index).unwrap().addresses()[0];
            if paths.iter().any(|path| path.next_hop == hop) { Ok(()) } else { Err(format!("{paths:?}")) }
        })
        .await;
    }
}

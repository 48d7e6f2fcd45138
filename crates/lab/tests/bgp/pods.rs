//! Pods reach pods over routes that speakers on their nodes exchange, and a router above the nodes learns pod ranges and
//! addresses of services and spreads over the nodes. BIRD stands in for the agent on every node: what is proved here is
//! the story; whoever routes must tell it as well.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Probe, Protocol, matrix};
use lab::router::{Config, Neighbour, Network, Router, Software, kernel_routes};
use serde_json::json;

use crate::setup::{PATIENCE, link_local, net};

/// Addresses of a service that every node announces and answers on.
const SERVICE: [&str; 2] = ["203.0.113.10/32", "2001:db8:5e::10/128"];
const NODES_ASN: u32 = 64512;
const ABOVE_ASN: u32 = 65000;
const PORT: u16 = 8080;
/// A late answer is not a lost one.
const LATEST: Duration = Duration::from_secs(60);

struct Routed {
    speakers: Vec<Router>,
    above: Router,
    cluster: Cluster,
}

impl Routed {
    /// Nodes with a pod each and a speaker each, in one subnet with the router above.
    async fn new(nodes: u8, above: Software) -> Self {
        let cluster = Cluster::builder().nodes(nodes).dual_stack().route_pods(false).start().await.unwrap();
        let above = Router::new(cluster.fabric(), 0, 1, above).unwrap();
        let spread = [
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
            // The clients are on the nodes' own subnet: told of the shorter way, they would no longer come through here.
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
        ];
        above.namespace().sysctls(&spread).unwrap();
        let deaf =
            [("net/ipv6/conf/eth0/accept_redirects", "0"), ("net/ipv4/conf/eth0/accept_redirects", "0")];
        cluster.outside().namespace().sysctls(&deaf).unwrap();
        let mut routed = Self { speakers: Vec::new(), above, cluster };
        for index in 1..=usize::from(nodes) {
            routed.pod(index);
            routed.speakers.push(Router::on(routed.cluster.node(index).unwrap(), Software::Bird));
        }
        routed.reconfigure_above();
        for index in 1..=usize::from(nodes) {
            routed.configure(index);
        }
        routed
    }

    fn pod(&self, index: usize) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("pod-{index}"), "namespace": "default" },
            "spec": {
                "nodeName": format!("node-{index}"),
                "containers": [{ "name": "c", "image": "lab", "ports": [
                    { "containerPort": PORT }, { "containerPort": PORT, "protocol": "UDP" },
                ] }],
            },
        });
        self.cluster.api().create(Resource::Pods, pod).unwrap();
    }

    /// Starts the speaker of a node with the others of now and the router above as its neighbours.
    fn configure(&mut self, index: usize) {
        let number = u8::try_from(index).unwrap();
        let mut config = Config::new(NODES_ASN, [10, 255, 0, number].into());
        config.graceful_restart = Some(60);
        for other in (1..=self.speakers.len()).filter(|other| *other != index) {
            let address = self.cluster.node(other).unwrap().addresses()[0];
            let mut neighbour = Neighbour::new(address, NODES_ASN);
            neighbour.own_only = true;
            config.neighbours.push(neighbour);
        }
        let mut above = Neighbour::new(self.above.addresses()[0], ABOVE_ASN);
        above.own_only = true;
        config.neighbours.push(above);
        let ranges = self.cluster.node(index).unwrap().pod_ranges().to_vec();
        config.networks = ranges.into_iter().map(Network::new).collect();
        self.speakers[index - 1].start(config).unwrap_or_else(|error| panic!("{error}"));
    }

    fn reconfigure_above(&mut self) {
        let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
        config.maximum_paths = 16;
        config.graceful_restart = Some(60);
        let nodes = 1..=self.speakers.len();
        let address = |index| self.cluster.node(index).unwrap().addresses()[0];
        config.neighbours = nodes.map(|index| Neighbour::new(address(index), NODES_ASN)).collect();
        self.above.start(config).unwrap_or_else(|error| panic!("{error}"));
    }

    fn probe(&self, index: usize) -> Option<Probe> {
        self.cluster.pod_probe("default", &format!("pod-{index}"))
    }

    fn addresses(&self, index: usize) -> Option<Vec<IpAddr>> {
        let pod = self.cluster.api().get(Resource::Pods, Some("default"), &format!("pod-{index}"))?;
        let ips = pod.pointer("/status/podIPs")?.as_array()?;
        Some(ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect())
    }

    /// Every pod asks every pod, in both families, until all are answered by whom they asked, and seen as who they are.
    async fn everyone_reaches_everyone(&self) {
        let pods: Vec<usize> = (1..=self.speakers.len()).collect();
        eventually(PATIENCE, || self.ask_everyone(&pods)).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn ask_everyone(&self, pods: &[usize]) -> Result<(), String> {
        let mut cells = Vec::new();
        let mut expected = Vec::new();
        for client in pods {
            let probe = self.probe(*client).ok_or(format!("pod-{client} does not run"))?;
            let own = self.addresses(*client).ok_or(format!("pod-{client} has no address"))?;
            for server in pods {
                let to = self.addresses(*server).ok_or(format!("pod-{server} has no address"))?;
                for (own, to) in own.iter().zip(to) {
                    cells.push((probe.clone(), Protocol::Udp, SocketAddr::new(to, PORT)));
                    expected.push((format!("pod-{server}"), *own));
                }
            }
        }
        let outcomes = matrix(&cells).await;
        for ((outcome, (name, own)), (probe, _, to)) in outcomes.iter().zip(&expected).zip(&cells) {
            let good = outcome.as_ref().is_ok_and(|answer| answer.by == *name && answer.source.ip() == *own);
            if !good {
                return Err(format!("{} asked {to} of {name} from {own}: {outcome:?}", probe.name()));
            }
        }
        Ok(())
    }

    /// Waits until the router above spreads `prefix` over exactly these nodes.
    async fn spreads(&self, prefix: &IpNet, nodes: &[usize]) {
        let wanted: BTreeSet<IpAddr> = nodes.iter().flat_map(|index| self.hops(*index, prefix)).collect();
        let look = || async {
            let routes = kernel_routes(self.above.namespace(), prefix).map_err(|error| error.to_string())?;
            let hops: BTreeSet<IpAddr> = routes.iter().flat_map(|route| route.gateways.clone()).collect();
            // FRR prefers the link-local address of an IPv6 next hop.
            let many = hops.iter().filter(|hop| wanted.contains(hop)).count();
            let good = many == hops.len() && hops.len() == nodes.len();
            if good { Ok(()) } else { Err(format!("{prefix} over {hops:?} instead of nodes {nodes:?}")) }
        };
        eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}\n{}", self.above.log()));
    }

    /// The addresses by which a node may be a next hop.
    fn hops(&self, index: usize, prefix: &IpNet) -> Vec<IpAddr> {
        let node = self.cluster.node(index).unwrap();
        let mut hops: Vec<IpAddr> =
            node.addresses().into_iter().filter(|own| own.is_ipv4() == prefix.addr().is_ipv4()).collect();
        if prefix.addr().is_ipv6() {
            hops.push(link_local(node.namespace()));
        }
        hops
    }

    /// Who answers on a service's address, asked from outside through the router above.
    async fn answering(&self, address: IpAddr) -> BTreeSet<String> {
        let cells = vec![(self.cluster.outside_probe(), Protocol::Tcp, SocketAddr::new(address, PORT)); 60];
        matrix(&cells).await.into_iter().filter_map(|outcome| outcome.ok().map(|answer| answer.by)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_three_nodes_and_the_router_above() {
    let mut routed = Routed::new(3, Software::Frr).await;
    routed.everyone_reaches_everyone().await;
    for index in 1..=3 {
        for range in routed.cluster.node(index).unwrap().pod_ranges() {
            routed.spreads(range, &[index]).await;
        }
    }
    a_service_is_spread_over_the_nodes(&mut routed).await;
    a_speaker_is_killed_and_nobody_notices(&mut routed).await;
    a_node_goes(&mut routed).await;
    a_node_comes(&mut routed).await;
}

async fn a_service_is_spread_over_the_nodes(routed: &mut Routed) {
    let mut servers = Vec::new();
    let via: Vec<IpAddr> = routed.above.addresses();
    for prefix in SERVICE.map(net) {
        for index in 1..=3 {
            let nodad = if prefix.addr().is_ipv6() { " nodad" } else { "" };
            let lines = format!("addr add {prefix} dev lo{nodad}\n");
            routed.cluster.node(index).unwrap().namespace().ip(&lines).unwrap();
            let probe = routed.cluster.node_probe(index).unwrap();
            let address = SocketAddr::new(prefix.addr(), PORT);
            servers.push(probe.serve_on(Protocol::Tcp, address).await.unwrap());
            routed.speakers[index - 1].announce(Network::new(prefix)).unwrap();
        }
        let hop = via.iter().find(|hop| hop.is_ipv4() == prefix.addr().is_ipv4()).unwrap();
        routed.cluster.outside().namespace().ip(&format!("route add {prefix} via {hop}\n")).unwrap();
        routed.spreads(&prefix, &[1, 2, 3]).await;
        let all = BTreeSet::from(["node-1", "node-2", "node-3"].map(str::to_owned));
        assert_eq!(routed.answering(prefix.addr()).await, all, "{prefix}");
        routed.speakers[1].withdraw(&prefix).unwrap();
        routed.spreads(&prefix, &[1, 3]).await;
        let rest = BTreeSet::from(["node-1", "node-3"].map(str::to_owned));
        assert_eq!(routed.answering(prefix.addr()).await, rest, "{prefix}");
        routed.speakers[1].announce(Network::new(prefix)).unwrap();
        routed.spreads(&prefix, &[1, 2, 3]).await;
    }
}

/// kill -9 with graceful restart, while pods ask each other a thousand times a second.
async fn a_speaker_is_killed_and_nobody_notices(routed: &mut Routed) {
    let to = SocketAddr::new(routed.addresses(2).unwrap()[0], PORT);
    let there =
        routed.probe(1).unwrap().patience(LATEST).rate(Protocol::Udp, to, 500, Duration::from_secs(120));
    let back = SocketAddr::new(routed.addresses(1).unwrap()[0], PORT);
    let from =
        routed.probe(2).unwrap().patience(LATEST).rate(Protocol::Udp, back, 500, Duration::from_secs(120));
    let above = routed.above.addresses()[0];
    routed.speakers[1].kill();
    let gone = |routed: &Routed| {
        let address = routed.cluster.node(2).unwrap().addresses()[0];
        let peering = routed.above.peering(address).map_err(|error| error.to_string())?;
        if peering.established { Err(peering.said) } else { Ok(()) }
    };
    eventually(PATIENCE, || async { gone(routed) }).await.unwrap();
    routed.speakers[1].start_again().unwrap();
    let back = || async {
        let peering = routed.speakers[1].peering(above).map_err(|error| error.to_string())?;
        if peering.established { Ok(()) } else { Err(peering.said) }
    };
    eventually(PATIENCE, back).await.unwrap();
    routed.everyone_reaches_everyone().await;
    for rate in [there.stop_after(500).await, from.stop_after(500).await] {
        assert!(rate.asked >= 500, "{rate:?}");
        assert!(rate.failed.is_empty(), "of {}: {:?}", rate.asked, rate.failed);
    }
}

/// The machine is lost: after the hold time its routes are, too, and the others are as before.
async fn a_node_goes(routed: &mut Routed) {
    routed.speakers[2].stop();
    routed.cluster.on_node(3, "ip link set eth0 down").unwrap();
    // Without graceful restart its silence would be enough; with it the restart time passes first.
    for speaker in [0, 1] {
        let mut config = routed.speakers[speaker].config().unwrap().clone();
        let lost = routed.cluster.node(3).unwrap().addresses()[0];
        config.neighbours.retain(|neighbour| neighbour.address != lost);
        routed.speakers[speaker].start(config).unwrap();
    }
    let range = routed.cluster.node(3).unwrap().pod_ranges()[0];
    let look = || async {
        let routes = kernel_routes(routed.cluster.node(1).unwrap().namespace(), &range).unwrap();
        if routes.is_empty() { Ok(()) } else { Err(format!("{routes:?}")) }
    };
    eventually(PATIENCE, look).await.unwrap();
    let pods = [1, 2];
    eventually(PATIENCE, || routed.ask_everyone(&pods)).await.unwrap();
}

/// A machine is added to the running cluster.
async fn a_node_comes(routed: &mut Routed) {
    let index = routed.cluster.add_node().unwrap();
    routed.pod(index);
    routed.speakers.push(Router::on(routed.cluster.node(index).unwrap(), Software::Bird));
    routed.reconfigure_above();
    for speaker in [1, 2, index] {
        routed.configure(speaker);
    }
    let pods = [1, 2, index];
    eventually(PATIENCE, || routed.ask_everyone(&pods)).await.unwrap();
    let range = routed.cluster.node(index).unwrap().pod_ranges()[0];
    routed.spreads(&range, &[index]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_twelve_nodes() {
    let routed = Routed::new(12, Software::Bird).await;
    routed.everyone_reaches_everyone().await;
    for range in routed.cluster.node(12).unwrap().pod_ranges() {
        routed.spreads(range, &[12]).await;
    }
}

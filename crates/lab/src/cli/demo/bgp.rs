//! The router outside of the cluster: FRR on the nodes' subnet. The agents tell it service addresses by BGP, and it
//! spreads connections over the nodes that told it.
//!
//! What it should come to know follows from the state of the cluster; what it knows is read from its kernel by `ip`, and
//! by which nodes connections came in from `ipvsadm` on each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use comfy_table::{ContentArrangement, Table, TableComponent};
use ipnet::IpNet;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::router::{Config, Neighbour, Router, Software, kernel_routes};

use super::progress::Line;
use super::state::{Service, State};
use super::{Failure, PROGRAMMING, STARTING};

/// The AS of the nodes (`--cluster-asn` by default) and of the router.
const NODES_ASN: u32 = 64512;
const ROUTER_ASN: u32 = 65000;

/// What the agents are told of the router: every node peers with it, and tells it external and load-balancer IPs.
pub(super) fn agent_flags() -> Vec<String> {
    let address = Families::V4.router(0, 1).first().map(|net| net.addr().to_string()).unwrap_or_default();
    vec![
        format!("--peer-router-ips={address}"),
        format!("--peer-router-asns={ROUTER_ASN}"),
        "--advertise-external-ip".to_owned(),
        "--advertise-loadbalancer-ip".to_owned(),
    ]
}

/// Starts it, with every node as its neighbour.
pub(super) fn start(cluster: &Cluster) -> Result<Router, Failure> {
    let mut router = Router::new(cluster.fabric(), 0, 1, Software::Frr)?;
    let spread = [
        // By ports as well as addresses: the demo's client has one address.
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
        // The client is on the nodes' own subnet; told of the shorter way it would leave the router out.
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
    ];
    router.namespace().sysctls(&spread)?;
    cluster.outside().namespace().sysctls(&[("net/ipv6/conf/eth0/accept_redirects", "0")])?;
    let mut config = Config::new(ROUTER_ASN, [10, 255, 1, 1].into());
    config.hold_seconds = 90;
    config.maximum_paths = 16;
    let first = |node: &std::sync::Arc<lab::node::Node>| node.addresses().first().copied();
    let nodes = cluster.nodes().iter().filter_map(first);
    config.neighbours = nodes.map(|address| Neighbour::new(address, NODES_ASN)).collect();
    router.start(config)?;
    Ok(router)
}

/// Waits until every node has a route to every other node's pods, learned by BGP; returns how many there are.
pub(super) async fn pods_routed(cluster: &Cluster, line: &Line) -> Result<usize, Failure> {
    let look = || async {
        let mut count = 0;
        for node in cluster.nodes() {
            for other in cluster.nodes().iter().filter(|other| other.name() != node.name()) {
                for range in other.pod_ranges() {
                    let routes = kernel_routes(node.namespace(), range).map_err(|error| error.to_string())?;
                    if routes.is_empty() {
                        let lacks = format!("{} has no route to the pods of {}", node.name(), other.name());
                        line.say(lacks.clone());
                        return Err(lacks);
                    }
                    count += routes.len();
                }
            }
        }
        Ok(count)
    };
    Ok(eventually(STARTING, look).await?)
}

/// An address the router should know, whose it is, and by which nodes (from 1) it is reached.
#[derive(Debug)]
pub(super) struct Learned {
    service: String,
    kind: &'static str,
    address: IpAddr,
    port: u16,
    nodes: BTreeSet<usize>,
}

/// All that it should know: every node for a service that any node serves, those with a backend where traffic is to
/// stay local.
pub(super) fn expected(state: &State) -> Vec<Learned> {
    let has_backend =
        |service: &Service, name: &str| !service.local || service.backends.values().any(|on| on == name);
    let of = |service: &Service| -> Vec<Learned> {
        let kinds = [("external IP", &service.external_ips), ("load-balancer IP", &service.balancer_ips)];
        let nodes = (1..).zip(&state.nodes).filter(|(_, node)| has_backend(service, &node.name));
        let nodes: BTreeSet<usize> = nodes.map(|(number, _)| number).collect();
        let one = |(kind, address): (&'static str, &IpAddr)| Learned {
            service: format!("{}/{}", service.namespace, service.name),
            kind,
            address: *address,
            port: service.ports.first().map_or(0, |port| port.number),
            nodes: nodes.clone(),
        };
        kinds.iter().flat_map(|(kind, ips)| ips.iter().map(|ip| (*kind, ip))).map(one).collect()
    };
    state.services.iter().flat_map(of).collect()
}

/// Waits until the router's kernel has all of it; returns what it still lacks when the time is up.
pub(super) async fn learned(
    cluster: &Cluster,
    router: &Router,
    expected: &[Learned],
    line: &Line,
) -> Vec<String> {
    let look = || async {
        let wrong: Vec<String> = expected.iter().filter_map(|one| lacking(cluster, router, one)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        line.say(wrong.join("; "));
        Err(wrong.join("\n  "))
    };
    match eventually(PROGRAMMING, look).await {
        Ok(()) => Vec::new(),
        Err(error) => vec![error.to_string()],
    }
}

fn lacking(cluster: &Cluster, router: &Router, one: &Learned) -> Option<String> {
    let there = match router.kernel_routes(&IpNet::from(one.address)) {
        Ok(routes) => routes.into_iter().flat_map(|route| route.gateways).collect::<BTreeSet<IpAddr>>(),
        Err(error) => return Some(error.to_string()),
    };
    let nodes = one.nodes.iter().filter_map(|number| cluster.node(*number).ok());
    let hop = |ip: &IpAddr| ip.is_ipv4() == one.address.is_ipv4();
    let wanted: BTreeSet<IpAddr> = nodes.filter_map(|node| node.addresses().into_iter().find(hop)).collect();
    (there != wanted).then(|| format!("the router sends {} to {there:?}, not {wanted:?}", one.address))
}

/// What the router learned, and by which nodes connections to it came in.
pub(super) fn table(cluster: &Cluster, expected: &[Learned], columns: u16) -> String {
    let entered: Vec<BTreeMap<(IpAddr, u16), u64>> = (1..=cluster.nodes().len())
        .map(|number| {
            connections(&cluster.on_node(number, "ipvsadm -Ln --stats --exact").unwrap_or_default())
        })
        .collect();
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    table.set_header([
        "service",
        "what",
        "route the router learned by BGP",
        "next hops",
        "connections came in by",
    ]);
    for one in expected {
        let names = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(", ");
        let hops = names(&mut one.nodes.iter().map(|number| format!("node-{number}")));
        let came = (1..).zip(&entered).filter_map(|(number, of_node)| {
            let count = of_node.get(&(one.address, one.port)).filter(|count| **count > 0)?;
            Some(format!("node-{number} ×{count}"))
        });
        let came = names(&mut came.collect::<Vec<_>>().into_iter());
        let route = IpNet::from(one.address).to_string();
        table.add_row([one.service.as_str(), one.kind, &route, &hops, &came]);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How to read it.
pub(super) const LEGEND: &str = "\
The router outside knows the addresses of services only by what the nodes told it. “next hops”: the nodes it spreads\n\
connections over; for a service whose traffic is to stay local, the nodes with a pod of it.";

/// Connections by virtual server, of what `ipvsadm -Ln --stats --exact` prints.
fn connections(text: &str) -> BTreeMap<(IpAddr, u16), u64> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| ["TCP", "UDP", "SCTP"].contains(word))?;
        let at: std::net::SocketAddr = words.next()?.parse().ok()?;
        Some(((at.ip(), at.port()), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
             Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n\
             \x20 -> RemoteAddress:Port\n\
             TCP  198.51.100.1:80                   12       72       48     4000     3000\n\
             \x20 -> 10.244.1.2:8080                   6       36       24     2000     1500\n\
             TCP  [fd98::1]:80                       3       18       12     1000      900\n";
        let read = connections(text);
        let of = |ip: &str| read.get(&(ip.parse().expect("an address"), 80)).copied();
        assert_eq!((of("198.51.100.1"), of("fd98::1"), read.len()), (Some(12), Some(3), 2));
    }
}

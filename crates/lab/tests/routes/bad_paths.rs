//! Paths that nothing can be made of, beside others: they are on their own (upstream stops at the first route the
//! kernel refuses, W17).

use ipnet::IpNet;
use lab::cluster::Cluster;
use lab::router::{Config, Neighbour, Network, Router, Software};

use crate::above::{ABOVE_ASN, NODES_ASN, above};
use crate::setup::{everyone_reaches_everyone, learned, metric, metrics, ranges, routed, until};

const FLAGS: [&str; 2] = ["--peer-router-ips=172.31.0.101", "--peer-router-asns=65000"];
/// On the subnet, and no router's: the kernel takes no broadcast address for a gateway.
const BROADCAST: Option<&str> = Some("172.31.0.255");
/// The nodes'.
const SUBNET: &str = "172.31.0.0/24";
/// On no subnet of the nodes.
const NOWHERE: Option<&str> = Some("172.31.9.9");

fn network(prefix: &str, next_hop: Option<&str>) -> Network {
    let mut network = Network::new(prefix.parse().unwrap());
    network.next_hop = next_hop.map(|hop| hop.parse().unwrap());
    network
}

/// Waits until node 1 has routes to these prefixes and to the pods of node 2, and to nothing else, and until so many
/// rows are refused by its kernel.
async fn has(cluster: &Cluster, prefixes: &[&str], refused: f64) {
    let mut wanted = ranges(cluster, &[2]);
    wanted.extend(prefixes.iter().map(|&prefix| prefix.to_owned()));
    wanted.sort();
    until(&format!("{wanted:?} and {refused} refused"), || {
        let (there, text) = (learned(cluster, 1), metrics(cluster, 1));
        let said = metric(&text, "kube_router_rows_refused", &[]);
        if there == wanted && said == refused { Ok(()) } else { Err(format!("{there:?}, {said} refused")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_the_kernel_refuses_leaves_the_others_alone() {
    let cluster = routed(2, 1, &FLAGS).await;
    has(&cluster, &[], 0.0).await;
    let mut above = Router::new(cluster.fabric(), 0, 1, Software::GoBgp).unwrap();
    let mut config = Config::new(ABOVE_ASN, [10, 255, 1, 1].into());
    let neighbour = |node: &std::sync::Arc<lab::node::Node>| Neighbour::new(node.addresses()[0], NODES_ASN);
    config.neighbours = cluster.nodes().iter().map(neighbour).collect();
    // Bad ones before, between and behind good ones, in whatever order they are looked at.
    config.networks = vec![
        network("192.0.2.0/27", BROADCAST),
        network("192.0.2.32/27", None),
        network("192.0.2.64/27", NOWHERE),
        network("192.0.2.96/27", None),
        network("192.0.2.128/27", BROADCAST),
    ];
    above.start(config).unwrap_or_else(|error| panic!("{error}"));
    has(&cluster, &["192.0.2.32/27", "192.0.2.96/27"], 2.0).await;
    everyone_reaches_everyone("beside paths that are refused", &cluster, &[1, 2]).await;

    // One that comes later is not held up by those that are tried again and again.
    above.announce(network("192.0.2.160/27", None)).unwrap();
    has(&cluster, &["192.0.2.160/27", "192.0.2.32/27", "192.0.2.96/27"], 2.0).await;

    // One is told with another next hop, one is withdrawn: nothing of either is left.
    let withdrawn: IpNet = "192.0.2.128/27".parse().unwrap();
    above.withdraw(&withdrawn).unwrap();
    above.announce(network("192.0.2.0/27", None)).unwrap();
    let all = ["192.0.2.0/27", "192.0.2.160/27", "192.0.2.32/27", "192.0.2.96/27"];
    has(&cluster, &all, 0.0).await;
}

/// A router that tells everything it knows tells nodes their own networks, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_has_by_itself_stays_as_it_is() {
    let cluster = routed(2, 1, &FLAGS).await;
    has(&cluster, &[], 0.0).await;
    let own = || {
        let routes = cluster.on_node(1, "ip -4 route show table main").unwrap();
        let ours = |line: &&str| !line.contains("proto 17") && !line.contains("proto mrouted");
        let bare = |line: &str| line.replace(" linkdown", "");
        routes.lines().filter(ours).map(bare).collect::<Vec<_>>()
    };
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2]).await;
    let before = own();
    let mut above = above(&cluster, 1, Software::GoBgp);
    let pods = cluster.node(1).unwrap().pod_ranges()[0];
    let told = [SUBNET.to_owned(), pods.to_string(), format!("{}/32", pods.addr())];
    for prefix in &told {
        above.announce(network(prefix, None)).unwrap();
    }
    above.announce(network("192.0.2.0/27", None)).unwrap();
    // The last one told is the sign that all were heard.
    has(&cluster, &["192.0.2.0/27"], 0.0).await;
    assert_eq!(own(), before);
    everyone_reaches_everyone("told its own networks", &cluster, &[1, 2]).await;
    for prefix in &told {
        above.withdraw(&prefix.parse::<IpNet>().unwrap()).unwrap();
    }
    above.withdraw(&"192.0.2.0/27".parse::<IpNet>().unwrap()).unwrap();
    has(&cluster, &[], 0.0).await;
    assert_eq!(own(), before);
}

//! A node of the Go kube-router in another subnet, with all that it writes into its kernel: tunnels as its `ip` lines
//! make them, table 77, rules without a priority, routes with protocol 17. Pods of both kinds of node reach each other
//! through them; then our agent takes the node over, and what is there serves on, once.
//!
//! GoBGP speaks for that node; the rest is written by hand.

use std::net::{IpAddr, SocketAddr};

use lab::cluster::{Cluster, eventually};
use lab::probe::Protocol;
use lab::process;
use lab::router::{Router, Software};

use crate::above::NODES_ASN;
use crate::mixed::config;
use crate::overlay::tunnels;
use crate::setup::{PATIENCE, agent, everyone_reaches_everyone, ip, knows, routed, until};

/// The node that is not ours, and the one that is.
const THEIRS: usize = 2;
const OURS: usize = 1;
/// Of a server on each node itself.
const ON_THE_NODE: u16 = 9088;

/// Upstream's name of the tunnel to an address.
fn name_to(hop: IpAddr) -> String {
    let bare: String = hop.to_string().chars().filter(|sign| !".:".contains(*sign)).collect();
    let hash =
        process::command("sh").args(["-c", &format!("printf %s {bare} | sha256sum")]).output().unwrap();
    format!("tun-{}", &String::from_utf8(hash.stdout).unwrap()[..11])
}

/// What upstream runs, and sends by netlink, for a peer in another subnet.
fn write(cluster: &Cluster, fou: bool) -> Vec<String> {
    let (theirs, ours) = (cluster.node(THEIRS).unwrap().clone(), cluster.node(OURS).unwrap().clone());
    let mut names = Vec::new();
    let families = theirs.addresses().into_iter().zip(ours.addresses());
    for ((own, hop), (range, to)) in families.zip(theirs.pod_ranges().iter().zip(ours.pod_ranges())) {
        let name = name_to(hop);
        let (four, full) = (hop.is_ipv4(), if hop.is_ipv4() { 32 } else { 128 });
        let link = match (fou, four) {
            (false, true) => {
                format!("link add name {name} type ipip remote {hop} local {own} ttl inherit nopmtudisc")
            }
            (false, false) => format!("link add name {name} type ip6tnl remote {hop} local {own} mode any"),
            (true, true) => format!(
                "fou add port 5555 gue\nlink add name {name} type ipip remote {hop} local {own} ttl 225 encap gue \
                 encap-sport auto encap-dport 5555 mode ipip"
            ),
            (true, false) => format!(
                "-6 fou add port 5555 gue\n-6 link add name {name} type ip6tnl remote {hop} local {own} ttl 225 \
                 encap gue encap-sport auto encap-dport 5555 mode ip6ip6"
            ),
        };
        let family = if four { "-4" } else { "-6" };
        for line in link.lines().map(str::to_owned).chain([
            format!("link set {name} up"),
            format!("{family} route add {hop}/{full} dev {name} table 77"),
            format!("{family} rule add from {range} lookup 77"),
            format!("{family} route add {to} dev {name} src {own} proto 17"),
        ]) {
            cluster.on_node(THEIRS, &format!("ip {line}")).unwrap_or_else(|error| panic!("{error}"));
        }
        names.push(name);
    }
    names.sort();
    names
}

/// A pod asks the other node itself, which upstream sends through table 77.
async fn pods_reach_nodes(what: &str, cluster: &Cluster) {
    for (node, pod) in [(OURS, THEIRS), (THEIRS, OURS)] {
        let server = cluster.node_probe(node).unwrap().serve(Protocol::Udp, ON_THE_NODE).await.unwrap();
        let probe = cluster.pod_probe("default", &format!("pod-{pod}")).expect("it runs");
        for address in cluster.node(node).unwrap().addresses() {
            let ask = || async {
                let answer = probe.ask(Protocol::Udp, SocketAddr::new(address, ON_THE_NODE)).await;
                answer.map(drop).map_err(|failure| format!("pod-{pod} asks {address}: {failure}"))
            };
            eventually(PATIENCE, ask).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        drop(server);
    }
}

/// Rules that lead to table 77, however it is called.
fn rules(cluster: &Cluster) -> usize {
    let all = ip(cluster, THEIRS, "rule show");
    all.iter().filter(|rule| rule["table"] == "77" || rule["table"] == "kube-router").count()
}

async fn story(flags: &[&str], fou: bool) {
    let mut cluster = routed(2, 2, flags).await;
    everyone_reaches_everyone("with agents of ours", &cluster, &[OURS, THEIRS]).await;
    assert_eq!(cluster.take_agent(THEIRS).unwrap().stop(PATIENCE), Some(0));
    agent(&cluster, THEIRS, "--cleanup-config").unwrap();
    assert_eq!((tunnels(&cluster, THEIRS).len(), rules(&cluster)), (0, 0), "nothing of ours is left");

    let mut other = Router::on(cluster.node(THEIRS).unwrap(), Software::GoBgp);
    let names = write(&cluster, fou);
    other.start(config(&cluster, THEIRS, NODES_ASN, &[OURS])).unwrap();
    knows(&cluster, OURS, &[THEIRS]).await;
    everyone_reaches_everyone("with a node of upstream", &cluster, &[OURS, THEIRS]).await;
    pods_reach_nodes("with a node of upstream", &cluster).await;

    drop(other);
    cluster.start_agent(THEIRS).unwrap();
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    for (node, others) in [(OURS, THEIRS), (THEIRS, OURS)] {
        knows(&cluster, node, &[others]).await;
    }
    everyone_reaches_everyone("taken over", &cluster, &[OURS, THEIRS]).await;
    pods_reach_nodes("taken over", &cluster).await;
    assert_eq!(tunnels(&cluster, THEIRS), names, "they serve on");
    until("rules are there once", || match rules(&cluster) {
        2 => Ok(()),
        count => Err(format!("{count}: {:?}", ip(&cluster, THEIRS, "rule show"))),
    })
    .await;
    assert_eq!(cluster.take_agent(THEIRS).unwrap().stop(PATIENCE), Some(0));
    let said = agent(&cluster, THEIRS, "--cleanup-config").unwrap();
    assert_eq!((tunnels(&cluster, THEIRS).len(), rules(&cluster)), (0, 0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs ipip"]
async fn plain_tunnels_of_upstream_serve_both_kinds_of_node() {
    story(&[], false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn tunnels_in_udp_of_upstream_serve_both_kinds_of_node() {
    story(&["--overlay-encap=fou"], true).await;
}

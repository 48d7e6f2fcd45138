//! What changes while agents run: peers, their passwords and AS numbers by annotation and file, and what others take
//! away from the kernel. Nothing is restarted.

use std::time::Instant;

use lab::api_server::Resource;
use lab::cluster::Cluster;
use lab::router::{Neighbour, Router, Software};
use serde_json::json;

use crate::above::{above, peers_with_all};
use crate::setup::{
    annotate, everyone_reaches_everyone, ip, knows, log, metrics, ranges, routed, status, until,
};

async fn session(router: &Router, cluster: &Cluster, node: usize, up: bool) {
    let address = cluster.node(node).unwrap().addresses()[0];
    until(&format!("the session with node {node} is {}", if up { "up" } else { "down" }), || {
        let peering = router.peering(address).map_err(|error| error.to_string())?;
        if peering.established == up { Ok(()) } else { Err(format!("{}\n{}", peering.said, router.log())) }
    })
    .await;
}

fn with_passwords(cluster: &Cluster, password: Option<&str>) -> lab::router::Config {
    let mut config = peers_with_all(cluster, 1);
    let set = |neighbour: &mut Neighbour| neighbour.password = password.map(str::to_owned);
    config.neighbours.iter_mut().for_each(set);
    config
}

/// None of these texts is in the log, in the status or in the metrics of a node's agent.
async fn secrets_stay_secret(cluster: &Cluster, node: usize, secrets: &[&str]) {
    let told = [
        ("log", log(cluster, node)),
        ("status", until("the agent's status", || status(cluster, node, "")).await.to_string()),
        ("metrics", metrics(cluster, node)),
    ];
    for (where_to, text) in told {
        assert!(text.len() > 100, "no {where_to}: {text}");
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in the {where_to}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_come_and_go_with_the_node_object() {
    let cluster = routed(2, 1, &["--bgp-holdtime=9s"]).await;
    // The speaker listens; the administration server of upstream's is not built, and its port is free.
    let listening = until("the speaker listens", || {
        let text = cluster.on_node(1, "ss -Hltn").map_err(|error| error.to_string())?;
        if text.contains(":179 ") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(!listening.contains(":50051 "), "{listening}");
    let mut router = above(&cluster, 1, Software::Frr);
    // The consolidated annotation, with a password; then another password; then none of it.
    let peer = |password: &str| {
        json!({ "kube-router.io/peers":
            format!("- remoteip: 172.31.0.101\n  remoteasn: 65000\n  password: {password}\n") })
    };
    annotate(&cluster, 1, peer("aHVudGVyMg=="));
    router.start(with_passwords(&cluster, Some("hunter2"))).unwrap();
    session(&router, &cluster, 1, true).await;
    annotate(&cluster, 1, peer("aHVudGVyMw=="));
    router.start(with_passwords(&cluster, Some("hunter3"))).unwrap();
    session(&router, &cluster, 1, true).await;
    secrets_stay_secret(&cluster, 1, &["hunter", "aHVudGVy"]).await;
    knows(&cluster, 1, &[2]).await;
    annotate(&cluster, 1, json!({ "kube-router.io/peers": null }));
    session(&router, &cluster, 1, false).await;

    // The older ones, on the other node; and one that cannot be read, which is named and disturbs nobody.
    router.start(with_passwords(&cluster, None)).unwrap();
    let lists = json!({ "kube-router.io/peer.ips": "172.31.0.101", "kube-router.io/peer.asns": "65000" });
    annotate(&cluster, 2, lists);
    session(&router, &cluster, 2, true).await;
    annotate(&cluster, 2, json!({ "kube-router.io/node.bgp.communities": "nonsense" }));
    until("the bad annotation is named", || {
        let status = cluster.on_node(2, "curl -s http://127.0.0.1:20241/metrics").unwrap_or_default();
        let log = log(&cluster, 2);
        let named = ["node-2", "node.bgp.communities", "nonsense"].iter().all(|word| log.contains(word));
        if named { Ok(()) } else { Err(format!("{log}\n{status}")) }
    })
    .await;
    session(&router, &cluster, 2, true).await;
    knows(&cluster, 1, &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_change_with_their_file() {
    let file = "/run/passwords";
    let write = |cluster: &Cluster, node: usize, password: &str| {
        let text = format!("{password}\n");
        let namespace = cluster.node(node).unwrap().namespace();
        namespace.run(move || std::fs::write(file, text)).unwrap().unwrap();
    };
    let flags = [
        "--peer-router-ips=172.31.0.101",
        "--peer-router-asns=65000",
        "--peer-router-passwords-file=/run/passwords",
        "--bgp-holdtime=9s",
    ];
    let cluster = routed(2, 1, &flags).await;
    let mut router = above(&cluster, 1, Software::Frr);
    for (password, in_base64) in [("first", "Zmlyc3Q="), ("second", "c2Vjb25k")] {
        (1..=2).for_each(|node| write(&cluster, node, in_base64));
        router.start(with_passwords(&cluster, Some(password))).unwrap();
        for node in [1, 2] {
            session(&router, &cluster, node, true).await;
            secrets_stay_secret(&cluster, node, &["Zmlyc3", "c2Vjb25k"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_peer_by_their_as_numbers() {
    let cluster = routed(3, 1, &["--nodes-full-mesh=false"]).await;
    let asn = |node: usize, asn: &str| annotate(&cluster, node, json!({ "kube-router.io/node.asn": asn }));
    (1..=3).for_each(|node| asn(node, "64600"));
    for node in 1..=3 {
        knows(&cluster, node, &(1..=3).filter(|other| *other != node).collect::<Vec<_>>()).await;
    }
    asn(3, "64601");
    knows(&cluster, 1, &[2]).await;
    knows(&cluster, 3, &[]).await;
    asn(3, "64600");
    knows(&cluster, 1, &[2, 3]).await;
    everyone_reaches_everyone("of one AS again", &cluster, &[1, 2, 3]).await;
}

/// The agent of a node waits until its object has an address; from then on the node is a peer of all.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_as_soon_as_it_has_an_address() {
    let mut cluster = routed(3, 1, &[]).await;
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2, 3]).await;
    let api = cluster.api();
    let addresses = api.get(Resource::Nodes, None, "node-3").unwrap()["status"]["addresses"].clone();
    let set = |addresses| {
        api.patch_status(Resource::Nodes, None, "node-3", &json!({ "addresses": addresses })).unwrap();
    };
    set(json!([]));
    drop(cluster.take_agent(3));
    knows(&cluster, 1, &[2]).await;
    knows(&cluster, 2, &[1]).await;
    let before = log(&cluster, 3).len();
    cluster.start_agent(3).unwrap();
    until("the agent says what it waits for", || {
        let text = log(&cluster, 3).split_off(before);
        if text.contains("nothing is programmed until there is one") { Ok(()) } else { Err(text) }
    })
    .await;
    let given = Instant::now();
    set(addresses);
    knows(&cluster, 1, &[2, 3]).await;
    knows(&cluster, 2, &[1, 3]).await;
    let told = given.elapsed();
    everyone_reaches_everyone("with one that was given an address", &cluster, &[1, 2, 3]).await;
    println!(
        "a node with a new address was in others' routes after {told:?}, reached after {:?}",
        given.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_take_away_comes_back() {
    let cluster = routed(2, 1, &[]).await;
    knows(&cluster, 1, &[2]).await;
    let own = ranges(&cluster, &[1]);
    let rules = |cluster: &Cluster| {
        let all = ip(cluster, 1, "rule show");
        all.iter().filter(|rule| rule["table"] == "77" || rule["table"] == "kube-router").count()
    };
    until("rules of the overlay", || match rules(&cluster) {
        2 => Ok(()),
        count => Err(format!("{count}")),
    })
    .await;
    let shown = cluster.on_node(1, "ip rule").unwrap();
    assert!(shown.contains("lookup kube-router"), "the table has its name: {shown}");
    let taken = Instant::now();
    for range in &ranges(&cluster, &[2]) {
        let family = if range.contains(':') { "-6" } else { "-4" };
        cluster.on_node(1, &format!("ip {family} route del {range}")).unwrap();
    }
    for range in &own {
        let family = if range.contains(':') { "-6" } else { "-4" };
        cluster.on_node(1, &format!("ip {family} rule del from {range} lookup 77")).unwrap();
    }
    knows(&cluster, 1, &[2]).await;
    until("rules of the overlay", || match rules(&cluster) {
        2 => Ok(()),
        count => Err(format!("{count}")),
    })
    .await;
    let took = taken.elapsed();
    println!("routes and rules were back {took:?} after the first was taken");

    // A route that leads elsewhere is put right, one of somebody else's is left alone.
    let range = ranges(&cluster, &[2]).into_iter().find(|range| !range.contains(':')).unwrap();
    cluster.on_node(1, &format!("ip route replace {range} via 172.31.0.1 proto 17")).unwrap();
    cluster.on_node(1, "ip route add 192.0.2.0/24 via 172.31.0.1 proto static").unwrap();
    until("the route leads to node 2 again", || {
        let routes = ip(&cluster, 1, &format!("route show {range}"));
        let hop = cluster.node(2).unwrap().addresses()[0].to_string();
        if routes.iter().any(|route| route["gateway"] == hop) { Ok(()) } else { Err(format!("{routes:?}")) }
    })
    .await;
    assert!(!ip(&cluster, 1, "route show 192.0.2.0/24").is_empty());
    // The link goes down and comes up: the kernel says nothing of the routes it drops.
    let lines = "link set eth0 down\nlink set eth0 up\naddr replace fd31::b/64 dev eth0 nodad\n";
    cluster.node(1).unwrap().namespace().ip(lines).unwrap();
    knows(&cluster, 1, &[2]).await;
}

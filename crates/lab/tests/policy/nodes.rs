//! Nodes and pods on the host's network: what policies mean for traffic that no pod of its own sends or gets.

use std::net::{IpAddr, SocketAddr};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::probe::{Probe, Protocol};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{PATIENCE, SOON, Stage};
use crate::tables::{NFTABLES, cluster, logs};

/// Asks TCP and UDP port 80 in each family until `passes` is what all of them do.
pub(crate) async fn all(
    about: &str,
    probe: &Probe,
    to: &[IpAddr],
    port: u16,
    passes: bool,
) -> Result<(), String> {
    let probe = probe.clone().patience(PATIENCE);
    let look = || async {
        for ip in to {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let outcome = probe.ask(protocol, SocketAddr::new(*ip, port)).await;
                if outcome.is_ok() != passes {
                    let wanted = if passes { "passes" } else { "is refused" };
                    return Err(format!("{about}: {} > {ip} {protocol} {wanted}: {outcome:?}", probe.name()));
                }
            }
        }
        Ok(())
    };
    eventually(SOON, look).await.map_err(|error| error.to_string())
}

fn on_host(cluster: &Cluster, name: &str, node: usize, port: u16) {
    let ports = ["TCP", "UDP"].map(|protocol| json!({ "containerPort": port, "protocol": protocol }));
    let pod = json!({
        "metadata": { "namespace": "x", "name": name, "labels": { "pod": name } },
        "spec": {
            "nodeName": format!("node-{node}"), "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "lab", "ports": ports }],
        },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_their_own_pods_and_others_by_block() {
    nodes_and_hosts(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_their_own_pods_and_others_by_block_with_nftables() {
    nodes_and_hosts(&[NFTABLES]).await;
}

async fn nodes_and_hosts(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member");
    let pod = find("x/a").addresses.clone();
    let inside = find("x/a").probe.clone().unwrap();
    on_host(&cluster, "host-1", 1, 8081);
    on_host(&cluster, "host-2", 2, 8082);
    stage.ready().await;
    let nodes =
        [1, 2, 3].map(|node| (cluster.node_probe(node).unwrap(), cluster.node(node).unwrap().addresses()));
    let outside = cluster.outside_probe();
    let mut wrong: Vec<String> = Vec::new();

    fence.pass().await;
    for (probe, addresses) in &nodes {
        wrong.extend(all("no policy", probe, &pod, 80, true).await.err());
        let _ = addresses;
    }
    wrong.extend(all("no policy", &outside, &pod, 80, true).await.err());
    wrong.extend(all("no policy", &inside, &nodes[0].1, 8081, true).await.err());
    wrong.extend(all("no policy", &inside, &nodes[1].1, 8082, true).await.err());

    // Peers by selector are pods; pods on the host are not.
    let everyone = json!([{ "namespaceSelector": {} }]);
    stage.policy(
        "x",
        "p",
        json!({
            "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": everyone }], "egress": [{ "to": everyone }],
        }),
    );
    fence.pass().await;
    wrong.extend(all("its own node", &nodes[0].0, &pod, 80, true).await.err());
    wrong.extend(all("another node", &nodes[1].0, &pod, 80, false).await.err());
    wrong.extend(all("outside", &outside, &pod, 80, false).await.err());
    wrong.extend(all("to its own node", &inside, &nodes[0].1, 8081, false).await.err());
    wrong.extend(all("to another node", &inside, &nodes[1].1, 8082, false).await.err());

    // Blocks are how nodes and the outside are named.
    let block = |addresses: &[IpAddr]| -> Vec<Value> {
        let host = |ip: &IpAddr| json!({ "ipBlock": { "cidr": ipnet::IpNet::from(*ip).to_string() } });
        addresses.iter().map(host).collect()
    };
    stage.policy("x", "p", json!({
        "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": block(&nodes[1].1) }, { "from": block(&cluster.outside().addresses()) }],
        "egress": [{ "to": block(&nodes[0].1), "ports": [{ "port": 8081 }, { "port": 8081, "protocol": "UDP" }] }],
    }));
    fence.pass().await;
    wrong.extend(all("its own node", &nodes[0].0, &pod, 80, true).await.err());
    wrong.extend(all("another node by block", &nodes[1].0, &pod, 80, true).await.err());
    wrong.extend(all("a third node", &nodes[2].0, &pod, 80, false).await.err());
    wrong.extend(all("outside by block", &outside, &pod, 80, true).await.err());
    wrong.extend(all("to its own node by block", &inside, &nodes[0].1, 8081, true).await.err());
    wrong.extend(all("to another node", &inside, &nodes[1].1, 8082, false).await.err());

    // A pod on the host is no target: the policy selects it and changes nothing.
    stage.policy("x", "host", json!({ "podSelector": { "matchLabels": { "pod": "host-2" } }, "policyTypes": ["Ingress", "Egress"] }));
    fence.pass().await;
    wrong.extend(all("a pod on the host", &outside, &nodes[1].1, 8082, true).await.err());
    wrong.extend(
        all("a pod on the host", &find("y/a").probe.clone().unwrap(), &nodes[1].1, 8082, true).await.err(),
    );

    // Ping is never refused, nor is what keeps addresses and paths alive.
    stage.policy("x", "p", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    fence.pass().await;
    for ip in &pod {
        let line = format!("ping -n -c 1 -W 60 {ip}");
        wrong.extend(cluster.on_node(3, &line).err().map(|error| error.to_string()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

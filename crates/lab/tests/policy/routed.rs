//! Network policy beside another CNI plugin than kube-router's bridge: `ptp`, by which every pod hangs on a link of its own and
//! all packets between pods are routed, those within a node, too.

use ipnet::IpNet;
use lab::cluster::Cluster;
use lab::node::{Families, Node};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::nodes::all;
use crate::service_flows::{pod, pod_ips, policy, ready};
use crate::stage::SOON;
use crate::tables::{NFTABLES, flags, logs};

const PORT: u16 = 8080;

/// Runtimes take the first file by its name.
fn configure(node: &Node) {
    let default = |range: &IpNet| if range.addr().is_ipv4() { json!("0.0.0.0/0") } else { json!("::/0") };
    let routes: Vec<Value> = node.pod_ranges().iter().map(|range| json!({ "dst": default(range) })).collect();
    let ranges: Vec<Value> = node.pod_ranges().iter().map(|range| json!([{ "subnet": range }])).collect();
    let ptp = json!({
        "type": "ptp", "ipMasq": false, "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
    });
    let list = json!({ "cniVersion": "0.3.1", "name": "other", "plugins": [ptp] }).to_string();
    let write = move || std::fs::write("/etc/cni/net.d/05-other.conflist", list);
    node.namespace().run(write).unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_where_every_pod_is_routed() {
    holds(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_where_every_pod_is_routed_with_nftables() {
    holds(&[NFTABLES]).await;
}

async fn holds(more: &[&str]) {
    let builder = Cluster::builder().nodes(2).families(Families::Dual);
    let mut cluster = builder.agent_flags(flags(Families::Dual, more)).start().await.unwrap();
    cluster.nodes().iter().for_each(|node| configure(node));
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    for (name, node) in [("one", 1), ("near", 1), ("far", 2)] {
        pod(&cluster, name, node);
    }
    ready(&cluster).await;
    let links = cluster.on_node(1, "ip -o link show type bridge").unwrap();
    assert_eq!(links, "", "pods are not on a bridge");
    let probe = |name: &str| cluster.pod_probe("default", name).unwrap();
    let (one, near, far) = (probe("one"), probe("near"), probe("far"));
    let [own, of_near, of_far] = ["one", "near", "far"].map(|name| pod_ips(&cluster, name));
    let mut fence = Fence::new(&cluster).await;
    let mut wrong = Vec::new();
    wrong.extend(all("no policy", &near, &own, PORT, true).await.err());
    wrong.extend(all("no policy", &far, &own, PORT, true).await.err());
    let selector = |name: &str| json!({ "matchLabels": { "pod": name } });
    // Whom the pod takes, and whom it may ask.
    let isolations = [
        (json!({ "policyTypes": ["Ingress"] }), [false, false], [true, true]),
        (json!({ "policyTypes": ["Egress"] }), [true, true], [false, false]),
        (
            json!({ "policyTypes": ["Ingress", "Egress"], "ingress": [{ "from": [{ "podSelector": selector("near") }] }],
                    "egress": [{ "to": [{ "podSelector": selector("far") }] }] }),
            [true, false],
            [false, true],
        ),
    ];
    for (mut spec, takes, asks) in isolations {
        let (from, to) = (format!("{spec}: to it"), format!("{spec}: from it"));
        spec["podSelector"] = selector("one");
        policy(&cluster, "isolated", spec);
        fence.pass().await;
        wrong.extend(all(&from, &near, &own, PORT, takes[0]).await.err());
        wrong.extend(all(&from, &far, &own, PORT, takes[1]).await.err());
        wrong.extend(all(&to, &one, &of_near, PORT, asks[0]).await.err());
        wrong.extend(all(&to, &one, &of_far, PORT, asks[1]).await.err());
        wrong.extend(
            all("the node reaches its pods", &cluster.node_probe(1).unwrap(), &own, PORT, true).await.err(),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

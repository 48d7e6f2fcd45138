//! A pod that reaches itself by an address that is translated to its own, as another service proxy than ours does it:
//! before routing, so that the packet is forwarded from the pod to the pod. No policy keeps a pod from itself. Through a
//! Service of ours it is `service_ways` that tells.

use std::net::IpAddr;

use lab::cluster::Cluster;
use lab::node::Families;
use serde_json::json;

use crate::fence::Fence;
use crate::nodes::all;
use crate::service_flows::{pod, pod_ips, policy, ready};
use crate::stage::SOON;
use crate::tables::{NFTABLES, flags, logs};

/// What is translated, IPv4 first, with the family in nft's words.
const TRANSLATED: [(&str, &str); 2] = [("ip", "203.0.113.1"), ("ip6", "fd03::1")];
const PORT: u16 = 8080;

/// The other proxy: to the pod, and masqueraded where it comes from the pod.
fn translate(cluster: &Cluster, pod: &[IpAddr]) {
    for ((family, from), to) in TRANSLATED.iter().zip(pod) {
        for line in [
            format!("add table {family} proxy"),
            format!("add chain {family} proxy before {{ type nat hook prerouting priority -100 ; }}"),
            format!("add chain {family} proxy after {{ type nat hook postrouting priority 100 ; }}"),
            format!("add rule {family} proxy before {family} daddr {from} dnat to {to}"),
            format!("add rule {family} proxy after {family} saddr {to} {family} daddr {to} masquerade"),
        ] {
            cluster.on_node(1, &format!("nft {line}")).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_keeps_a_pod_from_itself() {
    reaches_itself(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_keeps_a_pod_from_itself_with_nftables() {
    reaches_itself(&[NFTABLES]).await;
}

async fn reaches_itself(more: &[&str]) {
    let builder = Cluster::builder().nodes(2).families(Families::Dual).hairpin(true);
    let mut cluster = builder.agent_flags(flags(Families::Dual, more)).start().await.unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    for name in ["one", "other"] {
        pod(&cluster, name, 1);
    }
    ready(&cluster).await;
    let probe = |name: &str| cluster.pod_probe("default", name).unwrap();
    let (one, other) = (probe("one"), probe("other"));
    let (own, others) = (pod_ips(&cluster, "one"), pod_ips(&cluster, "other"));
    let translated = TRANSLATED.map(|(_, ip)| ip.parse::<IpAddr>().unwrap());
    translate(&cluster, &own);
    let mut fence = Fence::new(&cluster).await;
    let mut wrong = Vec::new();
    wrong.extend(all("no policy", &one, &translated, PORT, true).await.err());
    // Directions, whether it takes the other pod, and whether it may ask it.
    let isolations: [(&[&str], bool, bool); 3] =
        [(&["Ingress"], false, true), (&["Egress"], true, false), (&["Ingress", "Egress"], false, false)];
    for (types, takes, asks) in isolations {
        let selector = json!({ "matchLabels": { "pod": "one" } });
        policy(&cluster, "isolated", json!({ "podSelector": selector, "policyTypes": types }));
        fence.pass().await;
        let about = |what: &str| format!("isolated for {types:?}: {what}");
        wrong.extend(all(&about("by the other"), &other, &own, PORT, takes).await.err());
        wrong.extend(all(&about("to the other"), &one, &others, PORT, asks).await.err());
        wrong.extend(all(&about("to itself"), &one, &translated, PORT, true).await.err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

//! Policies that no API server of today would take, and some that it takes but nobody should write: each is told once, what
//! is wrong in it permits nothing, and everything else is enforced.

use lab::api_server::Resource;
use lab::control_plane::UNCHECKED;
use lab::node::Families;
use lab::policy::{Port, Truth};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{Stage, becomes, holds};
use crate::tables::{NFTABLES, cluster, logs};

/// Policies of namespace x on pods `a`, what should be told of them, and the pods that may still talk to x/a on port 80.
fn odd() -> Vec<(&'static str, Value, &'static str, &'static [&'static str])> {
    let b = json!({ "podSelector": { "matchLabels": { "pod": "b" } } });
    let from = |peer: Value| json!([{ "from": [peer, b] }]);
    let ports = |port: Value| json!([{ "from": [b], "ports": [port, { "port": 80, "protocol": "TCP" }] }]);
    let like = json!({ "matchExpressions": [{ "key": "pod", "operator": "Like", "values": ["a"] }] });
    vec![
        ("bad-cidr", from(json!({ "ipBlock": { "cidr": "10.0.0.0/99" } })), "ipBlock.cidr", &["x/b"]),
        (
            "bad-except",
            from(json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.244.0.0/99"] } })),
            "except[0]",
            &["x/b"],
        ),
        ("bad-operator", from(json!({ "namespaceSelector": like })), "namespaceSelector", &["x/b"]),
        ("no-peer", from(json!({})), "from[0]", &["x/b"]),
        (
            "two-peers",
            from(json!({ "podSelector": {}, "ipBlock": { "cidr": "0.0.0.0/0" } })),
            "from[0]",
            &["x/b"],
        ),
        ("bad-protocol", ports(json!({ "protocol": "ICMP" })), "protocol", &["x/b"]),
        ("bad-range", ports(json!({ "protocol": "TCP", "port": 90, "endPort": 80 })), "endPort", &["x/b"]),
        ("bad-rule", json!([17, { "from": [b] }]), "spec.ingress", &["x/b"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_policies_open_nothing_and_are_told_once() {
    odd_policies(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_policies_open_nothing_and_are_told_once_with_nftables() {
    odd_policies(&[NFTABLES]).await;
}

async fn odd_policies(more: &[&str]) {
    let cluster = cluster(Families::V4, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let ports: [Port; 1] = ["80/TCP".parse().unwrap()];
    // One that is fine, on another pod, stays in force all the time.
    stage.policy(
        "z",
        "fine",
        json!({ "podSelector": { "matchLabels": { "pod": "b" } }, "policyTypes": ["Ingress"] }),
    );
    let mut wrong = Vec::new();
    for (name, ingress, field, friends) in odd() {
        let spec = json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Ingress"], "ingress": ingress });
        let policy = json!({ "metadata": { "namespace": "x", "name": name, "annotations": { UNCHECKED: "" } }, "spec": spec });
        stage.api.create(Resource::NetworkPolicies, policy).unwrap();
        fence.pass().await;
        let members = stage.members();
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let expected = Truth::new(&members, &ports, |cell| match names[cell.to] {
            "x/a" => friends.contains(&names[cell.from]),
            "z/b" => false,
            _ => true,
        });
        wrong.extend(
            becomes(&members, &ports, &expected).await.err().map(|picture| format!("{name}: {picture}")),
        );
        // Told on the node of x/a, where it is enforced, with the field.
        let log = std::fs::read_to_string(cluster.agent_log(1).unwrap()).unwrap();
        let told =
            log.lines().filter(|line| line.contains(&format!("x/{name}")) && line.contains(field)).count();
        if told != 1 {
            wrong.push(format!("{name}: {field} is told {told} times on node-1"));
        }
        stage.api.delete(Resource::NetworkPolicies, Some("x"), name, None).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));

    // A policy whose own selector cannot be read isolates what it may mean.
    let like = json!({ "matchExpressions": [{ "key": "pod", "operator": "Like", "values": ["a"] }] });
    let spec = json!({ "podSelector": like, "policyTypes": ["Ingress"], "ingress": [{}] });
    let policy = json!({ "metadata": { "namespace": "y", "name": "whom", "annotations": { UNCHECKED: "" } }, "spec": spec });
    stage.api.create(Resource::NetworkPolicies, policy).unwrap();
    fence.pass().await;
    let members = stage.members();
    let expected = Truth::new(&members, &ports, |cell| {
        let to = members[cell.to].name.as_str();
        !to.starts_with("y/") && to != "z/b"
    });
    becomes(&members, &ports, &expected)
        .await
        .unwrap_or_else(|picture| panic!("{picture}\n{}", logs(&cluster)));
    stage.api.delete(Resource::NetworkPolicies, Some("y"), "whom", None).unwrap();

    // Ten thousand blocks in one rule, of which one is a pod.
    let y = members.iter().find(|member| member.name == "y/a").unwrap().addresses[0];
    let block = |number: u32| json!({ "ipBlock": { "cidr": format!("172.{}.{}.{}/32", 16 + number / 65536, number / 256 % 256, number % 256) } });
    let mut blocks: Vec<Value> = (0..10_000).map(|number| block(number * 2)).collect();
    blocks.push(json!({ "ipBlock": { "cidr": format!("{y}/32") } }));
    stage.policy(
        "x",
        "many",
        json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": [{ "from": blocks }] }),
    );
    fence.pass().await;
    holds("ten thousand peers", &stage.members(), &ports, &stage.objects()).await;
}

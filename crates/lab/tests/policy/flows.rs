//! Flows that exist when a policy changes: what it forbids is cut, what it allows goes on, and what it allows again flows
//! again. The servers send all the time: forgetting a flow would not do, their next packet would begin it anew in the
//! direction that is allowed.

use std::net::SocketAddr;

use lab::cluster::eventually;
use lab::node::Families;
use lab::probe::{Hearing, Probe, Protocol};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{SOON, Stage, flows, is_cut};
use crate::tables::{NFTABLES, cluster, logs};

/// One flow, and which pods it is between.
struct Flow {
    about: String,
    hearing: Hearing,
    protocol: Protocol,
}

async fn open(stage: &Stage<'_>, pairs: &[(&str, &str)]) -> Vec<Flow> {
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member").clone();
    let mut all = Vec::new();
    for (from, to) in pairs {
        let (from, to) = (find(from), find(to));
        let probe: Probe = from.probe.expect("a probe");
        for address in &to.addresses {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let about = format!("{} > {} {address} {protocol}", from.name, to.name);
                let hear = || async {
                    let opened = probe.hear(protocol, SocketAddr::new(*address, 80)).await;
                    opened.map_err(|failure| format!("{about}: {failure}"))
                };
                let hearing = eventually(SOON, hear).await.unwrap_or_else(|error| panic!("{error}"));
                all.push(Flow { about, hearing, protocol });
            }
        }
    }
    all
}

/// On one bridge, across nodes towards each side.
const PAIRS: [(&str, &str); 3] = [("x/b", "x/a"), ("y/a", "x/a"), ("x/b", "z/a")];
/// These are never forbidden.
const OTHERS: [(&str, &str); 2] = [("y/b", "z/a"), ("z/c", "x/c")];

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_cuts_what_it_forbids() {
    cuts_what_it_forbids(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_cuts_what_it_forbids_with_nftables() {
    cuts_what_it_forbids(&[NFTABLES]).await;
}

async fn cuts_what_it_forbids(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let nobody = json!([{ "podSelector": { "matchLabels": { "pod": "nobody" } } }]);
    let everyone = json!([{ "namespaceSelector": {} }]);
    let server = |from: &Value| json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": [{ "from": from }] });
    let client = |to: &Value| json!({ "podSelector": { "matchLabels": { "pod": "b" } }, "policyTypes": ["Egress"], "egress": [{ "to": to }] });
    stage.policy("x", "server", server(&everyone));
    stage.policy("x", "client", client(&everyone));
    fence.pass().await;

    let kept = open(&stage, &OTHERS).await;
    let forbidden = open(&stage, &PAIRS).await;
    // Ingress of x/a cuts the first two pairs, egress of x/b the last.
    stage.policy("x", "server", server(&nobody));
    stage.policy("x", "client", client(&nobody));
    let mut wrong = Vec::new();
    for flow in &forbidden {
        wrong.extend(is_cut(&flow.about, &flow.hearing).await.err());
    }
    for flow in &kept {
        assert!(!flow.hearing.is_over(), "{}", flow.about);
        wrong.extend(flows(&flow.about, &flow.hearing).await.err());
    }
    assert!(wrong.is_empty(), "forbidden: {wrong:#?}\n{}", logs(&cluster));

    stage.policy("x", "server", server(&everyone));
    stage.policy("x", "client", client(&everyone));
    fence.pass().await;
    // Datagrams flow again by themselves; a connection may have been reset or waits out its timer, but a new one opens.
    for flow in forbidden.iter().filter(|flow| flow.protocol == Protocol::Udp) {
        wrong.extend(flows(&flow.about, &flow.hearing).await.err());
    }
    assert!(wrong.is_empty(), "allowed again: {wrong:#?}\n{}", logs(&cluster));
    let anew = open(&stage, &PAIRS).await;

    // A policy that newly isolates, a label that takes a pod out of a peer set, and a policy that goes.
    stage.policy("x", "server", server(&json!([{ "podSelector": { "matchLabels": { "friend": "yes" } } }])));
    for flow in anew.iter().filter(|flow| flow.about.contains("> x/a")) {
        wrong.extend(is_cut(&flow.about, &flow.hearing).await.err());
    }
    for flow in anew.iter().filter(|flow| flow.about.contains("> z/a")) {
        wrong.extend(flows(&flow.about, &flow.hearing).await.err());
    }
    assert!(wrong.is_empty(), "a second time: {wrong:#?}\n{}", logs(&cluster));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_leaves_what_another_allows() {
    leaves_what_another_allows(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_leaves_what_another_allows_with_nftables() {
    leaves_what_another_allows(&[NFTABLES]).await;
}

/// Two policies of one pod: a flow that one of them allows goes on when the other stops to.
async fn leaves_what_another_allows(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let from = |peer: Value| json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": [{ "from": [peer] }] });
    stage.policy(
        "x",
        "by-pod",
        from(json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "pod": "b" } } })),
    );
    stage.policy("x", "by-namespace", from(json!({ "namespaceSelector": { "matchLabels": { "ns": "y" } } })));
    fence.pass().await;
    let all = open(&stage, &[("x/b", "x/a"), ("y/b", "x/a"), ("y/a", "x/a")]).await;
    let api = &stage.api;
    api.delete(lab::api_server::Resource::NetworkPolicies, Some("x"), "by-namespace", None).unwrap();
    let mut wrong = Vec::new();
    for flow in all.iter().filter(|flow| flow.about.starts_with("y/a")) {
        wrong.extend(is_cut(&flow.about, &flow.hearing).await.err());
    }
    for flow in all.iter().filter(|flow| !flow.about.starts_with("y/a")) {
        assert!(!flow.hearing.is_over(), "{}", flow.about);
        wrong.extend(flows(&flow.about, &flow.hearing).await.err());
    }
    // No policy, nothing forbidden: everything flows.
    api.delete(lab::api_server::Resource::NetworkPolicies, Some("x"), "by-pod", None).unwrap();
    fence.pass().await;
    for flow in all.iter().filter(|flow| flow.protocol == Protocol::Udp) {
        wrong.extend(flows(&flow.about, &flow.hearing).await.err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

//! Pods at the end of their lives: one that is terminating is judged, and counts as a peer, until it is gone or another pod
//! has its address; one whose programs have ended is nobody, and its address may be another pod's by then.

use lab::api_server::Resource;
use lab::node::{Families, Pod};
use lab::policy::Port;
use lab::probe::Probe;
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::nodes::all;
use crate::stage::{Stage, holds};
use crate::tables::{NFTABLES, cluster, logs};

/// Seconds; longer than the test.
const GRACE: i64 = 600;

fn labelled(key: &str, value: &str) -> Value {
    json!({ "matchLabels": { key: value } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_is_judged_until_it_is_gone() {
    terminating(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_is_judged_until_it_is_gone_with_nftables() {
    terminating(&[NFTABLES]).await;
}

async fn terminating(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let ports: [Port; 1] = ["80/TCP".parse().unwrap()];
    let takes = |pod: &str| json!({ "podSelector": labelled("pod", "a"), "ingress": [{ "from": [{ "podSelector": labelled("pod", pod) }] }] });
    stage.policy("x", "target", takes("b"));
    let peer = json!([{ "namespaceSelector": labelled("ns", "x"), "podSelector": labelled("pod", "a") }]);
    stage.policy("y", "peer", json!({ "podSelector": {}, "ingress": [{ "from": peer }] }));
    fence.pass().await;
    holds("while it runs", &stage.members(), &ports, &stage.objects()).await;

    stage.api.delete(Resource::Pods, Some("x"), "a", Some(GRACE)).unwrap();
    let pod = stage.api.get(Resource::Pods, Some("x"), "a").expect("it has its grace");
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    fence.pass().await;
    holds("while it terminates", &stage.members(), &ports, &stage.objects()).await;
    stage.policy("x", "target", takes("c"));
    fence.pass().await;
    holds("while it terminates, another policy", &stage.members(), &ports, &stage.objects()).await;
    // Its address is nobody's then, and those who remain are judged as before.
    stage.api.delete(Resource::Pods, Some("x"), "a", Some(0)).unwrap();
    fence.pass().await;
    holds("when it is gone", &stage.members(), &ports, &stage.objects()).await;
}

/// The object of a pod of node 1 that the test has wired itself.
fn show(stage: &Stage<'_>, name: &str, role: &str, pod: &Pod) {
    let metadata = json!({
        "namespace": "x", "name": name, "labels": { "role": role },
        "annotations": { lab::kubelet::HANDS_OFF: "" },
    });
    let spec = json!({
        "nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }],
    });
    stage.api.create(Resource::Pods, json!({ "metadata": metadata, "spec": spec })).unwrap();
    let ips: Vec<Value> = pod.addresses().iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    let status = json!({ "phase": "Running", "podIPs": ips, "podIP": ips[0]["ip"] });
    stage.api.patch_status(Resource::Pods, Some("x"), name, &status).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_pod_that_has_ended_is_the_next_pods() {
    ended(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_pod_that_has_ended_is_the_next_pods_with_nftables() {
    ended(&[NFTABLES]).await;
}

async fn ended(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let client = json!([{ "podSelector": labelled("role", "client") }]);
    stage.policy(
        "x",
        "server",
        json!({ "podSelector": labelled("pod", "a"), "ingress": [{ "from": client }] }),
    );
    let server = json!([{ "podSelector": labelled("pod", "a") }]);
    let clients = json!({ "podSelector": labelled("role", "client"), "policyTypes": ["Egress"], "egress": [{ "to": server }] });
    stage.policy("x", "clients", clients);
    let node = cluster.node(1).unwrap().clone();
    let pod = tokio::task::spawn_blocking(move || Pod::new(&node, "x.job")).await.unwrap().unwrap();
    let probe = Probe::new("job", pod.namespace());
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).unwrap().addresses.clone();
    let (server, another) = (find("x/a"), find("z/b"));

    let mut wrong = Vec::new();
    let mut is_client = async |about: &str, client: bool| {
        fence.pass().await;
        wrong.extend(all(about, &probe, &server, 80, client).await.err());
        wrong.extend(all(about, &probe, &another, 80, !client).await.err());
    };
    show(&stage, "job", "client", &pod);
    is_client("it runs", true).await;
    let succeeded = json!({ "phase": "Succeeded" });
    stage.api.patch_status(Resource::Pods, Some("x"), "job", &succeeded).unwrap();
    is_client("it has ended", false).await;
    show(&stage, "next", "other", &pod);
    is_client("its address is another pod's", false).await;
    let client = json!({ "metadata": { "labels": { "role": "client" } } });
    stage.api.patch(Resource::Pods, Some("x"), "next", &client).unwrap();
    is_client("the other is a client, too", true).await;
    stage.api.delete(Resource::Pods, Some("x"), "job", None).unwrap();
    is_client("the ended one is deleted", true).await;
    stage.api.delete(Resource::Pods, Some("x"), "next", Some(GRACE)).unwrap();
    is_client("the other is being deleted", true).await;
    show(&stage, "heir", "other", &pod);
    is_client("its address is a third pod's while it is shown", false).await;
    stage.api.delete(Resource::Pods, Some("x"), "heir", None).unwrap();
    is_client("the third is gone first", true).await;
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

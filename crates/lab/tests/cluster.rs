//! A whole cluster but for IPVS: pods follow their objects. Judged by packets and by kubectl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Failure, ONCE, Probe, Protocol};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);

fn pod(name: &str, node: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 10,
            "containers": [{ "name": "c", "image": "lab", "ports": [
                { "containerPort": 80 }, { "containerPort": 53, "protocol": "UDP" },
            ] }],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn seen(cluster: &Cluster, name: &str) -> Value {
    cluster.api().get(Resource::Pods, Some("default"), name).map_or(Value::Null, |pod| (*pod).clone())
}

fn ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

async fn until_ready(cluster: &Cluster, name: &str, wanted: bool) -> Value {
    let look = || async {
        let pod = seen(cluster, name);
        if ready(&pod) == wanted && !pod.is_null() {
            Ok(pod)
        } else {
            Err(format!("{name} ready={wanted}: {pod}"))
        }
    };
    eventually(SOON, look).await.unwrap()
}

fn address(pod: &Value, family: usize) -> IpAddr {
    pod["status"]["podIPs"][family]["ip"].as_str().unwrap().parse().unwrap()
}

async fn who(probe: &Probe, protocol: Protocol, to: IpAddr, port: u16) -> Result<String, Failure> {
    probe.ask(protocol, SocketAddr::new(to, port)).await.map(|answer| answer.by)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_live_and_die_by_their_objects() {
    let cluster = Cluster::builder().nodes(2).dual_stack().start().await.unwrap();
    let api = cluster.api();
    api.create(Resource::Pods, pod("web-1", "node-1", json!({}))).unwrap();
    api.create(Resource::Pods, pod("web-2", "node-2", json!({}))).unwrap();
    api.create(Resource::Pods, pod("host", "node-2", json!({ "hostNetwork": true }))).unwrap();
    let (one, two) = (until_ready(&cluster, "web-1", true).await, until_ready(&cluster, "web-2", true).await);
    let host = until_ready(&cluster, "host", true).await;
    assert_eq!(address(&host, 0), cluster.node(2).unwrap().addresses()[0]);

    // The addresses in the status answer, across nodes, in both families and protocols.
    let probe = cluster.pod_probe("default", "web-1").expect("it runs").patience(ONCE);
    for family in [0, 1] {
        assert_eq!(who(&probe, Protocol::Tcp, address(&two, family), 80).await, Ok("web-2".into()));
        assert_eq!(who(&probe, Protocol::Udp, address(&two, family), 53).await, Ok("web-2".into()));
        assert_eq!(who(&probe, Protocol::Tcp, address(&host, family), 80).await, Ok("host".into()));
    }
    let node = cluster.node_probe(2).unwrap();
    assert_eq!(who(&node, Protocol::Tcp, address(&one, 0), 80).await, Ok("web-1".into()));

    // An annotation takes readiness away and gives it back.
    let annotate = |value: &str| json!({ "metadata": { "annotations": { "lab/ready": value } } });
    api.patch(Resource::Pods, Some("default"), "web-2", &annotate("false")).unwrap();
    until_ready(&cluster, "web-2", false).await;
    api.patch(Resource::Pods, Some("default"), "web-2", &annotate("true")).unwrap();
    until_ready(&cluster, "web-2", true).await;

    // A deleted pod serves through its grace period, then it and its address are gone.
    api.delete(Resource::Pods, Some("default"), "web-2", None).unwrap();
    assert!(seen(&cluster, "web-2")["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(who(&probe, Protocol::Tcp, address(&two, 0), 80).await, Ok("web-2".into()));
    let gone = || async {
        if seen(&cluster, "web-2").is_null() { Ok(()) } else { Err("web-2 is still there".to_owned()) }
    };
    eventually(SOON, gone).await.unwrap();
    assert!(who(&probe, Protocol::Tcp, address(&two, 0), 80).await.is_err());
    assert!(cluster.pod_probe("default", "web-2").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_recreated_under_its_name_lives() {
    let cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let api = cluster.api();
    api.create(Resource::Pods, pod("web", "node-1", json!({}))).unwrap();
    let first = until_ready(&cluster, "web", true).await;
    api.delete(Resource::Pods, Some("default"), "web", Some(0)).unwrap();
    api.create(Resource::Pods, pod("web", "node-1", json!({}))).unwrap();
    let second = until_ready(&cluster, "web", true).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let node = cluster.node_probe(1).unwrap().patience(Duration::from_millis(700));
    let answers = || async {
        let by = who(&node, Protocol::Tcp, address(&second, 0), 80).await;
        if by == Ok("web".into()) { Ok(()) } else { Err(format!("{by:?}")) }
    };
    eventually(SOON, answers).await.unwrap();
    assert!(cluster.pod_probe("default", "web").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sees_the_cluster() {
    let cluster = Cluster::builder().nodes(2).start().await.unwrap();
    let kubectl = |line: &'static str| cluster.kubectl(line.split(' ')).unwrap();
    let nodes = kubectl("get nodes -o json");
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let ranges: Vec<&Value> =
        nodes["items"].as_array().unwrap().iter().map(|node| &node["spec"]["podCIDR"]).collect();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24"]);
    assert_eq!(nodes["items"][1]["status"]["addresses"][0]["address"], "172.31.0.12");
}

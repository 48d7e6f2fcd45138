//! The controllers together, through the in-process client: from a manifest to endpoints, and what a change costs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, too"
)]

use std::time::{Duration, Instant};

use lab::api_server::{ApiServer, Config, Handle, Resource};
use lab::control_plane;
use serde_json::{Value, json};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(60);

async fn start(control_plane: Option<control_plane::Config>) -> (ApiServer, Handle) {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let server = ApiServer::start(Config { listen, control_plane, ..Config::default() }).await.unwrap();
    let handle = server.handle();
    (server, handle)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(BOUND, poll).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

fn node(handle: &Handle, name: &str) {
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    handle.create(Resource::Nodes, json!({"metadata": {"name": name}, "status": status})).unwrap();
}

fn deployment(name: &str, replicas: usize, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": image}]}}}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

/// Plays the kubelet: every scheduled pod runs with an address; every deleted one goes.
fn kubelet(handle: &Handle) -> tokio::task::JoinHandle<()> {
    let handle = handle.clone();
    let (present, mut events) = handle.watch(Resource::Pods);
    assert!(present.is_empty());
    tokio::spawn(async move {
        let mut next = 0_u32;
        while let Some(event) = events.recv().await {
            let pod = &event.object;
            let name = pod["metadata"]["name"].as_str().unwrap();
            let Some(pod) = handle.get(Resource::Pods, None, name) else { continue };
            if pod["metadata"].get("deletionTimestamp").is_some() {
                let _ = handle.delete(Resource::Pods, None, name, Some(0));
            } else if pod["spec"].get("nodeName").is_some() && pod["status"]["phase"] == "Pending" {
                next += 1;
                let ip = std::net::Ipv4Addr::from(0x0af4_0000 + next);
                let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                                    "conditions": [{"type": "Ready", "status": "True"}]});
                let _ = handle.patch_status(Resource::Pods, None, name, &status);
            }
        }
    })
}

fn ready(handle: &Handle) -> usize {
    let slices = handle.list(Resource::EndpointSlices, None);
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_endpoints_on_every_node_and_follows_its_template() {
    let (_server, handle) = start(Some(control_plane::Config::default())).await;
    let kubelet = kubelet(&handle);
    for name in ["a", "b", "c"] {
        node(&handle, name);
    }
    handle.apply(service("web")).unwrap();
    handle.apply(deployment("web", 6, "v1")).unwrap();
    until("six endpoints", || ready(&handle) == 6).await;
    for name in ["a", "b", "c"] {
        let pods = handle.list(Resource::Pods, None);
        assert_eq!(pods.iter().filter(|pod| pod["spec"]["nodeName"] == name).count(), 2, "spread over nodes");
    }
    handle.apply(deployment("web", 6, "v2")).unwrap();
    until("the new template everywhere", || {
        let pods = handle.list(Resource::Pods, None);
        pods.len() == 6 && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "v2")
    })
    .await;
    until("six endpoints again", || ready(&handle) == 6).await;
    until("the status", || {
        let status = handle.get(Resource::Deployments, None, "web").unwrap()["status"].clone();
        (&status["readyReplicas"], &status["updatedReplicas"], &status["replicas"])
            == (&json!(6), &json!(6), &json!(6))
    })
    .await;
    handle.apply(deployment("web", 1, "v2")).unwrap();
    until("one endpoint", || ready(&handle) == 1 && handle.list(Resource::Pods, None).len() == 1).await;
    handle.delete(Resource::Nodes, None, "a", None).unwrap();
    handle.delete(Resource::Services, None, "web", None).unwrap();
    until("no slices", || handle.list(Resource::EndpointSlices, None).is_empty()).await;
    until("no endpoints", || handle.list(Resource::Endpoints, None).is_empty()).await;
    handle.delete(Resource::Deployments, None, "web", None).unwrap();
    until("no pods", || handle.list(Resource::Pods, None).is_empty()).await;
    kubelet.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_a_node_and_daemon_sets_follow_nodes() {
    let (_server, handle) = start(Some(control_plane::Config::default())).await;
    let mut set = deployment("agent", 0, "v1");
    set["kind"] = json!("DaemonSet");
    handle.apply(set).unwrap();
    handle.create(Resource::Pods, json!({"metadata": {"name": "bare"}, "spec": {}})).unwrap();
    tokio::task::yield_now().await;
    assert!(handle.get(Resource::Pods, None, "bare").unwrap()["spec"].get("nodeName").is_none());
    node(&handle, "a");
    node(&handle, "b");
    until("a pod on each node and the bare one", || {
        let pods = handle.list(Resource::Pods, None);
        pods.len() == 3 && pods.iter().all(|pod| pod["spec"].get("nodeName").is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_get_what_they_ask_for_or_one_of_the_range() {
    let plan = control_plane::Config {
        load_balancer_cidrs: vec!["192.0.2.0/28".parse().unwrap()],
        ..control_plane::Config::default()
    };
    let (_server, handle) = start(Some(plan)).await;
    for (name, spec) in [
        ("asked", json!({"type": "LoadBalancer", "loadBalancerIP": "203.0.113.9", "ports": [{"port": 80}]})),
        ("open", json!({"type": "LoadBalancer", "ports": [{"port": 80}]})),
    ] {
        handle.create(Resource::Services, json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    }
    let ip = |name: &str| {
        let service = handle.get(Resource::Services, None, name).unwrap();
        service["status"]["loadBalancer"]["ingress"][0]["ip"].clone()
    };
    until("both addresses", || ip("asked") == "203.0.113.9" && ip("open") == "192.0.2.1").await;
    handle.patch(Resource::Services, None, "open", &json!({"spec": {"type": "ClusterIP"}})).unwrap();
    until("the address to go", || ip("open").is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_services_without_selector_are_left_alone_and_spoilt_ones_mended() {
    let (_server, handle) = start(Some(control_plane::Config::default())).await;
    let own = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "ext-1", "labels": {"kubernetes.io/service-name": "ext"}},
        "ports": [{"port": 80}], "endpoints": [{"addresses": ["192.0.2.7"]}]});
    handle
        .create(Resource::Services, json!({"metadata": {"name": "ext"}, "spec": {"ports": [{"port": 80}]}}))
        .unwrap();
    handle.apply(own).unwrap();
    handle.apply(service("web")).unwrap();
    let of = |service: &'static str| {
        let slices = handle.list(Resource::EndpointSlices, None);
        let named = slices
            .into_iter()
            .filter(move |s| s["metadata"]["labels"]["kubernetes.io/service-name"] == service);
        named.collect::<Vec<_>>()
    };
    until("the placeholder slice", || of("web").len() == 1).await;
    let name = of("web")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    handle.delete(Resource::EndpointSlices, None, &name, None).unwrap();
    until("the slice to be back", || of("web").len() == 1).await;
    assert_eq!(of("ext").len(), 1);
    assert_eq!(of("ext")[0]["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
}

/// 10,000 services and as many slices of ten endpoints: load, then what one change costs against a small cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_cluster_costs_what_changes() {
    let (_server, handle) = start(Some(control_plane::Config::default())).await;
    let slice = |index: usize| {
        let endpoints: Vec<_> = (0..10)
            .map(|at| {
                json!({"addresses": [format!("10.{}.{}.{at}", index / 250, index % 250)], "nodeName": "n",
                             "conditions": {"ready": true, "serving": true, "terminating": false}})
            })
            .collect();
        json!({"metadata": {"name": format!("s{index}-x"), "labels": {"kubernetes.io/service-name": format!("s{index}")}},
               "addressType": "IPv4", "ports": [{"port": 80, "protocol": "TCP", "name": ""}], "endpoints": endpoints})
    };
    let cost = |range: std::ops::Range<usize>| {
        let begin = Instant::now();
        for index in range {
            let spec = json!({"ports": [{"port": 80}]});
            handle
                .create(Resource::Services, json!({"metadata": {"name": format!("s{index}")}, "spec": spec}))
                .unwrap();
            handle.create(Resource::EndpointSlices, slice(index)).unwrap();
        }
        begin.elapsed()
    };
    // The quickest of ten parts: other work may keep the processor from any one of them.
    let quickest = |of: std::ops::Range<usize>| of.map(|part| cost(part * 100..(part + 1) * 100)).min();
    let first = quickest(0..10).expect("ten parts");
    let middle = quickest(10..90).expect("eighty parts");
    let last = quickest(90..100).expect("ten parts");
    let begin = Instant::now();
    assert_eq!(handle.list(Resource::EndpointSlices, None).len(), 10_000);
    let listed = begin.elapsed();
    println!("a hundred of the first: {first:?}, then {middle:?}, of the last: {last:?}; list {listed:?}");
    assert!(
        last < first * 4 + Duration::from_millis(20),
        "a write costs what exists: {first:?}, then {last:?}"
    );
}

//! What a pod on another node costs in resident memory where network policy runs, measured: read from JSON, converted,
//! kept in the store and in the index of the policies. Alone in its process, with the allocator of the agent.

#![allow(clippy::expect_used)] // a test, though not only in functions marked so

mod memory;

use kube_router::kube::convert::Wire;
use kube_router::kube::interner::Interner;
use kube_router::kube::model::Kind;
use kube_router::kube::model::WatchEvent;
use kube_router::kube::wire;
use kube_router::network_policy::{Index, Touched};
use kube_router::store::Store;
use memory::resident;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PODS: usize = 100_000;
const APPS: usize = 1000;
const NODES: usize = 2000;
/// Bytes a pod may cost: the store's and the index's share of what a large cluster may cost in all; about 515 are measured.
const BUDGET: usize = 640;

fn pod(number: usize) -> String {
    let app = number % APPS;
    format!(
        r#"{{"metadata": {{"namespace": "ns-{}", "name": "deployment-{app}-7d4b9c6f5d-{number:05}", "labels":
              {{"app": "app-{app}", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"}}}},
            "spec": {{"nodeName": "node-{}.example.internal", "containers":
              [{{"ports": [{{"name": "http", "containerPort": 8080}}, {{"name": "metrics", "containerPort": 9090}}]}}]}},
            "status": {{"phase": "Running", "podIPs": [{{"ip": "10.{}.{}.{}"}}]}}}}"#,
        app % 10,
        number % NODES,
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    )
}

#[test]
fn a_pod_elsewhere_costs_less_than_its_budget() {
    let (mut store, mut names) = (Store::new("node-1".into()), Interner::default());
    let mut index = Index::new("node-1".into(), true, false);
    store.apply(WatchEvent::ListBegins(Kind::Pod));
    let before = resident();
    for number in 0..PODS {
        let pod: wire::Pod = serde_json::from_str(&pod(number)).expect("readable");
        store.apply(pod.convert(&mut names).into_event());
    }
    store.apply(WatchEvent::ListEnds(Kind::Pod));
    let stored = (resident() - before) / PODS;
    for pod in store.pods() {
        index.pod_changed(&pod.id, Some(pod), &mut Touched::default());
    }
    let each = (resident() - before) / PODS;
    println!("{each} B for a pod, {stored} B of them in the store");
    assert!(each <= BUDGET, "{each} B");
    assert!(each >= size_of::<kube_router::kube::model::Pod>(), "{each} B cannot be: they are not all kept");
    drop((store, index));
}

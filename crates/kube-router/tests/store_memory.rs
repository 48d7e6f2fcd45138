//! What an endpoint costs in resident memory, measured: read from JSON, converted, kept. Alone in its process, with
//! the allocator of the agent.

#![allow(clippy::expect_used)] // a test, though not only in functions marked so

mod memory;

use kube_router::kube::convert::Wire;
use kube_router::kube::interner::Interner;
use kube_router::kube::model::{Kind, WatchEvent};
use kube_router::kube::wire;
use kube_router::store::Store;
use memory::resident;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICES: usize = 1000;
const ENDPOINTS: usize = 100;
const NODES: usize = 2000;
/// Bytes an endpoint may cost.
const BUDGET: usize = 512;

fn slice(number: usize) -> String {
    let endpoints: Vec<String> = (0..ENDPOINTS)
        .map(|index| {
            let at = number * ENDPOINTS + index;
            format!(
                r#"{{"addresses": ["10.{}.{}.{}"], "conditions": {{"ready": true, "serving": true, "terminating": false}},
                    "nodeName": "node-{}.example.internal", "zone": "zone-{}",
                    "targetRef": {{"kind": "Pod", "namespace": "shop", "name": "deployment-{number}-7d4b9c6f5d-{at:05}",
                                   "uid": "0b5c9e6a-1b1f-4c1e-9f0e-000000000000"}}}}"#,
                at >> 16 & 255,
                at >> 8 & 255,
                1 + at % 254,
                at % NODES,
                at % 3
            )
        })
        .collect();
    format!(
        r#"{{"metadata": {{"namespace": "shop", "name": "service-{number}-abcde", "resourceVersion": "{number}",
            "labels": {{"kubernetes.io/service-name": "service-{number}"}}}}, "addressType": "IPv4",
            "ports": [{{"name": "http", "port": 8080, "protocol": "TCP"}}], "endpoints": [{}]}}"#,
        endpoints.join(",")
    )
}

#[test]
fn an_endpoint_costs_less_than_its_budget() {
    let (mut store, mut names) = (Store::new("node-1".into()), Interner::default());
    store.apply(WatchEvent::ListBegins(Kind::EndpointSlice));
    let before = resident();
    for number in 0..SLICES {
        let slice: wire::EndpointSlice = serde_json::from_str(&slice(number)).expect("readable");
        store.apply(slice.convert(&mut names).into_event());
    }
    store.apply(WatchEvent::ListEnds(Kind::EndpointSlice));
    let each = (resident() - before) / (SLICES * ENDPOINTS);
    println!("{each} B for an endpoint");
    assert!(each <= BUDGET, "{each} B");
    assert!(
        each >= size_of::<kube_router::kube::model::Endpoint>(),
        "{each} B cannot be: they are not all kept"
    );
    drop(store);
}

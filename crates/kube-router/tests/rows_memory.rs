//! What a large cluster costs in bytes, from the API server's JSON to rows in the kernel: the store, the plans and the
//! reconciler, with a kernel that takes everything. Counted by the allocator, so the numbers are the same on every
//! machine. Alone in its process.

#![allow(clippy::expect_used)] // a test, though not only in functions marked so

mod memory;

use std::time::Instant;

use cap::Cap;
use kube_router::core::{Controller, Inputs};
use kube_router::kube::convert::Wire;
use kube_router::kube::interner::Interner;
use kube_router::kube::model::{Kind, WatchEvent};
use kube_router::kube::wire;
use kube_router::network_services::NetworkServices;
use kube_router::node::{Facts, ThisNode};
use kube_router::options::Options;
use kube_router::owner::Owner;
use kube_router::store::Store;
use linux::lane::Job;
use linux::reconciler::Reconciler;
use linux::row::{LaneName, Table};
use memory::resident;
use serde::de::DeserializeOwned;

#[global_allocator]
static ALLOCATOR: Cap<mimalloc::MiMalloc> = Cap::new(mimalloc::MiMalloc, usize::MAX);

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
/// Most that may be allocated when everything is in the kernel and nothing is left to do.
const AT_REST: usize = 60 << 20;
/// Most that may be allocated at any time until then.
const PEAK: usize = 85 << 20;

struct Cluster {
    names: Interner,
    store: Store,
    node: ThisNode,
    options: Options,
    services: NetworkServices,
    reconciler: Reconciler<Owner>,
}

#[test]
fn ten_thousand_services_of_ten_endpoints_fit() {
    let empty = ALLOCATOR.allocated();
    let say = |what: &str| {
        let (now, most) = (ALLOCATOR.allocated() - empty, ALLOCATOR.max_allocated() - empty);
        println!(
            "{what}: {} KiB, at most {} KiB so far; resident {} KiB",
            now >> 10,
            most >> 10,
            resident() >> 10
        );
        (now, most)
    };
    let mut cluster = Cluster::new();
    cluster.list();
    say("every list taken in");
    cluster.plan();
    say("planned");
    cluster.program();
    let (now, most) = say("programmed");
    let rows = |table| cluster.reconciler.counts().find(|(of, _)| *of == table).expect("a table").1.actual;
    assert_eq!(rows(Table::RealServers), SERVICES * ENDPOINTS);
    assert_eq!(rows(Table::Addresses), SERVICES);

    assert!(now <= AT_REST, "{} MiB at rest", now >> 20);
    assert!(most <= PEAK, "{} MiB at most", most >> 20);
    drop(cluster);
    let left = ALLOCATOR.allocated() - empty;
    assert!(left < 1 << 20, "{} KiB were counted that are not the cluster's", left >> 10);
}

impl Cluster {
    fn new() -> Cluster {
        let options = Options::from_flags(&["--run-firewall=false"]).expect("flags");
        let facts = Facts {
            addresses: vec![("eth0".into(), "172.31.0.11/24".parse().expect("a net"))],
            ..Facts::default()
        };
        Cluster {
            names: Interner::default(),
            store: Store::new("node-1".into()),
            node: ThisNode { name: "node-1".into(), object: None, facts },
            options,
            services: NetworkServices::default(),
            reconciler: Reconciler::new(),
        }
    }

    /// Complete lists of every kind, one object at a time, as a watch reads them.
    fn list(&mut self) {
        for kind in Kind::ALL {
            self.store.apply(WatchEvent::ListBegins(kind));
        }
        self.take::<wire::Node>(
            r#"{"metadata": {"name": "node-1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]},
                "status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.11"}]}}"#,
        );
        for number in 0..SERVICES {
            self.take::<wire::Service>(&service(number));
            self.take::<wire::EndpointSlice>(&slice(number));
        }
        for kind in Kind::ALL {
            self.store.apply(WatchEvent::ListEnds(kind));
        }
        self.node.object = self.store.own_node().cloned();
    }

    fn take<W: DeserializeOwned + Wire>(&mut self, json: &str) {
        let object: W = serde_json::from_str(json).expect("readable");
        self.store.apply(object.convert(&mut self.names).into_event());
    }

    fn plan(&mut self) {
        for lane in LaneName::ALL {
            self.reconciler.next_job(lane, Instant::now());
            self.reconciler.was_read(lane, Vec::new(), |_, _| true);
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        self.services.begin(inputs);
        loop {
            let planned = self.services.plan(inputs, Instant::now(), &|_| Vec::new());
            if planned.is_empty() {
                break;
            }
            for (owner, claims) in planned {
                self.reconciler.set(&owner, claims);
            }
        }
        assert!(self.services.take_found().iter().all(|(_, objections)| objections.is_empty()));
        self.reconciler.allow_removals(self.services.gates());
    }

    /// Until nothing is left to do, with a kernel that takes everything.
    fn program(&mut self) {
        let now = Instant::now();
        while !self.reconciler.is_settled() {
            for lane in LaneName::ALL {
                let Some(Job::Apply(stages)) = self.reconciler.next_job(lane, now) else { continue };
                let outcomes = stages.into_iter().flatten().map(|change| (change.key, Ok(()))).collect();
                self.reconciler.applied(lane, outcomes, now);
            }
        }
    }
}

fn service(number: usize) -> String {
    let ip = format!("10.96.{}.{}", number >> 8 & 255, number & 255);
    format!(
        r#"{{"metadata": {{"name": "service-{number:05}", "namespace": "default", "resourceVersion": "{number}",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {{"app.kubernetes.io/name": "service-{number:05}"}}}},
            "spec": {{"type": "ClusterIP", "clusterIP": "{ip}", "clusterIPs": ["{ip}"], "sessionAffinity": "None",
            "ports": [{{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}}]}}}}"#
    )
}

fn slice(number: usize) -> String {
    let endpoints: Vec<String> = (0..ENDPOINTS)
        .map(|index| {
            let at = number * ENDPOINTS + index;
            format!(
                r#"{{"addresses": ["10.{}.{}.{}"], "conditions": {{"ready": true, "serving": true, "terminating": false}},
                    "nodeName": "node-2", "targetRef": {{"kind": "Pod", "namespace": "default", "name": "service-{number:05}-{index}"}}}}"#,
                128 + (at >> 16), at >> 8 & 255, at & 255
            )
        })
        .collect();
    format!(
        r#"{{"metadata": {{"namespace": "default", "name": "service-{number:05}-x7k2p", "resourceVersion": "{number}",
            "labels": {{"kubernetes.io/service-name": "service-{number:05}"}}}}, "addressType": "IPv4",
            "ports": [{{"name": "http", "port": 8080, "protocol": "TCP"}}], "endpoints": [{}]}}"#,
        endpoints.join(",")
    )
}

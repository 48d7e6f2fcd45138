//! Packets to services through a router above the nodes: agents with service proxy and pod routing together. Needs a
//! kernel with IPVS.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Protocol, matrix};
use lab::router::{Router, Software};
use serde_json::json;

use crate::above::{TELL, above, spreads, web};
use crate::setup::{LATEST, PATIENCE, everyone_reaches_everyone, ip, learned, metric, metrics, pod, until};

/// Who answers at an address, asked from outside through the router above, until `wanted` have and nobody else.
async fn answered(cluster: &Cluster, router: &Router, vip: &IpNet, wanted: &[&str]) {
    let hop = router.addresses().into_iter().find(|hop| hop.is_ipv4() == vip.addr().is_ipv4()).unwrap();
    cluster.outside().namespace().ip(&format!("route replace {vip} via {hop}\n")).unwrap();
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let probe = cluster.outside_probe().patience(LATEST);
    let cells = vec![(probe, Protocol::Tcp, SocketAddr::new(vip.addr(), 80)); 40];
    let look = || async {
        let outcomes = matrix(&cells).await;
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        let by: BTreeSet<String> = outcomes.iter().flatten().map(|answer| answer.by.clone()).collect();
        if failed.is_empty() && by == wanted { Ok(()) } else { Err(format!("{vip}: {by:?}, {failed:?}")) }
    };
    eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
}

fn annotate_service(cluster: &Cluster, patch: serde_json::Value) {
    let services = lab::api_server::Resource::Services;
    cluster.api().patch(services, Some("default"), "web", &patch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn a_router_above_balances_over_the_nodes() {
    let flags = ["--run-router=true", "--run-firewall=false", "--enable-ipv6=true", "--metrics-port=20241"];
    let flags = flags.into_iter().chain(TELL).map(str::to_owned);
    let builder = Cluster::builder().nodes(3).dual_stack().route_pods(false);
    let mut cluster = builder.agent_flags(flags).start().await.unwrap();
    (1..=3).for_each(|index| pod(&cluster, index));
    cluster.agents_ready(3 * PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    let (cluster_ips, balancer) = web(&cluster).await;
    let router = above(&cluster, 1, Software::Frr);
    everyone_reaches_everyone("with the service proxy", &cluster, &[1, 2, 3]).await;
    for vip in cluster_ips.iter().chain(&balancer) {
        spreads(&cluster, &router, vip, &[1, 2, 3]).await;
        answered(&cluster, &router, vip, &["pod-1", "pod-2", "pod-3"]).await;
    }
    only_what_is_programmed_is_told(&cluster, &router).await;
    // Local: only nodes with a pod of the service are told of and asked.
    annotate_service(&cluster, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    cluster.api().delete(lab::api_server::Resource::Pods, Some("default"), "pod-3", Some(0)).unwrap();
    for vip in &balancer {
        spreads(&cluster, &router, vip, &[1, 2]).await;
        answered(&cluster, &router, vip, &["pod-1", "pod-2"]).await;
    }
    ranges_end_on_the_nodes(&mut cluster, &router).await;
}

/// A service the kernel does not take attracts nobody: its scheduler is a module that cannot be loaded at first.
async fn only_what_is_programmed_is_told(cluster: &Cluster, router: &Router) {
    const LOADER: &str = "/proc/sys/kernel/modprobe";
    let loader = std::fs::read_to_string(LOADER).unwrap();
    // Loaded by an earlier test, or not.
    let _ = lab::process::run(lab::process::command("modprobe").args(["-r", "ip_vs_sed"]));
    std::fs::write(LOADER, "/bin/false").unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "late", "namespace": "default",
            "annotations": { "kube-router.io/service.scheduler": "sed" },
        },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let service = cluster.api().create(lab::api_server::Resource::Services, service).unwrap();
    let vip: IpNet = format!("{}/32", service["spec"]["clusterIP"].as_str().unwrap()).parse().unwrap();
    until("the kernel's refusal", || {
        let text = metrics(cluster, 1);
        match metric(&text, "kube_router_rows_refused", &[]) {
            refused if refused > 0.0 => Ok(()),
            _ => Err(text),
        }
    })
    .await;
    spreads(cluster, router, &vip, &[]).await;
    std::fs::write(LOADER, loader.trim()).unwrap();
    spreads(cluster, router, &vip, &[1, 2, 3]).await;
    answered(cluster, router, &vip, &["pod-1", "pod-2", "pod-3"]).await;
    cluster.api().delete(lab::api_server::Resource::Services, Some("default"), "late", None).unwrap();
    spreads(cluster, router, &vip, &[]).await;
}

/// With ranges in place of addresses, what no service has is answered by the nodes, not sent round in circles.
async fn ranges_end_on_the_nodes(cluster: &mut Cluster, router: &Router) {
    let flags = ["--run-router=true", "--run-firewall=false", "--enable-ipv6=true", "--metrics-port=20241"];
    let flags: Vec<&str> = flags.into_iter().chain(TELL).chain(["--advertise-aggregate=true"]).collect();
    for node in 1..=3 {
        assert_eq!(cluster.take_agent(node).unwrap().stop(PATIENCE), Some(0));
        cluster.set_agent_flags(node, flags.clone()).unwrap();
        cluster.start_agent(node).unwrap();
    }
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    for range in ["10.96.0.0/16", "fd96::/112"] {
        let range: IpNet = range.parse().unwrap();
        spreads(cluster, router, &range, &[1, 2, 3]).await;
        until("the range ends here", || {
            let there = learned(cluster, 1);
            let routes = ip(cluster, 1, &format!("route show {range}"));
            let ends = routes.iter().any(|route| route["type"] == "unreachable");
            if ends { Ok(()) } else { Err(format!("{there:?} {routes:?}")) }
        })
        .await;
    }
}

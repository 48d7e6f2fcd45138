//! A cluster routed by its agents, and the questions every story asks of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Protocol, matrix};
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine; a condition that is met ends the wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 8080;

pub(crate) const ROUTER_ONLY: [&str; 4] =
    ["--run-router=true", "--run-service-proxy=false", "--run-firewall=false", "--enable-ipv6=true"];

/// Nodes in `segments` subnets, a pod on each, agents started, nothing awaited but that agents are ready.
pub(crate) async fn routed(nodes: u8, segments: u8, more: &[&str]) -> Cluster {
    let flags = ROUTER_ONLY.iter().chain(more).map(|flag| (*flag).to_owned());
    let builder = Cluster::builder().nodes(nodes).segments(segments).dual_stack().route_pods(false);
    let mut cluster = builder.agent_flags(flags).start().await.unwrap();
    for index in 1..=usize::from(nodes) {
        pod(&cluster, index);
        cluster.start_agent(index).unwrap();
    }
    cluster.agents_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    cluster
}

fn pod(cluster: &Cluster, index: usize) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{index}"), "namespace": "default" },
        "spec": {
            "nodeName": format!("node-{index}"),
            "containers": [{ "name": "c", "image": "lab", "ports": [
                { "containerPort": PORT }, { "containerPort": PORT, "protocol": "UDP" },
            ] }],
        },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
}

pub(crate) fn addresses(cluster: &Cluster, index: usize) -> Option<Vec<IpAddr>> {
    let pod = cluster.api().get(Resource::Pods, Some("default"), &format!("pod-{index}"))?;
    let ips = pod.pointer("/status/podIPs")?.as_array()?;
    Some(ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect())
}

/// Every pod asks every other, in both families, until each is answered by whom it asked and seen as who it is.
pub(crate) async fn everyone_reaches_everyone(what: &str, cluster: &Cluster, pods: &[usize]) {
    eventually(PATIENCE, || ask_everyone(cluster, pods))
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

async fn ask_everyone(cluster: &Cluster, pods: &[usize]) -> Result<(), String> {
    let mut cells = Vec::new();
    let mut expected = Vec::new();
    for client in pods {
        let name = format!("pod-{client}");
        let probe = cluster.pod_probe("default", &name).ok_or(format!("{name} does not run"))?;
        let own = addresses(cluster, *client).ok_or(format!("{name} has no address"))?;
        for server in pods {
            let to = addresses(cluster, *server).ok_or(format!("pod-{server} has no address"))?;
            for (own, to) in own.iter().zip(to) {
                cells.push((probe.clone(), Protocol::Udp, SocketAddr::new(to, PORT)));
                expected.push((format!("pod-{server}"), *own));
            }
        }
    }
    for ((outcome, (name, own)), (probe, _, to)) in matrix(&cells).await.iter().zip(&expected).zip(&cells) {
        let good = outcome.as_ref().is_ok_and(|answer| answer.by == *name && answer.source.ip() == *own);
        if !good {
            return Err(format!("{} asked {to} of {name} as {own}: {outcome:?}", probe.name()));
        }
    }
    Ok(())
}

/// `ip -j` on a node, both families.
pub(crate) fn ip(cluster: &Cluster, node: usize, what: &str) -> Vec<Value> {
    let families = ["-4", "-6"].map(|family| {
        let text = cluster.on_node(node, &format!("ip -j {family} {what}")).unwrap();
        serde_json::from_str::<Vec<Value>>(text.trim()).unwrap_or_default()
    });
    families
        .into_iter()
        .flatten()
        .filter(|entry| entry.as_object().is_some_and(|entry| !entry.is_empty()))
        .collect()
}

/// Destinations of routes of our protocol on a node.
pub(crate) fn learned(cluster: &Cluster, node: usize) -> Vec<String> {
    let routes = ip(cluster, node, "route show proto 17");
    let mut to: Vec<String> =
        routes.iter().filter_map(|route| Some(route["dst"].as_str()?.to_owned())).collect();
    to.sort();
    to
}

/// Waits until a node has routes to exactly the pod ranges of these nodes.
pub(crate) async fn knows(cluster: &Cluster, node: usize, others: &[usize]) {
    let mut wanted: Vec<String> = others
        .iter()
        .flat_map(|index| cluster.node(*index).unwrap().pod_ranges().to_vec())
        .map(|range| range.to_string())
        .collect();
    wanted.sort();
    let look = || async {
        let there = learned(cluster, node);
        if there == wanted { Ok(()) } else { Err(format!("node {node} has {there:?} instead of {wanted:?}")) }
    };
    eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}"));
}

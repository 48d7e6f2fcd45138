//! A cluster routed by its agents, and the questions every story asks of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::probe::{Protocol, matrix};
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine; a condition that is met ends the wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// For an answer that must come: a late one is not a lost one.
pub(crate) const LATEST: Duration = Duration::from_secs(60);
/// For an answer that is asked for again: a datagram that was lost is not to take all of the patience.
pub(crate) const TRY: Duration = Duration::from_secs(15);
pub(crate) const PORT: u16 = 8080;

pub(crate) const ROUTER_ONLY: [&str; 5] = [
    "--run-router=true",
    "--run-service-proxy=false",
    "--run-firewall=false",
    "--enable-ipv6=true",
    "--metrics-port=20241",
];

/// Nodes of both families in `segments` subnets, a pod on each, agents started, nothing awaited but that agents are ready.
pub(crate) async fn routed(nodes: u8, segments: u8, more: &[&str]) -> Cluster {
    routed_in(Families::Dual, nodes, segments, more).await
}

/// The same, of these families.
pub(crate) async fn routed_in(families: Families, nodes: u8, segments: u8, more: &[&str]) -> Cluster {
    let flags = ROUTER_ONLY.iter().chain(more).map(|flag| (*flag).to_owned());
    let builder = Cluster::builder().nodes(nodes).segments(segments).families(families).route_pods(false);
    let mut cluster = builder.agent_flags(flags).start().await.unwrap();
    // The first to come finds nothing in any cache.
    cluster.agents_ready(3 * PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    // Not before: an agent that finds a wired pod takes itself for the successor of another.
    for index in 1..=usize::from(nodes) {
        pod(&cluster, index);
    }
    cluster
}

/// `pod-INDEX` on its node, with the label `app: web`.
pub(crate) fn pod(cluster: &Cluster, index: usize) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{index}"), "namespace": "default", "labels": { "app": "web" } },
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

/// Every pod asks every other, in every family, until each is answered by whom it asked and seen as who it is.
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
        let probe = probe.patience(TRY);
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
        // A question about a prefix is none to the other family.
        let text = cluster.on_node(node, &format!("ip -j {family} {what}")).unwrap_or_default();
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

/// The pod ranges of these nodes, sorted.
pub(crate) fn ranges(cluster: &Cluster, nodes: &[usize]) -> Vec<String> {
    let all = nodes.iter().flat_map(|index| cluster.node(*index).unwrap().pod_ranges().to_vec());
    let mut wanted: Vec<String> = all.map(|range| range.to_string()).collect();
    wanted.sort();
    wanted
}

/// Waits until a node has routes to exactly the pod ranges of these nodes.
pub(crate) async fn knows(cluster: &Cluster, node: usize, others: &[usize]) {
    knows_beside(cluster, node, others, &[]).await;
}

/// The same, and to what routers outside told.
pub(crate) async fn knows_beside(cluster: &Cluster, node: usize, others: &[usize], told: &[&str]) {
    let mut wanted = ranges(cluster, others);
    wanted.extend(told.iter().map(|&prefix| prefix.to_owned()));
    wanted.sort();
    let look = || async {
        let there = learned(cluster, node);
        if there == wanted { Ok(()) } else { Err(format!("node {node} has {there:?} instead of {wanted:?}")) }
    };
    eventually(PATIENCE, look).await.unwrap_or_else(|error| panic!("{error}\n{}", log(cluster, node)));
}

/// What the agent of a node has logged.
pub(crate) fn log(cluster: &Cluster, node: usize) -> String {
    std::fs::read_to_string(cluster.agent_log(node).unwrap()).unwrap()
}

/// Waits until `ask` is content.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let asked = eventually(PATIENCE, || std::future::ready(ask())).await;
    asked.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// What a command of kube-router says on a node.
pub(crate) fn agent(cluster: &Cluster, node: usize, arguments: &str) -> Result<String, String> {
    let program = lab::cluster::agent_program().map_err(|error| error.to_string())?;
    let line = format!("{} {arguments}", program.display());
    cluster.on_node(node, &line).map_err(|error| error.to_string())
}

/// `kube-router status` of a node's agent, of these parts or, with none, of all.
pub(crate) fn status(cluster: &Cluster, node: usize, parts: &str) -> Result<Value, String> {
    let text = agent(cluster, node, &format!("status {parts} -o json"))?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// `/metrics` of a node's agent, by curl.
pub(crate) fn metrics(cluster: &Cluster, node: usize) -> String {
    let v4 = cluster.node(node).unwrap().addresses().iter().any(IpAddr::is_ipv4);
    let host = if v4 { "127.0.0.1" } else { "[::1]" };
    cluster.on_node(node, &format!("curl -s -m 60 http://{host}:20241/metrics")).unwrap_or_default()
}

/// Sum of the values whose name and labels begin with `name` and contain all of `labels`.
pub(crate) fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    };
    let values = text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Waits until a node's agent says of so many peers that they are established.
pub(crate) async fn established(cluster: &Cluster, node: usize, peers: usize) {
    until(&format!("{peers} peers of node {node}"), || {
        let text = metrics(cluster, node);
        let up = metric(&text, "kube_router_bgp_peer_info", &["state=\"established\""]);
        let info =
            || text.lines().filter(|line| line.contains("bgp_peer_info")).collect::<Vec<_>>().join("\n");
        if up == peers as f64 { Ok(()) } else { Err(info()) }
    })
    .await;
}

/// Merges annotations into a Node; `null` removes one.
pub(crate) fn annotate(cluster: &Cluster, node: usize, annotations: Value) {
    let patch = json!({ "metadata": { "annotations": annotations } });
    cluster.api().patch(Resource::Nodes, None, &format!("node-{node}"), &patch).unwrap();
}

//! What every story needs: a cluster with agents, pods and Services as a user writes them, and questions asked until all
//! backends have answered.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Answer, Failure, Probe, Protocol, matrix};
use serde_json::{Value, json};

/// Bound of every wait: the VM's processor is emulated, and one thing may wait for ten others.
pub(crate) const SOON: Duration = Duration::from_secs(180);
/// For an answer that must come: a late one is not a lost one.
pub(crate) const LATEST: Duration = Duration::from_secs(15);

/// Flags of every agent: the service proxy alone, its ranges, metrics.
pub(crate) const FLAGS: [&str; 6] = [
    "--run-firewall=false",
    "--enable-ipv6",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--service-external-ip-range=203.0.113.0/24,fd03::/112",
    "--loadbalancer-ip-range=198.51.100.0/24,fd98::/112",
    "--metrics-port=20241",
];

/// The second packet filter; without it the agents take iptables, which is installed.
pub(crate) const NFTABLES: &str = "--firewall-backend=nftables";
/// Its tables, IPv4 first.
pub(crate) const TABLES: [&str; 2] = ["ip kube-router-filter-ipv4", "ip6 kube-router-filter-ipv6"];

/// Pod routing by the agents instead of the lab.
pub(crate) const ROUTER: &str = "--run-router=true";

/// Ports of a Service made by [`service`] and of the pods behind it.
pub(crate) const PORTS: [(Protocol, u16); 3] =
    [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 132)];

/// [`FLAGS`] and more.
pub(crate) fn flags(more: &[&str]) -> Vec<String> {
    FLAGS.iter().chain(more).map(|flag| (*flag).to_owned()).collect()
}

/// A cluster of both families, every agent ready. Pods are routed by the agents with [`ROUTER`], else by the lab.
pub(crate) async fn cluster(nodes: u8, more: &[&str]) -> Cluster {
    let builder = Cluster::builder().nodes(nodes).dual_stack().route_pods(!more.contains(&ROUTER));
    let cluster = builder.agent_flags(flags(more)).start().await.unwrap();
    for node in 1..=nodes.into() {
        programmed(&cluster, node).await;
    }
    cluster
}

/// Waits until the agent of this node says that the kernel is as it should be.
pub(crate) async fn programmed(cluster: &Cluster, node: usize) {
    let ask = || async {
        match http(cluster, node, "http://127.0.0.1:20244/readyz") {
            (200, _) => Ok(()),
            (status, text) => Err(format!("node-{node}: /readyz {status} {text}")),
        }
    };
    if let Err(error) = eventually(SOON, ask).await {
        let log = cluster.fabric().folder().join(format!("node-{node}.log"));
        panic!("{error}\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    shown(&format!("node-{node}: ready"));
}

/// Status and body of a GET by curl on a node; status 0 when there is no answer.
pub(crate) fn http(cluster: &Cluster, node: usize, url: &str) -> (u16, String) {
    let text = cluster.on_node(node, &format!("curl -s -m 60 -w \n%{{http_code}} {url}"));
    let text = text.unwrap_or_default();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (status.parse().unwrap_or(0), body.to_owned())
}

/// One value of /metrics on a node, by its name and labels as written there.
pub(crate) fn metric(cluster: &Cluster, node: usize, name: &str) -> f64 {
    let (status, text) = http(cluster, node, "http://127.0.0.1:20241/metrics");
    assert_eq!(status, 200, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Output of a tool on a node.
pub(crate) fn tool(cluster: &Cluster, node: usize, line: &str) -> String {
    cluster.on_node(node, line).unwrap_or_else(|error| panic!("{error}"))
}

/// The agent's binary, as the cluster finds it.
pub(crate) fn agent_program() -> PathBuf {
    lab::cluster::agent_program().unwrap()
}

/// Everything a node's kernel holds that the agent could have written, as other tools print it: virtual servers, sets,
/// rules and chains, links with addresses, routes, policy rules.
pub(crate) fn snapshot(cluster: &Cluster, node: usize) -> String {
    try_snapshot(cluster, node).unwrap_or_else(|error| panic!("{error}"))
}

/// The same; a tool that lists while the agent writes may fail.
pub(crate) fn try_snapshot(cluster: &Cluster, node: usize) -> Result<String, String> {
    let tool = |line: &str| cluster.on_node(node, line).map_err(|error| error.to_string());
    let mut sets: Vec<String> = tool("ipset save")?.lines().map(str::to_owned).collect();
    sets.sort();
    let mut text = sets.join("\n");
    for line in ["iptables-save", "ip6tables-save"] {
        let saved = tool(line)?;
        // Comments carry the time, built-in chains their counters, and exist once somebody has looked.
        text += &format!("\n{line}\n");
        let told = saved.lines().filter(|line| line.starts_with('-') || line.ends_with("- [0:0]"));
        text += &told.collect::<Vec<_>>().join("\n");
    }
    let tools = [
        "ipvsadm -Sn",
        "ip -o -4 addr",
        "ip -o -6 addr show scope global",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
    ];
    for line in tools {
        text += &format!("\n{line}\n{}", tool(line)?);
    }
    Ok(text)
}

/// What the agent of a node has printed.
pub(crate) fn log(cluster: &Cluster, node: usize) -> String {
    std::fs::read_to_string(cluster.fabric().folder().join(format!("node-{node}.log"))).unwrap()
}

/// Merges `more` into `base` as RFC 7386 has it: deep, lists are replaced, null removes.
fn merge(base: &mut Value, more: Value) {
    let (base, more) = match (base, more) {
        (Value::Object(base), Value::Object(more)) => (base, more),
        (base, more) => return *base = more,
    };
    for (key, value) in more {
        if value.is_null() {
            base.remove(&key);
        } else {
            merge(base.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Creates a pod that answers on all three protocols.
pub(crate) fn pod(cluster: &Cluster, name: &str, node: usize, app: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app } },
        "spec": {
            "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 600,
            "containers": [{ "name": "c", "image": "lab", "ports": [
                { "containerPort": 8080 },
                { "containerPort": 5353, "protocol": "UDP" },
                { "containerPort": 9132, "protocol": "SCTP" },
            ] }],
        },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
}

/// Creates a dual-stack Service before the pods of `app`, with `more` merged into it, and returns it as admitted.
pub(crate) fn service(cluster: &Cluster, name: &str, app: &str, more: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "selector": { "app": app }, "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                { "name": "web", "port": 80, "targetPort": 8080 },
                { "name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP" },
                { "name": "sig", "port": 132, "targetPort": 9132, "protocol": "SCTP" },
            ],
        },
    });
    merge(&mut service, more);
    (*cluster.api().create(Resource::Services, service).unwrap()).clone()
}

/// Waits until these pods are ready.
pub(crate) async fn ready(cluster: &Cluster, names: &[&str]) {
    for name in names {
        let look = || async {
            let pod = cluster.api().get(Resource::Pods, Some("default"), name);
            let is_ready = pod.as_ref().and_then(|pod| {
                let conditions = pod.pointer("/status/conditions")?.as_array()?;
                Some(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
            });
            if is_ready == Some(true) { Ok(()) } else { Err(format!("{name} is not ready: {pod:?}")) }
        };
        eventually(SOON, look).await.unwrap();
    }
}

/// Makes a running pod ready or not; it goes on answering either way.
pub(crate) fn set_ready(cluster: &Cluster, name: &str, ready: bool) {
    let patch = json!({ "metadata": { "annotations": { lab::kubelet::READY: ready.to_string() } } });
    cluster.api().patch(Resource::Pods, Some("default"), name, &patch).unwrap();
}

/// The probe of a running pod.
pub(crate) fn in_pod(cluster: &Cluster, name: &str) -> Probe {
    cluster.pod_probe("default", name).unwrap_or_else(|| panic!("{name} does not run"))
}

/// Addresses of a pod, IPv4 first.
pub(crate) fn pod_ips(cluster: &Cluster, name: &str) -> Vec<IpAddr> {
    let pod = cluster.api().get(Resource::Pods, Some("default"), name).unwrap();
    let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect()
}

/// Cluster IPs of a Service, IPv4 first.
pub(crate) fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let ips = service["spec"]["clusterIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

/// Node port of a Service's port by its index.
pub(crate) fn node_port(service: &Value, index: usize) -> u16 {
    service["spec"]["ports"][index]["nodePort"].as_u64().unwrap().try_into().unwrap()
}

/// One question: from where, how, to where.
pub(crate) type Cell = (Probe, Protocol, SocketAddr);

/// Port 80 of each cluster IP of a Service, by TCP.
pub(crate) fn web_cells(probe: &Probe, service: &Value) -> Vec<Cell> {
    let cell = |ip| (probe.clone(), Protocol::Tcp, SocketAddr::new(ip, 80));
    cluster_ips(service).into_iter().map(cell).collect()
}

/// Tells what has been shown, and when: a failure then says how far the story came.
fn shown(about: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    eprintln!("{:7.1} s  {about}", START.elapsed().as_secs_f32());
}

/// Asks all cells at once, again and again, until each was answered by every one of `backends`. One failure, or an
/// answer by anybody else, and it begins anew, for [`SOON`] at most.
pub(crate) async fn reach(about: &str, cells: &[Cell], backends: &[&str]) {
    let wanted: BTreeSet<String> = backends.iter().map(|name| (*name).to_owned()).collect();
    let patient = |(probe, protocol, to): &Cell| (probe.clone().patience(LATEST), *protocol, *to);
    let cells: Vec<Cell> = cells.iter().map(patient).collect();
    let attempt = || all_answer(&cells, &wanted);
    if let Err(error) = eventually(SOON, attempt).await {
        panic!("{about}: {error}");
    }
    shown(about);
}

async fn all_answer(cells: &[Cell], wanted: &BTreeSet<String>) -> Result<(), String> {
    let mut seen = vec![BTreeSet::new(); cells.len()];
    // Ends as soon as all have answered. Clients in step with each other may meet the same backend again and again.
    for _ in 0..40 * wanted.len() {
        let outcomes = matrix(cells).await;
        for ((cell, seen), outcome) in cells.iter().zip(&mut seen).zip(outcomes) {
            let told = |what: String| format!("{} to {}/{}: {what}", cell.0.name(), cell.2, cell.1);
            match outcome {
                Ok(answer) if wanted.contains(&answer.by) => drop(seen.insert(answer.by)),
                Ok(answer) => return Err(told(format!("answered by {}", answer.by))),
                Err(failure) => return Err(told(failure.to_string())),
            }
        }
        if seen.iter().all(|seen| seen == wanted) {
            return Ok(());
        }
    }
    Err(format!("wanted {wanted:?}, answered {seen:?}"))
}

/// Asks until it ends with this failure.
pub(crate) async fn fails(about: &str, cells: &[Cell], wanted: &[Failure]) {
    let attempt = || async {
        for (cell, outcome) in cells.iter().zip(matrix(cells).await) {
            match outcome {
                Err(failure) if wanted.contains(&failure) => {}
                other => return Err(format!("{} to {}/{}: {other:?}", cell.0.name(), cell.2, cell.1)),
            }
        }
        Ok(())
    };
    if let Err(error) = eventually(SOON, attempt).await {
        panic!("{about}: {error}");
    }
    shown(about);
}

/// Asks until `backend` answers, and returns how the client looked to it.
pub(crate) async fn answer_by(about: &str, cell: &Cell, backend: &str) -> Answer {
    let attempt = || async {
        match cell.0.ask(cell.1, cell.2).await {
            Ok(answer) if answer.by == backend => Ok(answer),
            other => Err(format!("{} to {}/{}: {other:?}", cell.0.name(), cell.2, cell.1)),
        }
    };
    eventually(SOON, attempt).await.unwrap_or_else(|error| panic!("{about}: {error}"))
}

/// Waits until `condition` holds on what a tool prints on a node; returns how long it took.
pub(crate) async fn until(
    about: &str,
    cluster: &Cluster,
    node: usize,
    line: &str,
    condition: impl Fn(&str) -> bool,
) -> Duration {
    let start = Instant::now();
    let look = || async {
        // A tool that lists while the agent writes may fail.
        let text = cluster.on_node(node, line).map_err(|error| format!("node-{node}: {line}: {error}"))?;
        if condition(&text) { Ok(()) } else { Err(format!("node-{node}: {line}: {text}")) }
    };
    if let Err(error) = eventually(SOON, look).await {
        panic!("{about}: {error}");
    }
    shown(about);
    start.elapsed()
}

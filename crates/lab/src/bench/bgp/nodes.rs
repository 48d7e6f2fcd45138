//! What pods of a cluster wait for: a route of ours that somebody deleted, and a node whose object has just got its
//! address. Two nodes with whole agents, IPv4.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::report::{Line, milliseconds, percentile};
use super::super::{Error, Lab};
use super::route::Routes;
use crate::api_server::Resource;
use crate::cluster::{Cluster, eventually};
use crate::node::Families;
use crate::probe::{Probe, Protocol};

/// Until a deleted route is back.
const BACK: Duration = Duration::from_millis(100);
/// From a Node's address to the first answer of a pod there.
const REACHED: Duration = Duration::from_secs(1);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two deletions, so that each finds an agent at rest.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a question to a pod may take: one that is lost is asked again.
const TRY: Duration = Duration::from_millis(50);
/// Between two questions.
const STEP: Duration = Duration::from_millis(2);
const PORT: u16 = 8080;
/// What the agent of a node without an address says.
const WAITS: &str = "nothing is programmed until there is one";

/// Deletes the route to node 2 so many times, then takes node 2 away and gives it back so many times.
pub(super) fn measure(lab: &Lab<'_>, deletions: usize, arrivals: usize) -> Result<Vec<Line>, Error> {
    lab.say(format!("BGP, a route deleted by others {deletions} times, a node that comes {arrivals} times"));
    let (back, reached) = lab.runtime.block_on(times(lab, deletions, arrivals))?;
    Ok(vec![
        line(format!("BGP, a route of ours deleted by others, {deletions} times: back"), back, BACK),
        line(format!("BGP, a node gets its address, {arrivals} times: its pods reached"), reached, REACHED),
    ])
}

fn line(what: String, mut times: Vec<Duration>, limit: Duration) -> Line {
    times.sort_unstable();
    let (median, late) = (percentile(&times, 50), percentile(&times, 99));
    Line::gate(
        format!("{what}, p50 / p99"),
        format!("{} / {} ms", milliseconds(median), milliseconds(late)),
        format!("p99 <= {} ms", limit.as_millis()),
        late <= limit,
    )
}

type Times = Vec<Duration>;

async fn times(lab: &Lab<'_>, deletions: usize, arrivals: usize) -> Result<(Times, Times), Error> {
    let flags = ["--run-router=true", "--run-service-proxy=false", "--run-firewall=false"];
    let builder = Cluster::builder().nodes(2).families(Families::V4).route_pods(false);
    let mut cluster = builder.agent(lab.agent).agent_flags(flags).start().await?;
    for node in 1..=2 {
        cluster.api().create(Resource::Pods, pod(node))?;
    }
    cluster.agents_ready(PATIENCE).await?;
    cluster.pods_ready(PATIENCE).await?;
    let asks =
        cluster.pod_probe("default", "pod-1").ok_or_else(|| wrong("pod-1 does not run"))?.patience(TRY);
    let to = address_of(&cluster, "pod-2").ok_or_else(|| wrong("pod-2 has no address"))?;
    answers(&asks, to).await?;
    let mut back = Vec::new();
    let taken = Taken::of(&cluster)?;
    for _ in 0..deletions {
        back.push(taken.deletion(&cluster)?);
        tokio::time::sleep(PAUSE).await;
    }
    drop(taken);
    let mut reached = Vec::new();
    for _ in 0..arrivals {
        reached.push(arrival(&mut cluster, &asks, to).await?);
    }
    // What is taken down here blocks.
    tokio::task::block_in_place(|| drop(cluster));
    Ok((back, reached))
}

/// The route of node 1 to the pods of node 2.
struct Taken {
    range: String,
    first: u32,
    routes: Routes,
}

impl Taken {
    fn of(cluster: &Cluster) -> Result<Taken, Error> {
        let range = cluster.node(2)?.pod_ranges().first().copied();
        let range = range.ok_or_else(|| wrong("node-2 has no pod range"))?;
        let IpAddr::V4(first) = range.network() else {
            return Err(wrong("the pod range of node-2 is not of IPv4"));
        };
        let routes = Routes::watch(cluster.node(1)?.namespace())?;
        Ok(Taken { range: range.to_string(), first: first.into(), routes })
    }

    /// From before `ip` is started to delete it, until the kernel says that it is there.
    fn deletion(&self, cluster: &Cluster) -> Result<Duration, Error> {
        let start = Instant::now();
        cluster.on_node(1, &format!("ip route del {} proto 17", self.range))?;
        Ok(self.routes.to(self.first)?.saturating_duration_since(start))
    }
}

/// From the address in node 2's object until its pod answers one of node 1. Its agent runs and waits for the address;
/// node 1 knows no way to it before.
async fn arrival(cluster: &mut Cluster, asks: &Probe, to: SocketAddr) -> Result<Duration, Error> {
    let api = cluster.api();
    let node = api.get(Resource::Nodes, None, "node-2").ok_or_else(|| wrong("there is no node-2"))?;
    let before = node.pointer("/status/addresses").cloned().unwrap_or(Value::Null);
    let set = |addresses: &Value| {
        let status = json!({ "addresses": addresses });
        api.patch_status(Resource::Nodes, None, "node-2", &status).map(drop)
    };
    set(&json!([]))?;
    drop(cluster.take_agent(2));
    let forgotten = || async {
        match cluster.on_node(1, "ip route show proto 17") {
            Ok(routes) if routes.trim().is_empty() => Ok(()),
            Ok(routes) => Err(format!("node-1 has no route to node-2: {routes}")),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(PATIENCE, forgotten).await?;
    let log = cluster.agent_log(2)?;
    let waits = || std::fs::read_to_string(&log).unwrap_or_default().matches(WAITS).count();
    let waited = waits();
    cluster.start_agent(2)?;
    let ready = || async {
        if waits() > waited { Ok(()) } else { Err(format!("the agent of node-2 says: {WAITS}")) }
    };
    eventually(PATIENCE, ready).await?;
    let start = Instant::now();
    set(&before)?;
    answers(asks, to).await?;
    Ok(start.elapsed())
}

/// Asks until there is an answer.
async fn answers(asks: &Probe, to: SocketAddr) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    while let Err(failure) = asks.ask(Protocol::Tcp, to).await {
        if Instant::now() >= end {
            return Err(Error::TooLate {
                what: format!("an answer of {to}"),
                seconds: PATIENCE.as_secs(),
                said: format!("; at last: {failure}"),
            });
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

fn address_of(cluster: &Cluster, pod: &str) -> Option<SocketAddr> {
    let pod = cluster.api().get(Resource::Pods, Some("default"), pod)?;
    Some(SocketAddr::new(pod.pointer("/status/podIP")?.as_str()?.parse().ok()?, PORT))
}

fn pod(node: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{node}"), "namespace": "default" },
        "spec": {
            "nodeName": format!("node-{node}"),
            "containers": [{ "name": "c", "image": "lab", "ports": [{ "containerPort": PORT }] }],
        },
    })
}

fn wrong(what: &str) -> Error {
    Error::Wrong(what.to_owned())
}

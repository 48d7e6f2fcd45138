//! Connections to the API server that are open and carry nothing: what it sends to node 1 goes astray on the way, and no
//! one says so. No reset, no refusal: the agent's own patience has to end it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use super::stage::{FORBIDDEN_PATIENCE, Stage};
use super::{Error, Options};
use crate::api_server::Resource;
use crate::cluster::{self, eventually};

/// A hardware address that no port of the fabric has.
const NOBODY: &str = "02:00:00:00:00:fe";
/// A pod that clients' policies let in, on a node that is nowhere: news that shows in a set.
const NEWS: &str = "10.244.99.9";
/// After it is over: a request gives up after a minute, the pause before the next is up to half of one, and a connection
/// that is made may wait for a repetition of TCP as long again.
const RECOVERY: Duration = Duration::from_secs(180);

/// For as long as the API server is away in the other drills. What happens meanwhile is known afterwards, and not before.
pub(super) async fn half_open(stage: &Stage, options: &Options) -> Result<u32, Error> {
    let node = stage.cluster.node(1)?;
    let own = node.addresses().into_iter().find(IpAddr::is_ipv4);
    let own = own.ok_or(Error::Object("IPv4 address of node-1"))?;
    let link = format!("seg{}", node.segment());
    let astray = format!("neigh replace {own} lladdr {NOBODY} nud permanent dev {link}\n");
    stage.cluster.fabric().namespace().ip(&astray)?;
    let silent = silence(stage, options).await;
    stage.cluster.fabric().namespace().ip(&format!("neigh del {own} dev {link}\n"))?;
    silent?;

    let look = || async {
        match knows(stage) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{NEWS}, a pod that came meanwhile, is in a set")),
            Err(error) => Err(error.to_string()),
        }
    };
    let known = eventually(RECOVERY, look).await;
    let gone = stage.cluster.api().delete(Resource::Pods, Some("default"), "late", Some(0));
    known?;
    gone.map_err(cluster::Error::from)?;
    Ok(1)
}

async fn silence(stage: &Stage, options: &Options) -> Result<(), Error> {
    let server = stage.cluster.fabric().gateway(0).into_iter().find(IpAddr::is_ipv4);
    let server = server.ok_or(Error::Object("address of its own"))?;
    let open = stage.tool(&format!("ss -Htn state established dst {server}"))?;
    // Octets to read, octets to send, this end, that end.
    let other_end: Option<SocketAddr> = open.split_whitespace().nth(3).and_then(|end| end.parse().ok());
    let Some(other_end) = other_end else {
        return Err(Error::NoFault(format!("node-1 has no connection to the API server: {open:?}")));
    };
    let asking = stage.cluster.node_probe(1)?.patience(FORBIDDEN_PATIENCE);
    if let Ok(answer) = asking.get(other_end, "/version").await {
        return Err(Error::NoFault(format!("the API server answers node-1: {answer:?}")));
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "late", "namespace": "default", "labels": { "app": "client" } },
        "spec": { "nodeName": "node-99", "containers": [{ "name": "c", "image": "lab" }] },
        "status": { "phase": "Running", "podIP": NEWS, "podIPs": [{ "ip": NEWS }] },
    });
    stage.cluster.api().create(Resource::Pods, pod).map_err(cluster::Error::from)?;
    tokio::time::sleep(options.away).await;
    if knows(stage)? {
        return Err(Error::NoFault("the agent was told of a pod that came meanwhile".to_owned()));
    }
    Ok(())
}

/// Whether the pod that came meanwhile is in a set of node 1.
fn knows(stage: &Stage) -> Result<bool, Error> {
    Ok(stage.tool("ipset list")?.contains(NEWS))
}

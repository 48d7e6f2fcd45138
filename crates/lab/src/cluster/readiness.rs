//! Waiting for a cluster to be what its objects say: agents ready by their own word, pods by their status.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::{Cluster, Error, eventually};
use crate::api_server::Resource;

/// Default of `--health-port`.
const HEALTH_PORT: u16 = 20244;

impl Cluster {
    /// Waits until `/readyz` of every agent that was started answers 200. The error names the node, what it said last
    /// and the log. An agent that ends is an error at once.
    pub async fn agents_ready(&mut self, limit: Duration) -> Result<(), Error> {
        let started =
            (1..=self.nodes.len()).filter(|index| self.agents.get(index - 1).is_some_and(Option::is_some));
        for index in started.collect::<Vec<_>>() {
            let (node, log) = (self.node(index)?.name().to_owned(), self.agent_log(index)?);
            let probe = self.node_probe(index)?;
            let loopback = match self.node(index)?.addresses().iter().any(std::net::IpAddr::is_ipv4) {
                true => Ipv4Addr::LOCALHOST.into(),
                false => Ipv6Addr::LOCALHOST.into(),
            };
            let to = SocketAddr::new(loopback, HEALTH_PORT);
            let agent = self.agent(index);
            let agent = std::sync::Mutex::new(agent);
            let look = || async {
                let ended = agent.lock().ok().and_then(|mut agent| agent.as_mut()?.ended());
                if let Some(status) = ended {
                    return Ok(Err(Error::Ended { node: node.clone(), status, log: log.clone() }));
                }
                let said = match probe.get(to, "/readyz").await {
                    Ok((200, _)) => return Ok(Ok(())),
                    Ok((status, body)) => format!("{status} {}", body.trim().replace('\n', "; ")),
                    Err(failure) => failure.to_string(),
                };
                Err(format!("the agent of {node} is ready (/readyz: {said}; its log is {})", log.display()))
            };
            eventually(limit, look).await??;
        }
        Ok(())
    }

    /// Waits until the pods that Deployments and DaemonSets ask for are there and every pod is Ready; returns how many.
    /// The error names those that are not, with the reason of their status.
    pub async fn pods_ready(&self, limit: Duration) -> Result<usize, Error> {
        let api = self.api();
        let look = || async {
            let deployments = api.list(Resource::Deployments, None);
            let replicas = deployments
                .iter()
                .map(|deployment| deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1));
            let daemons = api.list(Resource::DaemonSets, None).len() * self.nodes.len();
            let wanted = usize::try_from(replicas.sum::<u64>()).unwrap_or(usize::MAX).saturating_add(daemons);
            let pods = api.list(Resource::Pods, None);
            let waiting: Vec<String> =
                pods.iter().filter(|pod| !is_ready(pod)).map(|pod| describe(pod)).collect();
            match (pods.len() >= wanted, waiting.is_empty()) {
                (true, true) => Ok(pods.len()),
                (true, false) => Err(format!("all pods are ready (not {})", waiting.join(", "))),
                (false, _) => Err(format!("there are {wanted} pods ({} so far)", pods.len())),
            }
        };
        eventually(limit, look).await
    }
}

/// Whether a pod's Ready condition is true.
pub fn is_ready(pod: &Value) -> bool {
    let conditions =
        pod.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let said =
        |condition: &Value, key: &str, value: &str| condition.get(key).and_then(Value::as_str) == Some(value);
    conditions.iter().any(|condition| said(condition, "type", "Ready") && said(condition, "status", "True"))
}

fn describe(pod: &Value) -> String {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
    match text("/status/message") {
        "" => name,
        reason => format!("{name}: {reason}"),
    }
}

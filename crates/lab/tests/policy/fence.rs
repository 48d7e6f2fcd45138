//! Whether the agents have come as far as a change made now: three gates, one for each kind of object policies depend on.
//!
//! Without it a table that is the same before and after a change would hold because nobody had looked yet. The gates are
//! pods of their own, one on each node, each asking the next. Port 80 is open while the pods have a label, port 81 while
//! their namespace has one, port 82 while a policy exists. One watch delivers in order, so once a gate has moved, every
//! earlier change of its kind was taken in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::api_server::{Handle, Resource};
use lab::cluster::{Cluster, attempts, eventually, is_ready};
use lab::probe::{Probe, Protocol};
use serde_json::{Value, json};

use crate::stage::{SOON, patience};

const NAMESPACE: &str = "gates";
const PORTS: [u16; 3] = [80, 81, 82];
pub(crate) struct Fence {
    api: Handle,
    pods: Vec<String>,
    /// Who asks whom, and whether a policy other than the gates' lets it.
    cells: Vec<(Probe, SocketAddr)>,
    open: bool,
    /// The longest a gate took to move.
    pub(crate) slowest: Duration,
}

impl Fence {
    /// Creates the pods and the gates, closed.
    pub(crate) async fn new(cluster: &Cluster) -> Self {
        let api = cluster.api();
        api.create(Resource::Namespaces, json!({ "metadata": { "name": NAMESPACE } })).unwrap();
        let pods: Vec<String> = (1..=cluster.nodes().len()).map(|node| format!("gate-{node}")).collect();
        for (node, name) in (1..).zip(&pods) {
            let ports: Vec<Value> = PORTS.iter().map(|port| json!({ "containerPort": port })).collect();
            let spec = json!({
                "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "c", "image": "lab", "ports": ports }],
            });
            let pod = json!({ "metadata": { "namespace": NAMESPACE, "name": name }, "spec": spec });
            api.create(Resource::Pods, pod).unwrap();
        }
        let open = json!({ "matchLabels": { "gate": "open" } });
        let gates = json!({
            "podSelector": {}, "policyTypes": ["Egress"],
            "egress": [
                { "to": [{ "podSelector": open }], "ports": [{ "port": PORTS[0] }] },
                { "to": [{ "namespaceSelector": open }], "ports": [{ "port": PORTS[1] }] },
            ],
        });
        let gates = json!({ "metadata": { "namespace": NAMESPACE, "name": "gates" }, "spec": gates });
        api.create(Resource::NetworkPolicies, gates).unwrap();
        let mut fence = Self { api, pods, cells: Vec::new(), open: false, slowest: Duration::ZERO };
        fence.cells = fence.running(cluster).await;
        fence.seen().await;
        fence
    }

    async fn running(&self, cluster: &Cluster) -> Vec<(Probe, SocketAddr)> {
        let addresses = |name: &str| -> Option<Vec<std::net::IpAddr>> {
            let pod = self.api.get(Resource::Pods, Some(NAMESPACE), name).filter(|pod| is_ready(pod))?;
            let ips = pod["status"]["podIPs"].as_array()?.iter();
            ips.map(|ip| ip["ip"].as_str()?.parse().ok()).collect()
        };
        let look = || async {
            let mut cells = Vec::new();
            for (asking, asked) in self.pods.iter().zip(self.pods.iter().cycle().skip(1)) {
                let probe = cluster.pod_probe(NAMESPACE, asking).ok_or("gates run")?;
                for ip in addresses(asked).ok_or("gates have addresses")? {
                    cells.extend(PORTS.map(|port| (probe.clone(), SocketAddr::new(ip, port))));
                }
            }
            Ok(cells)
        };
        eventually(SOON, look).await.unwrap()
    }

    /// Moves the gates and waits until packets have noticed on every node.
    pub(crate) async fn pass(&mut self) {
        self.open = !self.open;
        let label = if self.open { json!("open") } else { Value::Null };
        let labels = json!({ "metadata": { "labels": { "gate": label } } });
        for pod in &self.pods {
            self.api.patch(Resource::Pods, Some(NAMESPACE), pod, &labels).unwrap();
        }
        self.api.patch(Resource::Namespaces, None, NAMESPACE, &labels).unwrap();
        let (name, kind) = ("third", Resource::NetworkPolicies);
        if self.open {
            let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": PORTS[2] }] }] });
            let policy = json!({ "metadata": { "namespace": NAMESPACE, "name": name }, "spec": spec });
            self.api.create(kind, policy).unwrap();
        } else {
            self.api.delete(kind, Some(NAMESPACE), name, None).unwrap();
        }
        self.seen().await;
    }

    async fn seen(&mut self) {
        let start = Instant::now();
        let (cells, open) = (&self.cells, self.open);
        let look = |attempt| async move {
            let ask = |(probe, to): &(Probe, SocketAddr)| {
                let (probe, to) = (probe.clone().patience(patience(attempt)), *to);
                async move { probe.ask(Protocol::Tcp, to).await }
            };
            let asked = cells.iter().map(ask);
            let outcomes = futures::future::join_all(asked).await;
            let wrong = cells.iter().zip(&outcomes).find(|(_, outcome)| outcome.is_ok() != open);
            let told = |((probe, to), outcome): (&(Probe, SocketAddr), _)| {
                format!(
                    "the gates are {}: {} to {to}: {outcome:?}",
                    if open { "open" } else { "shut" },
                    probe.name()
                )
            };
            wrong.map_or(Ok(()), |wrong| Err(told(wrong)))
        };
        attempts(SOON, look).await.unwrap();
        self.slowest = self.slowest.max(start.elapsed());
    }
}

//! Whether the agents have come as far as a change made now: three gates, one for each kind of object policies depend on.
//!
//! Without it a table that is the same before and after a change would hold because nobody had looked yet. The gates are
//! pods of their own, one on each node, each asking the next, and each gate is one of two ports: which of them is open
//! depends on a label of the pods, on one of their namespace, and on which policy there is. One watch delivers in order, so
//! once the other port is open, every earlier change of its kind was taken in. That a port has been shut is not asked: a
//! machine that stands still looks the same.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::api_server::{Handle, Resource};
use lab::cluster::{Cluster, attempts, eventually, is_ready};
use lab::probe::{Probe, Protocol, matrix};
use serde_json::{Value, json};

use crate::stage::{SOON, patience};

const NAMESPACE: &str = "gates";
/// Of the pods' label, the namespace's, and the policy, for either side.
const SIDES: [(&str, [u16; 3]); 2] = [("left", [80, 81, 82]), ("right", [90, 91, 92])];
pub(crate) struct Fence {
    api: Handle,
    pods: Vec<String>,
    /// Who asks whom.
    pairs: Vec<(Probe, IpAddr)>,
    /// Index of the side that is to be open.
    side: usize,
    /// The longest a gate took to move.
    pub(crate) slowest: Duration,
}

impl Fence {
    /// Creates the pods and the gates.
    pub(crate) async fn new(cluster: &Cluster) -> Self {
        let api = cluster.api();
        api.create(Resource::Namespaces, json!({ "metadata": { "name": NAMESPACE } })).unwrap();
        let pods: Vec<String> = (1..=cluster.nodes().len()).map(|node| format!("gate-{node}")).collect();
        for (node, name) in (1..).zip(&pods) {
            let ports = SIDES.iter().flat_map(|(_, ports)| ports);
            let ports: Vec<Value> = ports.map(|port| json!({ "containerPort": port })).collect();
            let spec = json!({
                "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "c", "image": "lab", "ports": ports }],
            });
            let pod = json!({ "metadata": { "namespace": NAMESPACE, "name": name }, "spec": spec });
            api.create(Resource::Pods, pod).unwrap();
        }
        let egress = SIDES.iter().flat_map(|(side, [of_pods, of_namespaces, _])| {
            let open = json!({ "matchLabels": { "gate": side } });
            [
                json!({ "to": [{ "podSelector": open }], "ports": [{ "port": of_pods }] }),
                json!({ "to": [{ "namespaceSelector": open }], "ports": [{ "port": of_namespaces }] }),
            ]
        });
        let egress: Vec<Value> = egress.collect();
        let gates = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": egress });
        let gates = json!({ "metadata": { "namespace": NAMESPACE, "name": "gates" }, "spec": gates });
        api.create(Resource::NetworkPolicies, gates).unwrap();
        let mut fence = Self { api, pods, pairs: Vec::new(), side: 0, slowest: Duration::ZERO };
        fence.pairs = fence.running(cluster).await;
        fence.pass().await;
        fence
    }

    async fn running(&self, cluster: &Cluster) -> Vec<(Probe, IpAddr)> {
        let addresses = |name: &str| -> Option<Vec<IpAddr>> {
            let pod = self.api.get(Resource::Pods, Some(NAMESPACE), name).filter(|pod| is_ready(pod))?;
            let ips = pod["status"]["podIPs"].as_array()?.iter();
            ips.map(|ip| ip["ip"].as_str()?.parse().ok()).collect()
        };
        let look = || async {
            let mut pairs = Vec::new();
            for (asking, asked) in self.pods.iter().zip(self.pods.iter().cycle().skip(1)) {
                let probe = cluster.pod_probe(NAMESPACE, asking).ok_or("gates run")?;
                let ips = addresses(asked).ok_or("gates have addresses")?;
                pairs.extend(ips.into_iter().map(|ip| (probe.clone(), ip)));
            }
            Ok(pairs)
        };
        eventually(SOON, look).await.unwrap()
    }

    /// Moves the gates and waits until packets have noticed on every node.
    pub(crate) async fn pass(&mut self) {
        let (before, _) = SIDES[self.side];
        self.side = 1 - self.side;
        let (side, ports) = SIDES[self.side];
        let labels = json!({ "metadata": { "labels": { "gate": side } } });
        for pod in &self.pods {
            self.api.patch(Resource::Pods, Some(NAMESPACE), pod, &labels).unwrap();
        }
        self.api.patch(Resource::Namespaces, None, NAMESPACE, &labels).unwrap();
        // First the one that goes: who has heard of the other has heard of that. At first there is none.
        let _ = self.api.delete(Resource::NetworkPolicies, Some(NAMESPACE), before, None);
        let spec = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": ports[2] }] }] });
        let policy = json!({ "metadata": { "namespace": NAMESPACE, "name": side }, "spec": spec });
        self.api.create(Resource::NetworkPolicies, policy).unwrap();
        self.seen(&ports).await;
    }

    async fn seen(&mut self, ports: &[u16; 3]) {
        let start = Instant::now();
        let pairs = &self.pairs;
        let look = |attempt| async move {
            let cells: Vec<_> = pairs
                .iter()
                .flat_map(|(probe, ip)| {
                    let probe = probe.clone().patience(patience(attempt));
                    ports.map(|port| (probe.clone(), Protocol::Tcp, SocketAddr::new(*ip, port)))
                })
                .collect();
            let outcomes = matrix(&cells).await;
            let shut = cells.iter().zip(outcomes).find_map(|(cell, outcome)| Some((cell, outcome.err()?)));
            shut.map_or(Ok(()), |((probe, _, to), failure)| {
                Err(format!("a gate is still shut: {} to {to}: {failure}", probe.name()))
            })
        };
        attempts(SOON, look).await.unwrap();
        self.slowest = self.slowest.max(start.elapsed());
    }
}

//! Where cases play: namespaces `x`, `y`, `z`, pods `a`, `b`, `c` in each, and steps that change them, on any API server.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use lab::api_server::{Handle, Resource};
use lab::cluster::{Cluster, attempts, eventually, is_ready};
use lab::policy::{Member, Objects, Port, Truth, ask};
use lab::probe::Hearing;
use serde_json::{Value, json};

use crate::case::{Labels, Step, resolve};

/// Bound of every wait: other work may have the machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);

pub(crate) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
/// A namespace that is not there at first. Cases may begin and end it; while it is there, its pods take part.
const ANOTHER: &str = "w";
/// Name and node: on each node two pods of one namespace and one of another, so that pairs on one bridge and pairs across
/// nodes exist within and between namespaces.
const PODS: [(&str, usize); 9] = [
    ("x/a", 1),
    ("x/b", 1),
    ("x/c", 2),
    ("y/a", 2),
    ("y/b", 3),
    ("y/c", 2),
    ("z/a", 3),
    ("z/b", 1),
    ("z/c", 3),
];

/// An API server with the pods on it. With a cluster the pods are real; without, they have invented addresses.
pub(crate) struct Stage<'a> {
    pub(crate) api: Handle,
    pub(crate) cluster: Option<&'a Cluster>,
    invented: Cell<u8>,
}

impl<'a> Stage<'a> {
    /// Creates namespaces and pods and waits for them.
    pub(crate) async fn new(api: Handle, cluster: Option<&'a Cluster>) -> Self {
        let stage = Self { api, cluster, invented: Cell::new(0) };
        for name in NAMESPACES {
            let namespace = json!({ "metadata": { "name": name, "labels": { "ns": name } } });
            stage.api.create(Resource::Namespaces, namespace).unwrap();
        }
        for (name, node) in PODS {
            stage.create(name, node, json!({}));
        }
        stage.ready().await;
        stage
    }

    /// The same pods, already there.
    pub(crate) fn of(api: Handle, cluster: &'a Cluster) -> Self {
        Self { api, cluster: Some(cluster), invented: Cell::new(0) }
    }

    /// Creates a pod that serves 80 and 81 on all protocols.
    pub(crate) fn create(&self, full: &str, node: usize, labels: Value) {
        let (namespace, name) = full.split_once('/').unwrap();
        let mut all = json!({ "pod": name });
        for (key, value) in labels.as_object().unwrap() {
            all[key] = value.clone();
        }
        let pod = json!({
            "metadata": { "name": name, "namespace": namespace, "labels": all },
            "spec": {
                "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "c", "image": "lab", "ports": ports(name) }],
            },
        });
        self.api.create(Resource::Pods, pod).unwrap();
        if self.cluster.is_none() {
            let number = self.invented.replace(self.invented.get() + 1);
            let ips = json!([{ "ip": format!("10.244.{node}.{number}") }, { "ip": format!("fd44:{node}::{number:x}") }]);
            let status = json!({ "phase": "Running", "podIPs": ips, "conditions": [{ "type": "Ready", "status": "True" }] });
            self.api.patch_status(Resource::Pods, Some(namespace), name, &status).unwrap();
        }
    }

    /// Waits until every pod is ready and none is ending.
    pub(crate) async fn ready(&self) {
        let look = || async {
            let pods = self.api.list(Resource::Pods, None);
            let waiting =
                pods.iter().find(|pod| !is_ready(pod) || !pod["metadata"]["deletionTimestamp"].is_null());
            waiting.map_or(Ok(()), |pod| Err(format!("every pod is ready: {pod}")))
        };
        eventually(SOON, look).await.unwrap();
    }

    /// The pods of the namespaces of cases by name. With a cluster, with their probes.
    pub(crate) fn members(&self) -> Vec<Member> {
        let of = |namespace: &&str| self.api.list(Resource::Pods, Some(namespace));
        let pods = NAMESPACES.iter().chain([&ANOTHER]).flat_map(of);
        let member = |pod: std::sync::Arc<Value>| {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
            let addresses: Vec<IpAddr> = ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect();
            let probe = self.cluster.map(|cluster| {
                cluster.pod_probe(&namespace, &name).unwrap_or_else(|| panic!("{namespace}/{name} runs"))
            });
            Member { name: format!("{namespace}/{name}"), addresses, probe }
        };
        pods.map(member).collect()
    }

    /// What should pass now.
    pub(crate) fn objects(&self) -> Objects {
        Objects::of(&self.api)
    }

    /// Does what a step says.
    pub(crate) async fn take(&self, step: &Step) {
        for name in &step.delete {
            let (namespace, name) = name.split_once('/').unwrap();
            self.api.delete(Resource::NetworkPolicies, Some(namespace), name, None).unwrap();
        }
        for name in &step.remove {
            let (namespace, name) = name.split_once('/').unwrap();
            self.api.delete(Resource::Pods, Some(namespace), name, None).unwrap();
        }
        for name in &step.end {
            self.end(name).await;
        }
        for (name, labels) in &step.begin {
            assert_eq!(name, ANOTHER, "cases may begin this one");
            let namespace = json!({ "metadata": { "name": name, "labels": labels } });
            self.api.create(Resource::Namespaces, namespace).unwrap();
        }
        for (name, pod) in &step.create {
            self.create(name, pod.node, json!(pod.labels));
        }
        if !step.create.is_empty() || !step.remove.is_empty() {
            self.ready().await;
        }
        let members = self.members();
        for (name, spec) in &step.apply {
            let (namespace, name) = name.split_once('/').unwrap();
            self.policy(namespace, name, resolve(spec.clone(), &members));
        }
        for (name, labels) in &step.pods {
            let (namespace, name) = name.split_once('/').unwrap();
            self.label(Resource::Pods, Some(namespace), name, labels);
        }
        for (name, labels) in &step.namespaces {
            self.label(Resource::Namespaces, None, name, labels);
        }
    }

    /// Deletes a namespace, if it is there, and waits until nothing is left of it.
    async fn end(&self, name: &str) {
        if self.api.get(Resource::Namespaces, None, name).is_none() {
            return;
        }
        self.api.delete(Resource::Namespaces, None, name, None).unwrap();
        let look = || async {
            let left = self.api.get(Resource::Namespaces, None, name);
            left.map_or(Ok(()), |left| Err(format!("the namespace is gone: {left}")))
        };
        eventually(SOON, look).await.unwrap();
    }

    /// Creates or replaces a policy.
    pub(crate) fn policy(&self, namespace: &str, name: &str, spec: Value) {
        let policy = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
        let done = match self.api.get(Resource::NetworkPolicies, Some(namespace), name) {
            Some(_) => self.api.update(Resource::NetworkPolicies, policy),
            None => self.api.create(Resource::NetworkPolicies, policy),
        };
        done.unwrap_or_else(|error| panic!("{namespace}/{name}: {error}"));
    }

    fn label(&self, resource: Resource, namespace: Option<&str>, name: &str, labels: &Labels) {
        let patch = json!({ "metadata": { "labels": labels } });
        self.api.patch(resource, namespace, name, &patch).unwrap();
    }

    /// Everything as it was at the beginning.
    pub(crate) async fn reset(&self) {
        self.end(ANOTHER).await;
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        for namespace in NAMESPACES {
            for policy in self.api.list(Resource::NetworkPolicies, Some(namespace)) {
                self.api.delete(Resource::NetworkPolicies, Some(namespace), &name(&policy), None).unwrap();
            }
            for pod in self.api.list(Resource::Pods, Some(namespace)) {
                let full = format!("{namespace}/{}", name(&pod));
                if PODS.iter().any(|(own, _)| *own == full) {
                    self.relabel(Resource::Pods, Some(namespace), &pod, json!({ "pod": name(&pod) }));
                } else {
                    self.api.delete(Resource::Pods, Some(namespace), &name(&pod), None).unwrap();
                }
            }
            for (full, node) in PODS.iter().filter(|(full, _)| full.starts_with(namespace)) {
                let (_, name) = full.split_once('/').unwrap();
                if self.api.get(Resource::Pods, Some(namespace), name).is_none() {
                    self.create(full, *node, json!({}));
                }
            }
            let space = self.api.get(Resource::Namespaces, None, namespace).unwrap();
            let labels = json!({ "ns": namespace, "kubernetes.io/metadata.name": namespace });
            self.relabel(Resource::Namespaces, None, &space, labels);
        }
        self.ready().await;
    }

    fn relabel(&self, resource: Resource, namespace: Option<&str>, object: &Value, labels: Value) {
        if object["metadata"]["labels"] == labels {
            return;
        }
        let old = object["metadata"]["labels"].as_object().unwrap().keys();
        let mut patch: serde_json::Map<String, Value> = old.map(|key| (key.clone(), Value::Null)).collect();
        patch.extend(labels.as_object().unwrap().clone());
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api.patch(resource, namespace, name, &json!({ "metadata": { "labels": patch } })).unwrap();
    }
}

/// Container ports of a pod, with the second names that differ between pods.
fn ports(name: &str) -> Value {
    let mut ports = Vec::new();
    for number in [80, 81] {
        for protocol in ["TCP", "UDP", "SCTP"] {
            let name = format!("serve-{number}-{}", protocol.to_lowercase());
            ports.push(json!({ "name": name, "containerPort": number, "protocol": protocol }));
        }
    }
    match name {
        "a" => ports.push(json!({ "name": "web", "containerPort": 80 })),
        "b" => ports.push(json!({ "name": "web", "containerPort": 81 })),
        _ => {}
    }
    json!(ports)
}

/// How long a question waits where only one attempt is made.
pub(crate) const PATIENCE: Duration = Duration::from_millis(800);

/// How long the questions of an attempt wait, from 0: briefly at first, for a refused IPv6 connection is known by silence
/// (Linux believes an ICMPv6 only with the next SYN), longer where a loaded machine needs it.
pub(crate) fn patience(attempt: u32) -> Duration {
    Duration::from_secs(10).min(Duration::from_millis(250) * (attempt + 1))
}

/// Asks again and again until what passes is what should; says what is wrong when [`SOON`] is over.
pub(crate) async fn becomes(members: &[Member], ports: &[Port], expected: &Truth) -> Result<(), String> {
    let look = |attempt| async move {
        let seen = ask(members, ports, patience(attempt)).await;
        seen.difference(expected).map_or(Ok(()), Err)
    };
    attempts(SOON, look).await.map_err(|error| error.to_string())
}

/// [`becomes`] with what the reference says, or a panic.
pub(crate) async fn holds(about: &str, members: &[Member], ports: &[Port], objects: &Objects) {
    if let Err(picture) = becomes(members, ports, &Truth::expected(members, ports, objects)).await {
        panic!("{about}: {picture}");
    }
}

/// A flow counts as cut when nothing was heard for this long; a server sends a hundred times as often.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits until nothing arrives any more.
pub(crate) async fn is_cut(about: &str, hearing: &Hearing) -> Result<(), String> {
    let look = || async {
        let before = hearing.heard();
        tokio::time::sleep(SILENCE).await;
        let after = hearing.heard();
        if before == after {
            Ok(())
        } else {
            Err(format!("{about}: is cut ({} answers in a second)", after - before))
        }
    };
    eventually(SOON, look).await.map_err(|error| error.to_string())
}

/// Waits until something arrives.
pub(crate) async fn flows(about: &str, hearing: &Hearing) -> Result<(), String> {
    let before = hearing.heard();
    let look = || async {
        if hearing.heard() > before { Ok(()) } else { Err(format!("{about}: flows ({before} heard before)")) }
    };
    eventually(SOON, look).await.map_err(|error| error.to_string())
}

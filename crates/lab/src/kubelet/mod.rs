//! The kubelet's part for one lab node: Pods bound to it get a namespace wired by CNI, ports that answer with the pod's
//! name, a status; deletion honours the grace period.
//!
//! One task per pod follows its newest object, so a slow start holds up no other pod. What a pod's object means is
//! decided in `view`; what is done about it in `workload`.

mod view;
mod workload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use view::{HANDS_OFF, READY, SERVE_WHILE_TERMINATING};

use self::view::View;
use crate::api_server::object::now;
use crate::api_server::{ApiError, EventKind, Handle, Resource};
use crate::node::Node;
use crate::probe::Probe;

/// Namespace and name of a pod.
pub type PodName = (String, String);

/// Probes of the running pods, for tests to ask from.
type Probes = Arc<Mutex<BTreeMap<PodName, Probe>>>;

/// A running kubelet; dropping it stops it and its pods, without telling the API server, as a node that dies.
#[derive(Debug)]
pub struct Kubelet {
    task: JoinHandle<()>,
    probes: Probes,
}

/// Creates the Node object (labels, addresses, Ready) and returns the pod ranges the control plane gave it.
pub fn register(handle: &Handle, node: &Node) -> Result<Vec<ipnet::IpNet>, ApiError> {
    let name = node.name();
    let labels =
        json!({ "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" });
    let mut addresses: Vec<Value> = node
        .addresses()
        .iter()
        .map(|ip| json!({ "type": "InternalIP", "address": ip.to_string() }))
        .collect();
    addresses.push(json!({ "type": "Hostname", "address": name }));
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now(),
        "lastHeartbeatTime": now(),
    });
    let object = handle.create(
        Resource::Nodes,
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels }, "spec": {},
            "status": { "addresses": addresses, "conditions": [condition], "nodeInfo": { "kubeletVersion": "lab" } },
        }),
    )?;
    let ranges = object.pointer("/spec/podCIDRs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(ranges.iter().filter_map(|range| range.as_str()?.parse().ok()).collect())
}

impl Kubelet {
    /// Starts to follow the Pods bound to `node`. Needs a tokio runtime.
    pub fn start(node: Arc<Node>, handle: Handle) -> Self {
        let probes = Probes::default();
        let task = tokio::spawn(follow(node, handle, Arc::clone(&probes)));
        Self { task, probes }
    }

    /// The probe of a running pod of this node.
    pub fn probe(&self, namespace: &str, name: &str) -> Option<Probe> {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(node: Arc<Node>, handle: Handle, probes: Probes) {
    let (present, mut changes) = handle.watch(Resource::Pods);
    // The tasks end with this one: the set aborts them.
    let mut tasks = tokio::task::JoinSet::new();
    let mut newest: BTreeMap<PodName, watch::Sender<Option<View>>> = BTreeMap::new();
    let mut present = present.into_iter();
    loop {
        let (object, gone) = match present.next() {
            Some(object) => (object, false),
            None => tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => (change.object, change.kind == EventKind::Deleted),
                    None => return,
                },
                Some(_) = tasks.join_next() => continue,
            },
        };
        let mine = |view: &View| view.node == node.name() && !view.hands_off;
        let Some(view) = View::of(&object).filter(mine) else { continue };
        let key = (view.namespace.clone(), view.name.clone());
        if gone {
            // The task sees its sender go and stops the pod.
            newest.remove(&key);
            continue;
        }
        match newest.get(&key) {
            Some(task) if task.borrow().as_ref().is_some_and(|known| known.uid == view.uid) => {
                task.send_replace(Some(view));
            }
            // New, or deleted and created again under its name.
            _ => {
                let (sender, receiver) = watch::channel(Some(view));
                newest.insert(key, sender);
                tasks.spawn(workload::run(Arc::clone(&node), handle.clone(), receiver, Arc::clone(&probes)));
            }
        }
    }
}

//! Keeps Deployments and DaemonSets at their plans: events mark workloads dirty, each dirty one is planned once.
//!
//! What it writes it notes at once, so that a plan never counts a pod twice while its event is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::pods::controller;
use super::workloads::{self, Plan};
use crate::api_server::object::{name, namespace, uid};
use crate::api_server::{ApiError, EventKind, Handle, Resource, WatchEvent};

struct Controller {
    handle: Handle,
    /// By uid.
    workloads: BTreeMap<String, (Resource, Arc<Value>)>,
    /// Pods by their controller's uid and their name.
    pods: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
    nodes: BTreeMap<String, Arc<Value>>,
    /// Uids to plan.
    dirty: BTreeSet<String>,
}

/// Works until the server ends.
pub(super) async fn run(handle: Handle) {
    let (nodes, mut node_events) = handle.watch(Resource::Nodes);
    let (deployments, mut deployment_events) = handle.watch(Resource::Deployments);
    let (sets, mut set_events) = handle.watch(Resource::DaemonSets);
    let (pods, mut pod_events) = handle.watch(Resource::Pods);
    let mut controller = Controller {
        handle,
        workloads: BTreeMap::new(),
        pods: BTreeMap::new(),
        nodes: BTreeMap::new(),
        dirty: BTreeSet::new(),
    };
    let added = |object| WatchEvent { kind: EventKind::Added, object };
    nodes.into_iter().for_each(|node| controller.node(&added(node)));
    deployments.into_iter().for_each(|object| controller.workload(Resource::Deployments, &added(object)));
    sets.into_iter().for_each(|object| controller.workload(Resource::DaemonSets, &added(object)));
    pods.into_iter().for_each(|pod| controller.pod(&added(pod)));
    loop {
        for uid in std::mem::take(&mut controller.dirty) {
            controller.sync(&uid);
        }
        tokio::select! {
            Some(event) = node_events.recv() => controller.node(&event),
            Some(event) = deployment_events.recv() => controller.workload(Resource::Deployments, &event),
            Some(event) = set_events.recv() => controller.workload(Resource::DaemonSets, &event),
            Some(event) = pod_events.recv() => controller.pod(&event),
            else => return,
        }
        while let Ok(event) = pod_events.try_recv() {
            controller.pod(&event);
        }
    }
}

impl Controller {
    fn node(&mut self, event: &WatchEvent) {
        let name = name(&event.object).to_owned();
        match event.kind {
            EventKind::Deleted => drop(self.nodes.remove(&name)),
            _ => drop(self.nodes.insert(name, event.object.clone())),
        }
        let sets = self.workloads.iter().filter(|(_, (resource, _))| *resource == Resource::DaemonSets);
        self.dirty.extend(sets.map(|(uid, _)| uid.clone()));
    }

    fn workload(&mut self, resource: Resource, event: &WatchEvent) {
        let uid = uid(&event.object).to_owned();
        match event.kind {
            EventKind::Deleted => drop(self.workloads.remove(&uid)),
            _ => drop(self.workloads.insert(uid.clone(), (resource, event.object.clone()))),
        }
        self.dirty.insert(uid);
    }

    fn pod(&mut self, event: &WatchEvent) {
        let Some((owner, "Deployment" | "DaemonSet")) = controller(&event.object) else { return };
        self.dirty.insert(owner.to_owned());
        let pods = self.pods.entry(owner.to_owned()).or_default();
        match event.kind {
            EventKind::Deleted => drop(pods.remove(name(&event.object))),
            _ => drop(pods.insert(name(&event.object).to_owned(), event.object.clone())),
        }
    }

    /// Plans one workload and carries the plan out; an owner that is gone takes its pods with it.
    fn sync(&mut self, uid: &str) {
        let own = self.pods.get(uid);
        let pods: Vec<&Value> = own.into_iter().flat_map(BTreeMap::values).map(Arc::as_ref).collect();
        let Some((resource, object)) = self.workloads.get(uid).cloned() else {
            let orphans = self.pods.remove(uid).unwrap_or_default();
            for pod in orphans.values() {
                self.delete(namespace(pod), name(pod));
            }
            return;
        };
        let plan = match resource {
            Resource::Deployments => workloads::deployment(&object, &pods),
            _ => {
                let nodes: Vec<&Value> = self.nodes.values().map(Arc::as_ref).collect();
                workloads::daemon_set(&object, &pods, &nodes)
            }
        };
        self.carry_out(uid, resource, &object, plan);
    }

    fn carry_out(&mut self, uid: &str, resource: Resource, object: &Value, plan: Plan) {
        let space = namespace(object);
        for pod in plan.create {
            match self.handle.create(Resource::Pods, pod) {
                Ok(pod) => {
                    self.pods.entry(uid.to_owned()).or_default().insert(name(&pod).to_owned(), pod);
                }
                // The namespace is being ended, and the workload with it.
                Err(ApiError::Forbidden(_) | ApiError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%error, workload = name(object), "pod not created"),
            }
        }
        for pod in &plan.delete {
            self.delete(space, pod);
            let now = self.handle.get(Resource::Pods, Some(space), pod);
            let pods = self.pods.entry(uid.to_owned()).or_default();
            match now {
                Some(now) => drop(pods.insert(pod.clone(), now)),
                None => drop(pods.remove(pod)),
            }
        }
        if object.get("status") != Some(&plan.status) {
            // A workload deleted in between needs no status.
            let _ = self.handle.patch_status(resource, Some(space), name(object), &plan.status);
        }
    }

    fn delete(&self, namespace: &str, pod: &str) {
        match self.handle.delete(Resource::Pods, Some(namespace), pod, None) {
            Ok(()) | Err(ApiError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, namespace, pod, "pod not deleted"),
        }
    }
}

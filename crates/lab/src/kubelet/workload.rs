//! One pod from its binding to its end.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::view::{View, running, waiting};
use super::{PodName, Probes};
use crate::api_server::object::now;
use crate::api_server::{Handle, Resource};
use crate::node::{Node, Pod, PodObject};
use crate::probe::{Probe, Server};

/// What a running pod consists of. The ports close before the namespace goes.
struct Workload {
    servers: Vec<Server>,
    probe: Probe,
    addresses: Vec<IpAddr>,
    pod: Option<Pod>,
}

/// Takes the pod off the list of probes whatever way the task ends.
struct Listed<'a> {
    probes: &'a Probes,
    key: PodName,
    /// Which life of the name: a successor's entry is not ours to remove.
    uid_probe: Probe,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if probes.get(&self.key).is_some_and(|probe| probe.same(&self.uid_probe)) {
            probes.remove(&self.key);
        }
    }
}

/// Follows the newest object of one pod until it is deleted.
pub(super) async fn run(
    node: Arc<Node>,
    handle: Handle,
    mut newest: watch::Receiver<Option<View>>,
    probes: Probes,
) {
    let Some(mut view) = newest.borrow_and_update().clone() else { return };
    let since = now();
    let status = |view: &View, workload: &Workload| {
        let status = running(view, &workload.addresses, &node.addresses(), &since, &now());
        // A pod deleted meanwhile needs no status.
        let _ = handle.patch_status(Resource::Pods, Some(&view.namespace), &view.name, &status);
    };
    let mut workload = match start(&node, &view).await {
        Ok(workload) => workload,
        Err(reason) => {
            let status = waiting(&reason);
            let _ = handle.patch_status(Resource::Pods, Some(&view.namespace), &view.name, &status);
            return refuse(&handle, newest).await;
        }
    };
    let key = (view.namespace.clone(), view.name.clone());
    probes.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), workload.probe.clone());
    let listed = Listed { probes: &probes, key, uid_probe: workload.probe.clone() };
    status(&view, &workload);
    let mut end: Option<Instant> = view.terminating.map(in_seconds);
    loop {
        if view.terminating.is_some() && !view.serve_while_terminating {
            workload.servers.clear();
        }
        tokio::select! {
            changed = newest.changed() => {
                let next = newest.borrow_and_update().clone();
                // Deleted by someone else, and perhaps created again under the same name: nothing to grant.
                let (Ok(()), Some(next)) = (changed, next) else {
                    drop(listed);
                    return stop(workload).await;
                };
                end = end.or(next.terminating.map(in_seconds));
                if next != view {
                    let report = next.ready() != view.ready();
                    view = next;
                    if report {
                        status(&view, &workload);
                    }
                }
            }
            () = wait(end) => break,
        }
    }
    drop(listed);
    stop(workload).await;
    grant(&handle, &view);
}

/// Removes the object of a pod that has stopped, unless its name has a new owner.
fn grant(handle: &Handle, view: &View) {
    let present = handle.get(Resource::Pods, Some(&view.namespace), &view.name);
    if present.and_then(|pod| View::of(&pod)).is_some_and(|present| present.uid == view.uid) {
        let _ = handle.delete(Resource::Pods, Some(&view.namespace), &view.name, Some(0));
    }
}

/// A pod that did not start has nothing to stop: its deletion is granted at once.
async fn refuse(handle: &Handle, mut newest: watch::Receiver<Option<View>>) {
    loop {
        let view = newest.borrow_and_update().clone();
        if let Some(view) = view.filter(|view| view.terminating.is_some()) {
            return grant(handle, &view);
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

async fn wait(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn start(node: &Arc<Node>, view: &View) -> Result<Workload, String> {
    let (probe, addresses, pod) = if view.host_network {
        (Probe::new(&view.name, node.namespace()), node.addresses(), None)
    } else {
        let (node, name) = (Arc::clone(node), format!("{}.{}", view.namespace, view.name));
        let object = PodObject {
            namespace: view.namespace.clone(),
            name: view.name.clone(),
            uid: view.uid.clone(),
            mappings: view.mappings.clone(),
        };
        let made = tokio::task::spawn_blocking(move || Pod::of_object(&node, &name, object)).await;
        let pod = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        (Probe::new(&view.name, pod.namespace()), pod.addresses().to_vec(), Some(pod))
    };
    let mut servers = Vec::new();
    for (protocol, port) in &view.ports {
        let served = probe.serve(*protocol, *port).await;
        servers.push(served.map_err(|error| format!("cannot listen on {protocol} port {port}: {error}"))?);
    }
    Ok(Workload { servers, probe, addresses, pod })
}

/// CNI's DEL blocks for a process.
async fn stop(workload: Workload) {
    let Workload { servers, pod, probe, .. } = workload;
    drop(servers);
    drop(probe);
    let _ = tokio::task::spawn_blocking(move || drop(pod)).await;
}

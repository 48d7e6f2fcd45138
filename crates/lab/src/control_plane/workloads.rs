//! Deployments and DaemonSets as plans: the workload and its pods in, pods to create and to delete out. Pure.
//!
//! A Deployment owns its pods directly; the ReplicaSet that stands between them in a real cluster is left out.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::pods::{is_active, is_ready};
use super::scheduler::fits;
use crate::api_server::Resource;
use crate::api_server::object::{
    at, child, default, fields, items, name, name_suffix, namespace, now, random, text, uid,
};

/// The label that tells pods of one template from those of another.
const HASH: &str = "pod-template-hash";

/// What to do for a workload, and what its status is to say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    /// Names.
    pub(super) delete: Vec<String>,
    pub(super) status: Value,
}

/// The plan for a Deployment. O(its pods).
pub(super) fn deployment(deployment: &Value, pods: &[&Value]) -> Plan {
    let desired = number(deployment, &["spec", "replicas"]);
    let hash = template_hash(deployment);
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let (mut current, mut old): (Vec<_>, Vec<_>) =
        active.iter().copied().partition(|pod| hash_of(pod) == hash);
    let (surge, unavailable, recreate) = strategy(deployment, desired);
    let room = if recreate && !old.is_empty() { 0 } else { (desired + surge).saturating_sub(active.len()) };
    let missing = desired.saturating_sub(current.len()).min(room);
    // Not ready ones go first, then the youngest by name order, which is as good as any.
    current.sort_by_key(|pod| (is_ready(pod), name(pod).to_owned()));
    old.sort_by_key(|pod| (is_ready(pod), name(pod).to_owned()));
    let excess = current.len().saturating_sub(desired);
    let ready = active.iter().filter(|pod| is_ready(pod)).count();
    let kept_ready = ready - current.iter().take(excess).filter(|pod| is_ready(pod)).count();
    let spare_ready = kept_ready.saturating_sub(desired.saturating_sub(unavailable));
    let unready_old = old.iter().filter(|pod| !is_ready(pod)).count();
    let retired = if recreate { old.len() } else { unready_old + spare_ready };
    let doomed = current.iter().take(excess).chain(old.iter().take(retired));
    let create = (0..missing).map(|_| {
        let name = format!("{}-{hash}-{}", name(deployment), name_suffix(random(), 5));
        pod_of(Resource::Deployments, deployment, &name, &hash)
    });
    Plan {
        create: create.collect(),
        delete: doomed.map(|pod| name(pod).to_owned()).collect(),
        status: deployment_status(
            deployment,
            &active,
            current.len(),
            ready,
            desired.saturating_sub(unavailable),
        ),
    }
}

/// Pods above and below the desired number during a change of template, and whether the old go before the new come.
fn strategy(deployment: &Value, desired: usize) -> (usize, usize, bool) {
    let recreate = text(deployment, &["spec", "strategy", "type"]) == "Recreate";
    let limit = |key: &str, round_up: bool| {
        let value = at(deployment, &["spec", "strategy", "rollingUpdate", key]);
        let percent =
            value.and_then(Value::as_str).and_then(|text| text.strip_suffix('%')?.parse::<usize>().ok());
        match (value.and_then(Value::as_u64), percent) {
            (Some(count), _) => usize::try_from(count).unwrap_or_default(),
            (None, Some(percent)) if round_up => (desired * percent).div_ceil(100),
            (None, Some(percent)) => desired * percent / 100,
            _ => 0,
        }
    };
    let (surge, unavailable) = (limit("maxSurge", true), limit("maxUnavailable", false));
    // Both zero would never move (apps/v1: resolved to one unavailable).
    (surge, if surge == 0 { unavailable.max(1) } else { unavailable }, recreate)
}

fn deployment_status(
    deployment: &Value,
    active: &[&Value],
    updated: usize,
    ready: usize,
    enough: usize,
) -> Value {
    let desired = number(deployment, &["spec", "replicas"]);
    let available = if ready >= enough { "True" } else { "False" };
    let reason = if ready >= enough { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" };
    let complete = updated == desired && ready >= desired && active.len() == desired;
    let progress = if complete { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" };
    json!({
        "observedGeneration": at(deployment, &["metadata", "generation"]),
        "replicas": active.len(), "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        "unavailableReplicas": active.len().max(desired).saturating_sub(ready),
        "conditions": [
            condition(deployment, "Available", available, reason),
            condition(deployment, "Progressing", "True", progress),
        ],
    })
}

/// A condition; its times move only when it does, so that an equal status stays equal.
fn condition(object: &Value, kind: &str, status: &str, reason: &str) -> Value {
    let before =
        items(object, &["status", "conditions"]).iter().find(|before| text(before, &["type"]) == kind);
    match before {
        Some(before) if text(before, &["status"]) == status && text(before, &["reason"]) == reason => {
            before.clone()
        }
        _ => json!({"type": kind, "status": status, "reason": reason, "message": "",
                    "lastUpdateTime": now(), "lastTransitionTime": now()}),
    }
}

/// The plan for a DaemonSet: one pod on each node it fits, old templates replaced one node at a time.
pub(super) fn daemon_set(set: &Value, pods: &[&Value], nodes: &[&Value]) -> Plan {
    let hash = template_hash(set);
    let spec = at(set, &["spec", "template", "spec"]).cloned().unwrap_or_default();
    let node_of = |pod: &Value| text(pod, &["spec", "nodeName"]).to_owned();
    let wanted: BTreeSet<String> =
        nodes.iter().filter(|node| fits(node, &spec)).map(|node| name(node).to_owned()).collect();
    // A pod winding down still holds its node's ports: its successor waits for it.
    let held: BTreeSet<String> = pods.iter().map(|pod| node_of(pod)).collect();
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let (on_wanted, stray): (Vec<&Value>, Vec<&Value>) =
        active.iter().copied().partition(|pod| wanted.contains(&node_of(pod)));
    let ready = on_wanted.iter().filter(|pod| is_ready(pod)).count();
    let old: Vec<&&Value> = on_wanted.iter().filter(|pod| hash_of(pod) != hash).collect();
    let all_up = ready == wanted.len();
    let mut seen = BTreeSet::new();
    let double = on_wanted.iter().filter(|pod| !seen.insert(node_of(pod)));
    let mut delete: BTreeSet<&str> = stray.iter().chain(double).map(|pod| name(pod)).collect();
    let ended = pods.iter().filter(|pod| super::pods::has_ended(pod));
    delete.extend(ended.map(|pod| name(pod)));
    delete.extend(old.iter().filter(|pod| !is_ready(pod)).map(|pod| name(pod)));
    delete.extend(old.iter().filter(|pod| all_up && is_ready(pod)).take(1).map(|pod| name(pod)));
    let create = wanted.difference(&held).map(|node| {
        let name = format!("{}-{}", name(set), name_suffix(random(), 5));
        let mut pod = pod_of(Resource::DaemonSets, set, &name, &hash);
        fields(child(&mut pod, "spec")).insert("nodeName".to_owned(), json!(node));
        pod
    });
    let updated = on_wanted.len() - old.len();
    let status = json!({
        "observedGeneration": at(set, &["metadata", "generation"]),
        "desiredNumberScheduled": wanted.len(), "currentNumberScheduled": on_wanted.len(),
        "numberMisscheduled": stray.len(), "numberReady": ready, "numberAvailable": ready,
        "numberUnavailable": wanted.len().saturating_sub(ready), "updatedNumberScheduled": updated,
    });
    Plan { create: create.collect(), delete: delete.into_iter().map(str::to_owned).collect(), status }
}

fn number(object: &Value, path: &[&str]) -> usize {
    at(object, path)
        .and_then(Value::as_u64)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or_default()
}

fn hash_of(pod: &Value) -> &str {
    text(pod, &["metadata", "labels", HASH])
}

/// Ten characters that change with the pod template and with nothing else.
fn template_hash(workload: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    at(workload, &["spec", "template"]).map(Value::to_string).hash(&mut hasher);
    name_suffix(hasher.finish(), 10)
}

fn pod_of(resource: Resource, workload: &Value, pod_name: &str, hash: &str) -> Value {
    let template = at(workload, &["spec", "template"]);
    let part = |key: &str| template.and_then(|template| template.get(key)).cloned().unwrap_or_default();
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": part("metadata"), "spec": part("spec")});
    let metadata = child(&mut pod, "metadata");
    fields(child(metadata, "labels")).insert(HASH.to_owned(), json!(hash));
    let owner = json!({"apiVersion": resource.api_version(), "kind": resource.definition().kind,
                       "name": name(workload), "uid": uid(workload), "controller": true, "blockOwnerDeletion": true});
    for (key, value) in [
        ("name", json!(pod_name)),
        ("namespace", json!(namespace(workload))),
        ("ownerReferences", json!([owner])),
    ] {
        fields(metadata).insert(key.to_owned(), value);
    }
    fields(metadata).remove("creationTimestamp");
    default(&mut pod, "spec", json!({}));
    pod
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;

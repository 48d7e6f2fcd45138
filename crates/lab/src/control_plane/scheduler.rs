//! Which node a pod runs on. [`choose`] is pure; the task binds pods as pods and nodes come and change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::{controller, has_condition, is_active};
use crate::api_server::object::{at, items, name, namespace, now, text};
use crate::api_server::{EventKind, Handle, Resource, WatchEvent};

/// Whether pods may be placed on the node by the scheduler: ready and not cordoned.
fn is_schedulable(node: &Value) -> bool {
    has_condition(node, "Ready") && at(node, &["spec", "unschedulable"]) != Some(&Value::Bool(true))
}

/// Whether the node has the labels the pod spec selects, and no taint it does not tolerate.
pub(super) fn fits(node: &Value, pod_spec: &Value) -> bool {
    let selector = pod_spec.get("nodeSelector").and_then(Value::as_object);
    let labels = at(node, &["metadata", "labels"]);
    let labelled = |(key, value): (&String, &Value)| labels.and_then(|labels| labels.get(key)) == Some(value);
    let tolerations = items(pod_spec, &["tolerations"]);
    let repels = |taint: &&Value| {
        matches!(text(taint, &["effect"]), "NoSchedule" | "NoExecute")
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    selector.into_iter().flatten().all(labelled)
        && !items(node, &["spec", "taints"]).iter().any(|t| repels(&t))
}

/// `core/v1` Toleration: an empty key with Exists tolerates all, an empty effect every effect.
fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let same = |key: &str| text(toleration, &[key]) == text(taint, &[key]);
    let exists = text(toleration, &["operator"]) == "Exists";
    let key = same("key") || (exists && text(toleration, &["key"]).is_empty());
    let effect = text(toleration, &["effect"]).is_empty() || same("effect");
    key && effect && (exists || same("value"))
}

/// How many pods each node runs, in all and by owner.
#[derive(Default)]
struct Load {
    by_node: BTreeMap<String, usize>,
    by_node_and_owner: BTreeMap<(String, String), usize>,
}

impl Load {
    fn of(&self, node: &str, owner: &str) -> (usize, usize) {
        let own = self.by_node_and_owner.get(&(node.to_owned(), owner.to_owned()));
        (own.copied().unwrap_or_default(), self.by_node.get(node).copied().unwrap_or_default())
    }

    fn change(&mut self, node: &str, owner: &str, add: bool) {
        let both = (node.to_owned(), owner.to_owned());
        for count in [
            self.by_node.entry(node.to_owned()).or_default(),
            self.by_node_and_owner.entry(both).or_default(),
        ] {
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}

/// The fitting node with the fewest pods of the same owner, then the fewest pods, then the first by name. O(nodes).
fn choose<'a>(nodes: &'a BTreeMap<String, Arc<Value>>, load: &Load, pod: &Value) -> Option<&'a str> {
    let owner = owner(pod);
    let spec = at(pod, &["spec"])?;
    let fitting = nodes.iter().filter(|(_, node)| is_schedulable(node) && fits(node, spec));
    fitting.min_by_key(|(name, _)| load.of(name, &owner)).map(|(name, _)| name.as_str())
}

fn owner(pod: &Value) -> String {
    controller(pod).map(|(uid, _)| uid.to_owned()).unwrap_or_default()
}

type PodKey = (String, String);

struct Scheduler {
    handle: Handle,
    nodes: BTreeMap<String, Arc<Value>>,
    load: Load,
    /// Where each counted pod runs, and for whom.
    placed: BTreeMap<PodKey, (String, String)>,
    pending: BTreeSet<PodKey>,
}

/// Places pods until the server ends.
pub(super) async fn run(handle: Handle) {
    let (nodes, mut node_events) = handle.watch(Resource::Nodes);
    let (pods, mut pod_events) = handle.watch(Resource::Pods);
    let mut scheduler = Scheduler {
        handle,
        nodes: BTreeMap::new(),
        load: Load::default(),
        placed: BTreeMap::new(),
        pending: BTreeSet::new(),
    };
    let added = |object| WatchEvent { kind: EventKind::Added, object };
    nodes.into_iter().for_each(|node| scheduler.node(&added(node)));
    pods.into_iter().for_each(|pod| scheduler.pod(&added(pod)));
    loop {
        scheduler.place();
        tokio::select! {
            Some(event) = node_events.recv() => scheduler.node(&event),
            Some(event) = pod_events.recv() => scheduler.pod(&event),
            else => return,
        }
        while let Ok(event) = pod_events.try_recv() {
            scheduler.pod(&event);
        }
    }
}

impl Scheduler {
    fn node(&mut self, event: &WatchEvent) {
        let name = name(&event.object).to_owned();
        match event.kind {
            EventKind::Deleted => {
                self.nodes.remove(&name);
                self.collect_pods_of(&name);
            }
            _ => drop(self.nodes.insert(name, event.object.clone())),
        }
    }

    /// Pods of a node that is gone have no kubelet to end them.
    fn collect_pods_of(&mut self, node: &str) {
        let stranded: Vec<_> =
            self.placed.iter().filter(|(_, (on, _))| on == node).map(|(key, _)| key.clone()).collect();
        for (namespace, name) in stranded {
            // Gone already is as good.
            let _ = self.handle.delete(Resource::Pods, Some(&namespace), &name, Some(0));
        }
    }

    fn pod(&mut self, event: &WatchEvent) {
        let pod = &event.object;
        let key = (namespace(pod).to_owned(), name(pod).to_owned());
        if let Some((node, owner)) = self.placed.remove(&key) {
            self.load.change(&node, &owner, false);
        }
        self.pending.remove(&key);
        if event.kind == EventKind::Deleted {
            return;
        }
        let node = text(pod, &["spec", "nodeName"]);
        if !node.is_empty() {
            self.count(key, node.to_owned(), owner(pod));
        } else if is_active(pod) && text(pod, &["spec", "schedulerName"]) == "default-scheduler" {
            self.pending.insert(key);
        }
    }

    fn count(&mut self, key: PodKey, node: String, owner: String) {
        self.load.change(&node, &owner, true);
        self.placed.insert(key, (node, owner));
    }

    /// Binds what can be bound; the rest waits for a node to come or change.
    fn place(&mut self) {
        for key in std::mem::take(&mut self.pending) {
            let Some(pod) = self.handle.get(Resource::Pods, Some(&key.0), &key.1) else { continue };
            if !text(&pod, &["spec", "nodeName"]).is_empty() {
                continue;
            }
            match choose(&self.nodes, &self.load, &pod).map(str::to_owned) {
                Some(node) => self.bind(key, node, &pod),
                None => drop(self.pending.insert(key)),
            }
        }
    }

    /// The condition goes before the name of the node: from the name on, the status is the kubelet's, and a merge
    /// after it could take back that the pod is ready.
    fn bind(&mut self, key: PodKey, node: String, pod: &Value) {
        let space = Some(key.0.as_str());
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now()});
        if items(pod, &["status", "conditions"]).is_empty() {
            // A pod deleted in between needs no condition.
            let _ =
                self.handle.patch_status(Resource::Pods, space, &key.1, &json!({"conditions": [scheduled]}));
        }
        let patch = json!({"spec": {"nodeName": node}});
        if let Err(error) = self.handle.patch(Resource::Pods, space, &key.1, &patch) {
            tracing::debug!(%error, namespace = key.0, pod = key.1, "not bound");
            return;
        }
        self.count(key, node, owner(pod));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, spec: Value) -> (String, Arc<Value>) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                          "spec": spec, "status": {"conditions": ready}});
        (name.to_owned(), Arc::new(node))
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"ownerReferences": [{"uid": "o", "kind": "Deployment", "controller": true}]}, "spec": spec})
    }

    #[test]
    fn owners_spread_before_nodes_fill() {
        let nodes = BTreeMap::from([node("a", json!({})), node("b", json!({}))]);
        let mut load = Load::default();
        assert_eq!(choose(&nodes, &load, &pod(json!({}))), Some("a"));
        load.change("a", "o", true);
        load.change("b", "x", true);
        load.change("b", "x", true);
        assert_eq!(choose(&nodes, &load, &pod(json!({}))), Some("b"));
    }

    #[test]
    fn unfit_nodes_take_nothing() {
        let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        for (spec, pod_spec, fits) in [
            (json!({}), json!({}), true),
            (json!({"unschedulable": true}), json!({}), false),
            (json!({}), json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}), true),
            (json!({}), json!({"nodeSelector": {"kubernetes.io/hostname": "b"}}), false),
            (taint.clone(), json!({}), false),
            (taint.clone(), json!({"tolerations": [{"operator": "Exists"}]}), true),
            (
                taint.clone(),
                json!({"tolerations": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
                true,
            ),
            (taint, json!({"tolerations": [{"key": "k", "value": "w"}]}), false),
        ] {
            let nodes = BTreeMap::from([node("a", spec.clone())]);
            let chosen = choose(&nodes, &Load::default(), &pod(pod_spec.clone()));
            assert_eq!(chosen.is_some(), fits, "{spec} {pod_spec}");
        }
        let dark = BTreeMap::from([("a".to_owned(), Arc::new(json!({})))]);
        assert_eq!(choose(&dark, &Load::default(), &pod(json!({}))), None);
    }
}

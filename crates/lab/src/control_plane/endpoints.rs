//! EndpointSlices (and the older Endpoints) of a service, as a plan: service, its pods and its present slices in,
//! changed slices out. Pure.
//!
//! Rules: `discovery.k8s.io/v1` EndpointSlice and "EndpointSlices" in the Kubernetes documentation. Present slices
//! keep their endpoints where they are, so that a change of one pod changes one slice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::pods::{addresses, has_ended, is_ready};
use crate::api_server::object::{
    at, is_deleting, items, name, name_suffix, namespace, random, set, text, uid,
};

/// `endpointslice.kubernetes.io/managed-by` of the slices this plan owns.
pub(super) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// kube-controller-manager's --max-endpoints-per-slice.
const PER_SLICE: usize = 100;
/// `core/v1` Endpoints are cut here (kube-controller-manager's maxCapacity).
const PER_ENDPOINTS: usize = 1000;

/// What to write.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) update: Vec<Value>,
    /// Names.
    pub(super) delete: Vec<String>,
}

/// What tells slices of one service apart: address type and ports (JSON text, to be ordered).
type Group = (&'static str, String);

/// Whether slices are derived for the service at all: it selects, and it is no alias.
pub(super) fn is_planned(service: &Value) -> bool {
    let selector = at(service, &["spec", "selector"]).and_then(Value::as_object);
    selector.is_some_and(|selector| !selector.is_empty())
        && text(service, &["spec", "type"]) != "ExternalName"
}

/// The slices to write for a service. O(its pods and slices).
pub(super) fn slices(service: &Value, pods: &[&Value], present: &[&Value]) -> Plan {
    let mut wanted = wanted(service, pods);
    let mut plan = Plan::default();
    let mut idle: Vec<&Value> = Vec::new();
    let mut kept: BTreeMap<Group, Vec<(&Value, Vec<Value>)>> = BTreeMap::new();
    for slice in present {
        match wanted.get_mut(&group_of(slice)) {
            Some(endpoints) => {
                let stay = items(slice, &["endpoints"])
                    .iter()
                    .filter_map(|endpoint| endpoints.remove(&key(endpoint)));
                let stay = stay.collect();
                kept.entry(group_of(slice)).or_default().push((slice, stay));
            }
            None => idle.push(slice),
        }
    }
    for (group, rest) in wanted {
        let mut rest = rest.into_values();
        let mut members = kept.remove(&group).unwrap_or_default();
        for (_, endpoints) in &mut members {
            let room = PER_SLICE.saturating_sub(endpoints.len());
            endpoints.extend(rest.by_ref().take(room));
        }
        let any = members.iter().any(|(_, endpoints)| !endpoints.is_empty());
        let mut place_kept = false;
        for (slice, endpoints) in members {
            // The last empty slice of a group stays: it says that nothing serves.
            if endpoints.is_empty() && (any || std::mem::replace(&mut place_kept, true)) {
                idle.push(slice);
            } else if items(slice, &["endpoints"]) != endpoints {
                plan.update.push(with_endpoints(slice, endpoints));
            }
        }
        let more: Vec<Value> = rest.collect();
        if more.is_empty() && !any && !place_kept {
            plan.create.push(slice(service, &group, Vec::new()));
        }
        plan.create.extend(more.chunks(PER_SLICE).map(|chunk| slice(service, &group, chunk.to_vec())));
    }
    plan.delete.extend(idle.into_iter().map(|slice| name(slice).to_owned()));
    plan
}

fn with_endpoints(slice: &Value, endpoints: Vec<Value>) -> Value {
    let mut slice = slice.clone();
    if let Some(fields) = slice.as_object_mut() {
        fields.insert("endpoints".to_owned(), Value::Array(endpoints));
    }
    slice
}

fn key(endpoint: &Value) -> String {
    items(endpoint, &["addresses"]).first().and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn group_of(slice: &Value) -> Group {
    let family = if text(slice, &["addressType"]) == "IPv6" { "IPv6" } else { "IPv4" };
    (family, at(slice, &["ports"]).map_or_else(|| "[]".to_owned(), Value::to_string))
}

/// The endpoints by group and address. A family nothing serves in still has a group, without ports.
fn wanted(service: &Value, pods: &[&Value]) -> BTreeMap<Group, BTreeMap<String, Value>> {
    let mut groups: BTreeMap<Group, BTreeMap<String, Value>> = BTreeMap::new();
    for family in items(service, &["spec", "ipFamilies"]) {
        let family = if family == "IPv6" { "IPv6" } else { "IPv4" };
        let mut any = false;
        for pod in pods.iter().filter(|pod| !has_ended(pod)) {
            let Some(address) = addresses(pod).find(|address| address.is_ipv4() == (family == "IPv4")) else {
                continue;
            };
            any = true;
            let ports = Value::Array(ports(service, pod)).to_string();
            let endpoint = endpoint(service, pod, &address.to_string());
            groups.entry((family, ports)).or_default().insert(address.to_string(), endpoint);
        }
        if !any {
            groups.entry((family, "[]".to_owned())).or_default();
        }
    }
    groups
}

/// The service's ports as this pod serves them; a named target port the pod does not have is left out.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let resolve = |port: &Value| {
        let protocol = text(port, &["protocol"]);
        let target = port.get("targetPort").or_else(|| port.get("port"))?;
        let number = match target.as_str() {
            Some(wanted) => container_port(pod, wanted, protocol)?,
            None => target.clone(),
        };
        let mut resolved = json!({"name": text(port, &["name"]), "port": number, "protocol": protocol});
        if let Some(application) = port.get("appProtocol") {
            set(&mut resolved, "appProtocol", application.clone());
        }
        Some(resolved)
    };
    items(service, &["spec", "ports"]).iter().filter_map(resolve).collect()
}

fn container_port(pod: &Value, wanted: &str, protocol: &str) -> Option<Value> {
    let containers = items(pod, &["spec", "containers"]).iter();
    let mut ports = containers.flat_map(|container| items(container, &["ports"]));
    let port = ports.find(|port| text(port, &["name"]) == wanted && text(port, &["protocol"]) == protocol)?;
    port.get("containerPort").cloned()
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let (serving, terminating) = (is_ready(pod), is_deleting(pod));
    let ready = publishes_all(service) || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target(pod),
    });
    let node = text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        set(&mut endpoint, "nodeName", json!(node));
    }
    let hostname = text(pod, &["spec", "hostname"]);
    if !hostname.is_empty() && text(pod, &["spec", "subdomain"]) == name(service) {
        set(&mut endpoint, "hostname", json!(hostname));
    }
    endpoint
}

fn publishes_all(service: &Value) -> bool {
    at(service, &["spec", "publishNotReadyAddresses"]) == Some(&Value::Bool(true))
}

fn target(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)})
}

fn slice(service: &Value, group: &Group, endpoints: Vec<Value>) -> Value {
    let ports: Value = serde_json::from_str(&group.1).unwrap_or_default();
    let mut labels =
        at(service, &["metadata", "labels"]).and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert("kubernetes.io/service-name".to_owned(), json!(name(service)));
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), json!(MANAGED_BY));
    let owner = json!({"apiVersion": "v1", "kind": "Service", "name": name(service), "uid": uid(service),
                       "controller": true, "blockOwnerDeletion": true});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{}-{}", name(service), name_suffix(random(), 5)),
                     "namespace": namespace(service), "labels": labels, "ownerReferences": [owner]},
        "addressType": group.0, "ports": ports, "endpoints": endpoints,
    })
}

/// The `core/v1` Endpoints of a service: its primary family, which older clients read.
pub(super) fn endpoints(service: &Value, pods: &[&Value]) -> Value {
    let is_ipv4 = items(service, &["spec", "ipFamilies"]).first().is_none_or(|family| family == "IPv4");
    let mut subsets: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !has_ended(pod)).take(PER_ENDPOINTS) {
        let all = publishes_all(service);
        let Some(address) = addresses(pod).find(|address| address.is_ipv4() == is_ipv4) else { continue };
        if (is_deleting(pod) && !all) || !seen.insert(address) {
            continue;
        }
        let mut entry = json!({"ip": address, "targetRef": target(pod)});
        if !text(pod, &["spec", "nodeName"]).is_empty() {
            set(&mut entry, "nodeName", json!(text(pod, &["spec", "nodeName"])));
        }
        let (ready, not_ready) = subsets.entry(Value::Array(ports(service, pod)).to_string()).or_default();
        if all || is_ready(pod) { ready.push(entry) } else { not_ready.push(entry) }
    }
    let subset = |(ports, (ready, not_ready)): (String, (Vec<Value>, Vec<Value>))| {
        let ports: Value = serde_json::from_str(&ports).unwrap_or_default();
        let mut subset = json!({ "ports": ports });
        for (key, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            if !list.is_empty() {
                set(&mut subset, key, Value::Array(list));
            }
        }
        subset
    };
    let labels = at(service, &["metadata", "labels"]).cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Endpoints",
           "metadata": {"name": name(service), "namespace": namespace(service), "labels": labels},
           "subsets": subsets.into_iter().map(subset).collect::<Vec<_>>()})
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;

//! What controllers ask of a pod. Pure.

use std::net::IpAddr;

use serde_json::Value;

use crate::api_server::object::{at, is_deleting, items, text};

/// Whether the pod's containers have ended for good.
pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Whether the pod counts towards its owner's replicas.
pub(super) fn is_active(pod: &Value) -> bool {
    !is_deleting(pod) && !has_ended(pod)
}

/// The pod's Ready condition.
pub(super) fn is_ready(pod: &Value) -> bool {
    has_condition(pod, "Ready")
}

/// Whether `status.conditions` has this one as True.
pub(super) fn has_condition(object: &Value, kind: &str) -> bool {
    items(object, &["status", "conditions"])
        .iter()
        .any(|condition| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True")
}

/// The pod's addresses, primary first.
pub(super) fn addresses(pod: &Value) -> impl Iterator<Item = IpAddr> + use<'_> {
    let listed = items(pod, &["status", "podIPs"]);
    let single = if listed.is_empty() { at(pod, &["status", "podIP"]) } else { None };
    let texts = listed.iter().map(|entry| text(entry, &["ip"])).chain(single.and_then(Value::as_str));
    texts.filter_map(|address| address.parse().ok())
}

/// The uid and kind of the controller that owns the object.
pub(super) fn controller(object: &Value) -> Option<(&str, &str)> {
    let owners = items(object, &["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    Some((text(owner, &["uid"]), text(owner, &["kind"])))
}

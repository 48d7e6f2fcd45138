//! The `scale` subresource: `autoscaling/v1` Scale to and from a workload's replicas. Pure.

use serde_json::{Value, json};

use crate::api_server::object::{at, fields, name, namespace, text};

/// The Scale of a workload.
pub(super) fn of(workload: &Value) -> Value {
    let replicas = |path: &[&str]| at(workload, path).and_then(Value::as_i64).unwrap_or_default();
    let labels = at(workload, &["spec", "selector", "matchLabels"]).and_then(Value::as_object);
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": name(workload), "namespace": namespace(workload),
                     "uid": text(workload, &["metadata", "uid"]),
                     "resourceVersion": text(workload, &["metadata", "resourceVersion"]),
                     "creationTimestamp": text(workload, &["metadata", "creationTimestamp"])},
        "spec": {"replicas": replicas(&["spec", "replicas"])},
        "status": {"replicas": replicas(&["status", "replicas"]), "selector": pairs.collect::<Vec<_>>().join(",")},
    })
}

/// The workload with a Scale's replicas, and its resourceVersion if it names one.
pub(super) fn onto(workload: &Value, scale: &Value) -> Value {
    let mut scaled = workload.clone();
    if let Some(replicas) = at(scale, &["spec", "replicas"]) {
        fields(crate::api_server::object::child(&mut scaled, "spec"))
            .insert("replicas".to_owned(), replicas.clone());
    }
    let version = text(scale, &["metadata", "resourceVersion"]);
    if !version.is_empty() {
        crate::api_server::object::set_metadata(&mut scaled, "resourceVersion", json!(version));
    }
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_goes_out_and_comes_back() {
        let workload = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}});
        let mut scale = of(&workload);
        assert_eq!(scale["status"]["selector"], "a=b");
        scale["spec"]["replicas"] = json!(5);
        assert_eq!(onto(&workload, &scale)["spec"]["replicas"], 5);
    }
}

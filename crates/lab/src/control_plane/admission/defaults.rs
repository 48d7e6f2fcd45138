//! Defaults of every kind but Service, as the API conventions of each kind document them. Pure.

use serde_json::{Value, json};

use crate::api_server::Resource;
use crate::api_server::object::{self, child, default, items, name};

/// Fills in what the object leaves out.
pub(super) fn complete(resource: Resource, object: &mut Value) {
    match resource {
        Resource::Namespaces => namespace(object),
        Resource::Pods => {
            pod_spec(child(object, "spec"));
            default(child(object, "status"), "phase", "Pending");
            default(child(object, "status"), "qosClass", "BestEffort");
        }
        Resource::Deployments => deployment(child(object, "spec")),
        Resource::DaemonSets => daemon_set(child(object, "spec")),
        Resource::ReplicaSets => {
            default(child(object, "spec"), "replicas", 1);
            pod_spec(child(child(child(object, "spec"), "template"), "spec"));
        }
        Resource::NetworkPolicies => network_policy(child(object, "spec")),
        Resource::EndpointSlices => {
            for port in list(object, "ports") {
                default(port, "name", "");
                default(port, "protocol", "TCP");
            }
        }
        Resource::Endpoints => {
            for port in list(object, "subsets").flat_map(|subset| list(subset, "ports")) {
                default(port, "protocol", "TCP");
            }
        }
        Resource::Secrets => default(object, "type", "Opaque"),
        _ => {}
    }
}

/// The elements of a list field; none if it is no list.
pub(super) fn list<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

fn namespace(object: &mut Value) {
    let label = json!(name(object));
    let labels = child(child(object, "metadata"), "labels");
    object::fields(labels).insert("kubernetes.io/metadata.name".to_owned(), label);
    default(child(object, "status"), "phase", "Active");
    if !object::is_deleting(object) {
        default(child(object, "spec"), "finalizers", json!(["kubernetes"]));
    }
}

fn pod_spec(spec: &mut Value) {
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
    ] {
        default(spec, key, value);
    }
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for key in ["containers", "initContainers"] {
        for port in list(spec, key).flat_map(|container| list(container, "ports")) {
            default(port, "protocol", "TCP");
            if let (true, Some(number)) = (host_network, port.get("containerPort").cloned()) {
                default(port, "hostPort", number);
            }
        }
    }
}

fn deployment(spec: &mut Value) {
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    default(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        default(child(strategy, "rollingUpdate"), "maxSurge", "25%");
        default(child(strategy, "rollingUpdate"), "maxUnavailable", "25%");
    }
    pod_spec(child(child(spec, "template"), "spec"));
}

fn daemon_set(spec: &mut Value) {
    default(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    pod_spec(child(child(spec, "template"), "spec"));
}

/// `networking.k8s.io/v1`: a policy without policyTypes is for ingress, and for egress if it has egress rules.
fn network_policy(spec: &mut Value) {
    if items(spec, &["policyTypes"]).is_empty() {
        let egress = !items(spec, &["egress"]).is_empty();
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        object::fields(spec).insert("policyTypes".to_owned(), types);
    }
    for direction in ["ingress", "egress"] {
        for port in list(spec, direction).flat_map(|rule| list(rule, "ports")) {
            default(port, "protocol", "TCP");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(resource: Resource, mut object: Value) -> Value {
        complete(resource, &mut object);
        object
    }

    #[test]
    fn policy_types_follow_the_rules_given() {
        for (spec, types) in [
            (json!({"podSelector": {}}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"egress": []}), json!(["Ingress"])),
            (json!({"policyTypes": ["Egress"]}), json!(["Egress"])),
        ] {
            let policy = completed(Resource::NetworkPolicies, json!({ "spec": spec }));
            assert_eq!(policy["spec"]["policyTypes"], types, "{policy}");
        }
        let policy = json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}});
        let policy = completed(Resource::NetworkPolicies, policy);
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn pods_and_templates_get_the_same_defaults() {
        let spec = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]});
        let pod = completed(Resource::Pods, json!({ "spec": spec }));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(pod["status"]["phase"], "Pending");
        let deployment = completed(Resource::Deployments, json!({"spec": {"template": {"spec": spec}}}));
        assert_eq!(deployment["spec"]["template"]["spec"], pod["spec"]);
        assert_eq!(deployment["spec"]["replicas"], 1);
    }

    #[test]
    fn completing_twice_changes_nothing() {
        for resource in Resource::ALL {
            let once = completed(resource, json!({"metadata": {"name": "a"}}));
            assert_eq!(completed(resource, once.clone()), once, "{resource:?}");
        }
    }

    #[test]
    fn namespaces_carry_their_name_as_a_label() {
        let space = completed(Resource::Namespaces, json!({"metadata": {"name": "a"}}));
        assert_eq!(space["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
        assert_eq!(space["status"]["phase"], "Active");
    }
}

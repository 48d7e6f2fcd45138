//! The rules of the API text that the end-to-end cases do not touch.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking, too")]

use serde_json::{Value, json};

use super::*;

fn pod(namespace: &str, name: &str, ip: &str, more: Value) -> Arc<Value> {
    let mut pod = json!({
        "metadata": { "namespace": namespace, "name": name, "labels": { "pod": name } },
        "spec": { "containers": [{ "ports": [{ "name": "web", "containerPort": 80, "protocol": "TCP" }] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": ip }], "hostIPs": [{ "ip": "192.0.2.1" }] },
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    Arc::new(pod)
}

/// Pods x/a (10.0.0.1), x/b (10.0.0.2), y/a (10.0.0.3) and one policy in x.
fn world(spec: Value) -> Objects {
    let space = |name: &str| Arc::new(json!({ "metadata": { "name": name, "labels": { "ns": name } } }));
    let policy = json!({ "metadata": { "namespace": "x", "name": "p" }, "spec": spec });
    Objects {
        pods: vec![
            pod("x", "a", "10.0.0.1", json!({})),
            pod("x", "b", "10.0.0.2", json!({})),
            pod("y", "a", "10.0.0.3", json!({})),
        ],
        namespaces: vec![space("x"), space("y")],
        policies: vec![Arc::new(policy)],
    }
}

fn passes(objects: &Objects, from: &str, to: &str, port: u16) -> bool {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    objects.allows(&Packet { from, to, protocol: Protocol::Tcp, port })
}

#[test]
fn a_pod_is_reached_from_its_own_node_and_no_other() {
    let objects = world(json!({ "podSelector": {}, "policyTypes": ["Ingress"] }));
    assert!(passes(&objects, "192.0.2.1", "10.0.0.1", 80));
    assert!(!passes(&objects, "192.0.2.2", "10.0.0.1", 80));
    assert!(passes(&objects, "192.0.2.2", "10.0.0.3", 80));
}

#[test]
fn ports_are_ranges_with_both_ends() {
    let ports = json!([{ "protocol": "TCP", "port": 80, "endPort": 82 }]);
    let objects =
        world(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "ports": ports }] }));
    let open: Vec<u16> = (79..=83).filter(|port| passes(&objects, "10.0.0.3", "10.0.0.1", *port)).collect();
    assert_eq!(open, [80, 81, 82]);
}

#[test]
fn a_named_port_is_the_receivers() {
    let ports = json!([{ "protocol": "TCP", "port": "web" }]);
    let mut objects =
        world(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": ports }] }));
    assert!(passes(&objects, "10.0.0.1", "10.0.0.3", 80));
    assert!(!passes(&objects, "10.0.0.1", "10.0.0.3", 81));
    assert!(!passes(&objects, "10.0.0.1", "203.0.113.1", 80), "an address that is no pod's has no names");
    let ports = json!([{ "name": "web", "containerPort": 81, "protocol": "TCP" }]);
    objects.pods[2] = pod("y", "a", "10.0.0.3", json!({ "/spec/containers": [{ "ports": ports }] }));
    assert!(passes(&objects, "10.0.0.1", "10.0.0.3", 81));
    let sidecar = json!([{ "restartPolicy": "Always", "ports": [{ "name": "web", "containerPort": 82, "protocol": "TCP" }] }]);
    objects.pods[2] = pod("y", "a", "10.0.0.3", json!({ "/spec/initContainers": sidecar }));
    assert!(passes(&objects, "10.0.0.1", "10.0.0.3", 82));
}

#[test]
fn pods_on_the_host_and_ended_ones_are_no_pods() {
    let from = json!([{ "podSelector": {} }]);
    let mut objects =
        world(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "from": from }] }));
    assert!(passes(&objects, "10.0.0.2", "10.0.0.1", 80));
    objects.pods[1] = pod("x", "b", "10.0.0.2", json!({ "/spec/hostNetwork": true }));
    assert!(!passes(&objects, "10.0.0.2", "10.0.0.1", 80), "not a peer");
    assert!(passes(&objects, "10.0.0.1", "10.0.0.2", 80), "not a target");
    objects.pods[1] = pod("x", "b", "10.0.0.2", json!({ "/status/phase": "Succeeded" }));
    assert!(!passes(&objects, "10.0.0.2", "10.0.0.1", 80));
}

#[test]
fn an_exception_is_its_own_blocks() {
    let from = json!([
        { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.0.0/30"] } },
        { "ipBlock": { "cidr": "10.0.0.2/32" } },
    ]);
    let objects =
        world(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "from": from }] }));
    assert!(passes(&objects, "10.0.0.2", "10.0.0.1", 80));
    assert!(!passes(&objects, "10.0.0.3", "10.0.0.1", 80));
    assert!(passes(&objects, "10.0.0.4", "10.0.0.1", 80));
}

#[test]
fn what_is_not_valid_matches_nothing() {
    for peer in [
        json!({}),
        json!({ "ipBlock": { "cidr": "10.0.0.0/33" } }),
        json!({ "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "Like", "values": ["b"] }] } }),
    ] {
        let rule = json!([{ "from": [peer] }]);
        let objects = world(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rule }));
        assert!(!passes(&objects, "10.0.0.2", "10.0.0.1", 80), "{rule}");
    }
}

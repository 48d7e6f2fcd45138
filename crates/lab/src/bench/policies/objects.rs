//! The cluster in which network policy is measured: 10 namespaces, 100 apps in each, pods spread over them, 100 pods on
//! the node. Pure.
//!
//! Each policy selects one app of one namespace. It lets in the next app, everyone of the next namespace, and a block with
//! an exception, and lets out to one more app.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

pub(super) use crate::bench::objects::{NODE, NODE_ADDRESS};

/// How many there are.
pub(super) const NAMESPACES: usize = 10;
const APPS: usize = 100;
/// Pods on the node.
const HERE: usize = 100;
/// Where they are.
pub(super) const PODS_HERE: &str = "10.244.1.0/24";

const ELSEWHERE: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const NEWCOMERS: u32 = u32::from_be_bytes([10, 200, 0, 0]);

/// The `number`th namespace.
pub(super) fn namespace(number: usize) -> Value {
    json!({ "metadata": { "name": format!("ns-{number}"), "labels": { "team": format!("team-{number}") } } })
}

/// The `number`th of `all` pods; every so many of them is on the node.
pub(super) fn pod(number: usize, all: usize) -> Value {
    let here = here(number, all);
    let ip = match here {
        Some(index) => Ipv4Addr::new(10, 244, 1, u8::try_from(index + 2).unwrap_or(u8::MAX)),
        None => Ipv4Addr::from(ELSEWHERE + u32::try_from(number).unwrap_or_default()),
    };
    let node = if here.is_some() { NODE } else { "node-2" };
    described(&format!("pod-{number:05}"), number % NAMESPACES, number / NAMESPACES % APPS, node, ip)
}

/// Which of the node's pods it is. They are of as many different apps and namespaces as possible.
fn here(number: usize, all: usize) -> Option<usize> {
    let stride = (all / HERE).max(NAMESPACES);
    let index = number / stride;
    let apps = (stride / NAMESPACES).max(1);
    let offset = index % NAMESPACES + NAMESPACES * (index / NAMESPACES % apps);
    (index < HERE && number % stride == offset).then_some(index)
}

/// The `number`th pod that becomes a peer of the policies of the node's first pod.
pub(super) fn newcomer(number: usize) -> Value {
    described(&format!("new-{number:05}"), 0, 1, "node-2", newcomer_ip(number))
}

/// Its address.
pub(super) fn newcomer_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(NEWCOMERS + u32::try_from(number).unwrap_or_default())
}

/// A pod with what a real one carries, as far as anybody here looks at it.
fn described(name: &str, namespace: usize, app: usize, node: &str, ip: Ipv4Addr) -> Value {
    let ip = ip.to_string();
    json!({
        "metadata": {
            "name": name, "namespace": format!("ns-{namespace}"),
            "labels": { "app": format!("app-{app}"), "pod-template-hash": "6d4cf56db6" },
            "annotations": { "example.com/owner": "team-bench" },
        },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "c", "image": "registry.example.com/app:1",
                             "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }] }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// The `number`th policy.
pub(super) fn policy(number: usize) -> Value {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % APPS);
    let labels = |app: usize| json!({ "matchLabels": { "app": format!("app-{}", app % APPS) } });
    let (third, fourth) = (number / 200 % 200, number % 200);
    json!({
        "metadata": { "name": format!("policy-{number:05}"), "namespace": format!("ns-{namespace}") },
        "spec": {
            "podSelector": labels(app),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    { "podSelector": labels(app + 1) },
                    { "namespaceSelector": { "matchLabels": { "team": format!("team-{}", (namespace + 1) % NAMESPACES) } } },
                    { "ipBlock": { "cidr": format!("172.{}.{fourth}.0/24", 64 + third % 64),
                                   "except": [format!("172.{}.{fourth}.16/28", 64 + third % 64)] } },
                ],
                "ports": [{ "protocol": "TCP", "port": 8080 }, { "protocol": "TCP", "port": 443 }],
            }],
            "egress": [{ "to": [{ "podSelector": labels(app + 2) }], "ports": [{ "protocol": "TCP", "port": 5432 }] }],
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hundred_pods_are_on_the_node_and_of_different_apps() {
        for all in [1_000, 4_000, 20_000] {
            let pods: Vec<Value> = (0..all).map(|number| pod(number, all)).collect();
            let here: Vec<&Value> = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE).collect();
            let apps: BTreeSet<String> = here
                .iter()
                .map(|pod| format!("{} {}", pod["metadata"]["namespace"], pod["metadata"]["labels"]["app"]))
                .collect();
            assert_eq!((here.len(), apps.len()), (100, 100), "{all}");
            let first = &here[0]["metadata"];
            assert_eq!((&first["namespace"], &first["labels"]["app"]), (&json!("ns-0"), &json!("app-0")));
            let ips: BTreeSet<String> = pods.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
            assert_eq!(ips.len(), all);
        }
    }
}

//! Changes by the hundred that never mean anything to the pairs that [`crate::gaps`] probes: policies, pods and namespaces come
//! and go, and labels change, so that every set, chain and jump on the nodes does.

use lab::api_server::Resource;
use serde_json::{Value, json};

use crate::stage::Stage;

/// The same policy in four spellings: what it means for those pairs never changes.
pub(crate) fn base(number: usize) -> Value {
    let b = json!({ "matchLabels": { "pod": "b" } });
    let others = json!({ "matchLabels": { "role": format!("client-{}", number % 7) } });
    let peer = match number % 4 {
        0 => json!([{ "namespaceSelector": {}, "podSelector": b }]),
        1 => {
            json!([{ "namespaceSelector": {}, "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "In", "values": ["b", format!("no-{number}")] }] } }])
        }
        2 => {
            json!([{ "podSelector": b }, { "namespaceSelector": { "matchLabels": { "ns": "y" } }, "podSelector": b }])
        }
        _ => json!([{ "namespaceSelector": {}, "podSelector": b }, { "podSelector": others }]),
    };
    // z/b is left out by its label, whatever else it is.
    let peers: Vec<Value> = peer
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| {
            let mut peer = peer.clone();
            let expression = json!([{ "key": "banned", "operator": "DoesNotExist" }]);
            let own = peer["podSelector"]["matchExpressions"].as_array().cloned().unwrap_or_default();
            let all: Vec<Value> = own.into_iter().chain(expression.as_array().unwrap().clone()).collect();
            peer["podSelector"]["matchExpressions"] = json!(all);
            peer
        })
        .collect();
    let port = number % 3 + 8000;
    json!({
        "podSelector": { "matchLabels": { "pod": "a" } },
        "ingress": [{ "from": peers }, { "from": [{ "podSelector": {} }], "ports": [{ "port": port }] }],
    })
}

/// A pod on a lab node comes, or one that came four laps ago goes: the chains that lead to pods change under the probes. A
/// policy isolates it, in a namespace that must be there for it to come.
fn guest(stage: &Stage<'_>, lap: usize, comes: bool) {
    let api = &stage.api;
    if !comes {
        let _ = api.delete(Resource::Pods, Some("far"), &format!("guest-{}", (lap + 4) % 8), None);
        return;
    }
    let name = format!("guest-{}", lap % 8);
    let metadata = json!({ "namespace": "far", "name": name, "labels": { "pod": "b", "role": "guest" } });
    let spec = json!({
        "nodeName": format!("node-{}", lap % 3 + 1), "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "c", "image": "lab" }],
    });
    let _ = api.create(Resource::Pods, json!({ "metadata": metadata, "spec": spec }));
    let spec = json!({
        "podSelector": { "matchLabels": { "role": "guest" } }, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "lap": lap.to_string() } } }] }],
    });
    let policy =
        json!({ "metadata": { "namespace": "far", "name": format!("guests-{}", lap % 2) }, "spec": spec });
    if api.update(Resource::NetworkPolicies, policy.clone()).is_err() {
        let _ = api.create(Resource::NetworkPolicies, policy);
    }
}

/// A namespace comes, with a pod that policies may name as a peer, or goes with it two laps later.
fn passing_namespace(stage: &Stage<'_>, lap: usize) {
    let api = &stage.api;
    let _ = api.delete(Resource::Namespaces, None, &format!("passing-{}", (lap + 2) % 4), None);
    let name = format!("passing-{}", lap % 4);
    let ns = ["y", "passing"][lap % 2];
    let labels = json!({ "ns": ns });
    if api.create(Resource::Namespaces, json!({ "metadata": { "name": name, "labels": labels } })).is_err() {
        return;
    }
    let spec = json!({ "nodeName": "node-9", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }] });
    let pod =
        json!({ "metadata": { "namespace": name, "name": "b", "labels": { "pod": "b" } }, "spec": spec });
    if api.create(Resource::Pods, pod).is_ok() {
        let ips = json!([{ "ip": format!("10.98.{}.{}", lap / 200 % 200, lap % 200 + 1) }, { "ip": format!("fd98:1::{:x}", lap + 1) }]);
        let status =
            json!({ "phase": "Running", "podIPs": ips, "podIP": ips[0]["ip"], "hostIP": "172.31.0.99" });
        let _ = api.patch_status(Resource::Pods, Some(&name), "b", &status);
    }
}

/// One change of many: policies edited, added, removed; pods come and go as peers and on the nodes themselves; labels of
/// pods and namespaces; namespaces come and go.
pub(crate) fn change(stage: &Stage<'_>, number: usize) {
    let api = &stage.api;
    let lap = number / 11;
    match number % 11 {
        0 => stage.policy("x", "base", base(lap)),
        1 => {
            let spec = json!({
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "role": format!("client-{lap}") } } }] },
                            // Everyone else in the namespace stays reachable and may talk.
                            { "from": [{ "namespaceSelector": {}, "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "In", "values": ["b"] }, { "key": "banned", "operator": "DoesNotExist" }] } }] }],
                "egress": [{}],
            });
            stage.policy("x", &format!("extra-{}", lap % 5), spec);
        }
        2 => {
            let name = format!("extra-{}", (lap + 3) % 5);
            // Not yet there in the first laps.
            let _ = api.delete(Resource::NetworkPolicies, Some("x"), &name, None);
        }
        3 => {
            // A peer on a node that is no lab node: for policies it is as good as any.
            let name = format!("far-{}", lap % 40);
            let labels = json!({ "pod": "b", "role": format!("client-{}", lap % 7) });
            let spec = json!({ "nodeName": "node-9", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }] });
            let pod =
                json!({ "metadata": { "namespace": "far", "name": name, "labels": labels }, "spec": spec });
            if api.create(Resource::Pods, pod).is_ok() {
                let ips = json!([{ "ip": format!("10.99.{}.{}", lap / 200 % 200, lap % 200 + 1) }, { "ip": format!("fd99::{:x}", lap + 1) }]);
                let status = json!({ "phase": "Running", "podIPs": ips, "podIP": ips[0]["ip"], "hostIP": "172.31.0.99" });
                api.patch_status(Resource::Pods, Some("far"), &name, &status).unwrap();
            }
        }
        4 => {
            let _ = api.delete(Resource::Pods, Some("far"), &format!("far-{}", (lap + 20) % 40), None);
        }
        5 => {
            let labels = json!({ "metadata": { "labels": { "role": format!("client-{}", number % 5) } } });
            api.patch(Resource::Pods, Some("x"), "b", &labels).unwrap();
        }
        6 => {
            let labels = json!({ "metadata": { "labels": { "lap": lap.to_string() } } });
            api.patch(Resource::Namespaces, None, ["x", "y", "z"][lap % 3], &labels).unwrap();
        }
        7 => guest(stage, lap, true),
        8 => guest(stage, lap, false),
        9 => passing_namespace(stage, lap),
        _ => {
            let spec =
                json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Ingress"] });
            match lap % 2 {
                0 => stage.policy("x", "deny", spec),
                _ => drop(api.delete(Resource::NetworkPolicies, Some("x"), "deny", None)),
            }
        }
    }
}

//! What the API text says of one packet, object by object, without any index.
//!
//! Written from the reference of networking.k8s.io/v1 NetworkPolicy and `metav1.LabelSelector` alone; it shares no code
//! with the agent.

use std::net::IpAddr;

use serde_json::Value;

use super::world::World;

/// The first packet of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// As the API writes it; none for a protocol without ports.
    pub(crate) protocol: Option<&'a str>,
    pub(crate) port: u16,
}

/// Whether egress policies let it leave, and ingress policies let it in. The node's own exemptions are not the API's.
pub(crate) fn allowed(world: &World, packet: Packet<'_>) -> (bool, bool) {
    // "A Pod cannot block access to itself"
    if packet.source == packet.destination {
        return (true, true);
    }
    (passes(world, packet, "egress"), passes(world, packet, "ingress"))
}

fn passes(world: &World, packet: Packet<'_>, way: &str) -> bool {
    let own = if way == "ingress" { packet.destination } else { packet.source };
    let pods: Vec<_> = pods_at(world, own).collect();
    let selecting: Vec<(&String, &Value)> = world
        .policies
        .iter()
        .filter(|((namespace, _), policy)| {
            let selects = |(of, pod): &(&String, &Value)| {
                *of == namespace && selected(&policy["spec"]["podSelector"], labels(pod))
            };
            pods.iter().any(selects) && is_of_type(policy, way)
        })
        .map(|((namespace, _), policy)| (namespace, policy))
        .collect();
    // "By default, all traffic is allowed … if there are no NetworkPolicies selecting the pod"
    selecting.is_empty()
        || selecting.iter().any(|(namespace, policy)| {
            let rules = policy["spec"][way].as_array();
            rules.into_iter().flatten().any(|rule| permits(world, namespace, rule, packet, way))
        })
}

/// "policies that contain an egress section are assumed to affect egress, and all policies … are assumed to affect ingress"
fn is_of_type(policy: &Value, way: &str) -> bool {
    let spec = &policy["spec"];
    let types: Vec<&str> =
        spec["policyTypes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if types.is_empty() {
        let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
        return way == "ingress" || egress;
    }
    types.contains(&if way == "ingress" { "Ingress" } else { "Egress" })
}

fn permits(world: &World, namespace: &str, rule: &Value, packet: Packet<'_>, way: &str) -> bool {
    let (peers, peer) = match way {
        "ingress" => (&rule["from"], packet.source),
        _ => (&rule["to"], packet.destination),
    };
    let ports = rule["ports"].as_array().filter(|ports| !ports.is_empty());
    let at_port = |receiver: Option<&Value>| {
        ports.is_none_or(|ports| ports.iter().any(|port| is_at(port, receiver, packet)))
    };
    let anywhere = || at_port(None) || pods_at(world, packet.destination).any(|(_, pod)| at_port(Some(pod)));
    // "If this field is empty or missing, this rule matches all sources"
    let Some(peers) = peers.as_array().filter(|peers| !peers.is_empty()) else { return anywhere() };
    peers.iter().any(|one| {
        if let Some(block) = one["ipBlock"].as_object() {
            let within = |net: &Value| net.as_str().is_some_and(|net| contains(net, peer));
            let excepts = block.get("except").and_then(Value::as_array);
            let excepted = excepts.into_iter().flatten().any(within);
            return within(&block["cidr"]) && !excepted && anywhere();
        }
        pods_at(world, peer).any(|(of, pod)| {
            let in_namespace = match &one["namespaceSelector"] {
                Value::Null => of == namespace,
                selector => world.namespaces.get(of).is_some_and(|object| selected(selector, labels(object))),
            };
            let chosen = one["podSelector"].is_null() || selected(&one["podSelector"], labels(pod));
            let reached = if way == "egress" { at_port(Some(pod)) } else { anywhere() };
            in_namespace && chosen && reached
        })
    })
}

fn is_at(port: &Value, receiver: Option<&Value>, packet: Packet<'_>) -> bool {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    if packet.protocol != Some(protocol) {
        return false;
    }
    match &port["port"] {
        Value::Null => true,
        Value::Number(first) => {
            let first = first.as_u64().unwrap();
            let last = port["endPort"].as_u64().unwrap_or(first);
            (first..=last).contains(&u64::from(packet.port))
        }
        name => {
            let containers = |list: &str| {
                receiver.and_then(|pod| pod["spec"][list].as_array()).cloned().unwrap_or_default()
            };
            let sidecars =
                containers("initContainers").into_iter().filter(|c| c["restartPolicy"] == "Always");
            let all = containers("containers").into_iter().chain(sidecars);
            let mut ports = all.flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default());
            ports.any(|port| {
                port["name"] == *name
                    && port["protocol"].as_str().unwrap_or("TCP") == protocol
                    && port["containerPort"].as_u64() == Some(packet.port.into())
            })
        }
    }
}

/// Pods with an address of their own, by it. While a pod is deleted its address may be another's already.
pub(crate) fn pods_at(world: &World, ip: IpAddr) -> impl Iterator<Item = (&String, &Value)> {
    let goes = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    let stays_with = move |ip| world.pods.values().any(move |pod| !goes(pod) && own_ips(pod).contains(&ip));
    let has = move |pod: &Value| {
        let ips = own_ips(pod);
        ips.contains(&ip) && !(goes(pod) && ips.into_iter().any(stays_with))
    };
    world.pods.iter().filter(move |(_, pod)| has(pod)).map(|((namespace, _), pod)| (namespace, pod))
}

fn own_ips(pod: &Value) -> Vec<IpAddr> {
    let phase = pod["status"]["phase"].as_str();
    if pod["spec"]["hostNetwork"] == true || matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    ips.map(|one| one["ip"].as_str().unwrap().parse().unwrap()).collect()
}

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// "An empty label selector matches all objects."
fn selected(selector: &Value, labels: &Value) -> bool {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    pairs.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.into_iter().all(|one| {
            let value = &labels[one["key"].as_str().unwrap()];
            let listed = one["values"].as_array().is_some_and(|values| values.contains(value));
            match one["operator"].as_str().unwrap() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !value.is_null(),
                "DoesNotExist" => value.is_null(),
                other => panic!("operator {other}"),
            }
        })
}

/// Prefix arithmetic of its own.
fn contains(net: &str, ip: IpAddr) -> bool {
    let (address, length) = net.split_once('/').unwrap();
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let (net, width) = bits(address.parse().unwrap());
    let (ip, other) = bits(ip);
    let length: u32 = length.parse().unwrap();
    width == other && (length == 0 || (net ^ ip) >> (128 - length) == 0)
}

//! What the real API server refuses of a NetworkPolicy: the rules and words of `ValidateNetworkPolicySpec`. Defaults are
//! filled in before. Pure; the first fault found is the one told.
//!
//! Agents have to stand what an older or laxer server let in, so there is a way around ([`UNCHECKED`]).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::api_server::object::{at, items, name, text};
use crate::api_server::{ApiError, Resource};

/// Annotation: a policy that has it is stored without a check, whatever it says.
pub const UNCHECKED: &str = "lab/unchecked";

type Fault = (String, String);

/// Refuses a policy that breaks a rule.
pub(super) fn check(policy: &Value) -> Result<(), ApiError> {
    if at(policy, &["metadata", "annotations", UNCHECKED]).is_some() {
        return Ok(());
    }
    spec(policy).map_err(|(field, message)| ApiError::Invalid {
        kind: Resource::NetworkPolicies.definition().kind,
        name: name(policy).to_owned(),
        field: format!("spec{field}"),
        message,
    })
}

fn fault<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Fault> {
    Err((field.into(), message.into()))
}

fn spec(policy: &Value) -> Result<(), Fault> {
    selector(at(policy, &["spec", "podSelector"]), ".podSelector")?;
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (number, rule) in items(policy, &["spec", direction]).iter().enumerate() {
            for (at, one) in items(rule, &["ports"]).iter().enumerate() {
                port(one, &format!(".{direction}[{number}].ports[{at}]"))?;
            }
            for (at, one) in items(rule, &[peers]).iter().enumerate() {
                peer(one, &format!(".{direction}[{number}].{peers}[{at}]"))?;
            }
        }
    }
    let types = items(policy, &["spec", "policyTypes"]);
    if types.len() > 2 {
        return fault(".policyTypes", "Invalid value: may not specify more than two policyTypes");
    }
    match types.iter().position(|one| one != "Ingress" && one != "Egress") {
        Some(at) => fault(
            format!(".policyTypes[{at}]"),
            format!(
                "Unsupported value: {}: supported values: \"Egress\", \"Ingress\"",
                types.get(at).unwrap_or(&Value::Null)
            ),
        ),
        None => Ok(()),
    }
}

fn port(port: &Value, field: &str) -> Result<(), Fault> {
    let protocol = text(port, &["protocol"]);
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        let message =
            format!("Unsupported value: \"{protocol}\": supported values: \"SCTP\", \"TCP\", \"UDP\"");
        return fault(format!("{field}.protocol"), message);
    }
    let in_range = |value: &Value| value.as_u64().is_some_and(|number| (1..=65_535).contains(&number));
    let last = port.get("endPort").filter(|last| !last.is_null());
    match port.get("port").filter(|first| !first.is_null()) {
        Some(Value::String(name)) => {
            if !is_port_name(name) {
                let message = format!(
                    "Invalid value: \"{name}\": must be a port name: at most 15 of a-z, 0-9 and -, one letter at least"
                );
                return fault(format!("{field}.port"), message);
            }
            match last {
                Some(last) => fault(
                    format!("{field}.endPort"),
                    format!("Invalid value: {last}: may not be specified when `port` is non-numeric"),
                ),
                None => Ok(()),
            }
        }
        Some(first) if !in_range(first) => fault(
            format!("{field}.port"),
            format!("Invalid value: {first}: must be between 1 and 65535, inclusive"),
        ),
        first => match last {
            None => Ok(()),
            Some(last) if first.is_none() => fault(
                format!("{field}.endPort"),
                format!("Invalid value: {last}: may not be specified when `port` is not specified"),
            ),
            Some(last) if !in_range(last) => fault(
                format!("{field}.endPort"),
                format!("Invalid value: {last}: must be between 1 and 65535, inclusive"),
            ),
            Some(last) if last.as_u64() < first.and_then(Value::as_u64) => fault(
                format!("{field}.endPort"),
                format!("Invalid value: {last}: must be greater than or equal to `port`"),
            ),
            Some(_) => Ok(()),
        },
    }
}

/// `IsValidPortName`: IANA service names of RFC 6335 section 5.1.
fn is_port_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=15).contains(&name.len())
        && name.chars().all(allowed)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn peer(peer: &Value, field: &str) -> Result<(), Fault> {
    let given = |key: &str| peer.get(key).filter(|value| !value.is_null());
    for key in ["podSelector", "namespaceSelector"] {
        selector(given(key), &format!("{field}.{key}"))?;
    }
    let selects = given("podSelector").or(given("namespaceSelector")).is_some();
    match given("ipBlock") {
        Some(_) if selects => fault(field, "Forbidden: may not specify both ipBlock and another peer"),
        Some(block) => ip_block(block, &format!("{field}.ipBlock")),
        None if !selects => fault(field, "Required value: must specify a peer"),
        None => Ok(()),
    }
}

fn ip_block(block: &Value, field: &str) -> Result<(), Fault> {
    let cidr = text(block, &["cidr"]);
    if cidr.is_empty() {
        return fault(format!("{field}.cidr"), "Required value");
    }
    let parse = |text: &str, field: String| -> Result<IpNet, Fault> {
        let message = "(e.g. 10.9.8.0/24 or 2001:db8::/64)";
        text.parse().or_else(|_| {
            fault(field, format!("Invalid value: \"{text}\": must be a valid CIDR value, {message}"))
        })
    };
    let outer = parse(cidr, format!("{field}.cidr"))?;
    for (at, except) in items(block, &["except"]).iter().enumerate() {
        let field = format!("{field}.except[{at}]");
        let inner = parse(except.as_str().unwrap_or_default(), field.clone())?;
        let same_family = matches!(
            (outer.addr(), inner.addr()),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
        );
        if !same_family || !outer.contains(&inner.network()) || inner.prefix_len() <= outer.prefix_len() {
            return fault(field, format!("Invalid value: {except}: must be a strict subset of `cidr`"));
        }
    }
    Ok(())
}

/// `ValidateLabelSelector`, as far as operators and their values go.
fn selector(selector: Option<&Value>, field: &str) -> Result<(), Fault> {
    let Some(selector) = selector else { return Ok(()) };
    for (at, requirement) in items(selector, &["matchExpressions"]).iter().enumerate() {
        let field = format!("{field}.matchExpressions[{at}]");
        let has_values = !items(requirement, &["values"]).is_empty();
        match (text(requirement, &["operator"]), has_values) {
            ("In" | "NotIn", false) => {
                let message = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                return fault(format!("{field}.values"), message);
            }
            ("Exists" | "DoesNotExist", true) => {
                let message = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                return fault(format!("{field}.values"), message);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => {
                let message = format!("Invalid value: \"{other}\": not a valid selector operator");
                return fault(format!("{field}.operator"), message);
            }
        }
        if text(requirement, &["key"]).is_empty() {
            return fault(format!("{field}.key"), "Required value");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(spec: Value) -> String {
        let policy = json!({ "metadata": { "name": "p" }, "spec": spec });
        check(&policy).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_valid_passes() {
        let rule = json!({
            "from": [
                { "podSelector": {} },
                { "namespaceSelector": {}, "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] } },
                { "ipBlock": { "cidr": "fd00::/8", "except": ["fd01::/16"] } },
            ],
            "ports": [
                { "protocol": "TCP" }, { "protocol": "UDP", "port": 53 }, { "protocol": "SCTP", "port": "m3ua" },
                { "protocol": "TCP", "port": 80, "endPort": 80 },
            ],
        });
        let spec = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [rule] });
        assert_eq!(refused(spec), "");
    }

    #[test]
    fn faults_name_their_field() {
        let port = |port: Value| json!({ "ingress": [{}, { "ports": [port] }] });
        let peer = |peer: Value| json!({ "egress": [{ "to": [peer] }] });
        let cases = [
            (port(json!({ "protocol": "ICMP" })), "spec.ingress[1].ports[0].protocol"),
            (port(json!({ "protocol": "TCP", "port": 0 })), "spec.ingress[1].ports[0].port"),
            (port(json!({ "protocol": "TCP", "port": "HTTP" })), "spec.ingress[1].ports[0].port"),
            (
                port(json!({ "protocol": "TCP", "port": 80, "endPort": 79 })),
                "spec.ingress[1].ports[0].endPort",
            ),
            (
                port(json!({ "protocol": "TCP", "port": "web", "endPort": 90 })),
                "spec.ingress[1].ports[0].endPort",
            ),
            (port(json!({ "protocol": "TCP", "endPort": 90 })), "spec.ingress[1].ports[0].endPort"),
            (peer(json!({})), "spec.egress[0].to[0]"),
            (peer(json!({ "podSelector": {}, "ipBlock": { "cidr": "10.0.0.0/8" } })), "spec.egress[0].to[0]"),
            (peer(json!({ "ipBlock": { "cidr": "10.0.0.0/33" } })), "spec.egress[0].to[0].ipBlock.cidr"),
            (
                peer(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"] } })),
                "spec.egress[0].to[0].ipBlock.except[0]",
            ),
            (
                peer(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"] } })),
                "spec.egress[0].to[0].ipBlock.except[0]",
            ),
            (
                peer(json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } })),
                "spec.egress[0].to[0].podSelector.matchExpressions[0].operator",
            ),
            (
                json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } }),
                "spec.podSelector.matchExpressions[0].values",
            ),
            (json!({ "policyTypes": ["Ingress", "Both"] }), "spec.policyTypes[1]"),
        ];
        for (spec, field) in cases {
            let error = refused(spec.clone());
            assert!(error.contains(&format!("is invalid: {field}: ")), "{spec}: {error}");
        }
    }

    #[test]
    fn there_is_a_way_around() {
        let policy =
            json!({ "metadata": { "annotations": { UNCHECKED: "" } }, "spec": { "policyTypes": ["Both"] } });
        assert_eq!(check(&policy), Ok(()));
    }
}

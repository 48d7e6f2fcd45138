//! From what a user writes to an end of packets.

use std::net::IpAddr;

use super::{End, EndKind, Unanswerable, has_addresses};
use crate::core::Inputs;
use crate::kube::model::{Kind, ObjectName, Pod, Service};

/// In which namespace names without one are.
const NAMESPACE: &str = "default";

/// What a word before the first slash says of the rest.
const POD: [&str; 3] = ["pod", "pods", "po"];
const SERVICE: [&str; 3] = ["service", "services", "svc"];

/// Who can send: anything but a Service.
pub(super) fn sender(text: &str, inputs: Inputs<'_>) -> Result<End, Unanswerable> {
    if let Some(end) = address_or_node(text, inputs) {
        return Ok(end);
    }
    let (_, name) = kind_and_name(text);
    let pod = inputs.store.pod(&name).map(|pod| pod_end(pod, inputs));
    pod.ok_or_else(|| unknown("pod", text, inputs))
}

/// Who can receive. A name may be a pod's or a Service's; a pod's is looked for first.
pub(super) fn receiver(text: &str, inputs: Inputs<'_>) -> Result<End, Unanswerable> {
    if let Some(end) = address_or_node(text, inputs) {
        return Ok(end);
    }
    let (kind, name) = kind_and_name(text);
    let pod = || inputs.store.pod(&name).map(|pod| pod_end(pod, inputs));
    let service = || inputs.store.service(&name).map(service_end);
    match kind {
        Some(Kind::Pod) => pod().ok_or_else(|| unknown("pod", text, inputs)),
        Some(_) => service().ok_or_else(|| unknown("Service", text, inputs)),
        None => pod().or_else(service).ok_or_else(|| unknown("pod or Service", text, inputs)),
    }
}

fn address_or_node(text: &str, inputs: Inputs<'_>) -> Option<End> {
    if text == "node" || *text == *inputs.node.name {
        let addresses = inputs.node.families().filter_map(|family| inputs.node.best_ip(family)).collect();
        return Some(End { kind: EndKind::Node, name: inputs.node.name.to_string(), addresses, node: None });
    }
    let ip: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
    Some(at(ip, inputs))
}

/// Whoever has an address.
fn at(ip: IpAddr, inputs: Inputs<'_>) -> End {
    let end = |kind, name: String, node: Option<String>| End { kind, name, addresses: vec![ip], node };
    let holder = inputs.store.pods().find(|pod| has_addresses(pod) && pod.ips.contains(&ip));
    if let Some(pod) = holder {
        return end(EndKind::Pod, pod.id.to_string(), pod.node.as_ref().map(ToString::to_string));
    }
    if inputs.node.has_ip(ip) {
        return end(EndKind::Node, inputs.node.name.to_string(), None);
    }
    let mut nodes = inputs.store.nodes();
    let node = nodes.find(|node| node.internal_ips.contains(&ip) || node.external_ips.contains(&ip));
    match node {
        Some(node) => end(EndKind::Node, node.name.to_string(), None),
        None => end(EndKind::Address, ip.to_string(), None),
    }
}

fn pod_end(pod: &Pod, inputs: Inputs<'_>) -> End {
    let kind = if pod.host_network { EndKind::Node } else { EndKind::Pod };
    let families = inputs.options.families;
    let addresses = pod.ips.iter().copied().filter(|ip| families.has(*ip)).collect();
    End { kind, name: pod.id.to_string(), addresses, node: pod.node.as_ref().map(ToString::to_string) }
}

fn service_end(service: &Service) -> End {
    End {
        kind: EndKind::Service,
        name: service.id.to_string(),
        addresses: service.cluster_ips.clone(),
        node: None,
    }
}

/// `pod/NAME`, `pod/NAMESPACE/NAME`, `NAMESPACE/NAME`, `NAME`.
fn kind_and_name(text: &str) -> (Option<Kind>, ObjectName) {
    let (kind, rest) = match text.split_once('/') {
        Some((word, rest)) if POD.contains(&word) => (Some(Kind::Pod), rest),
        Some((word, rest)) if SERVICE.contains(&word) => (Some(Kind::Service), rest),
        _ => (None, text),
    };
    let (namespace, name) = rest.split_once('/').unwrap_or((NAMESPACE, rest));
    (kind, ObjectName { namespace: namespace.into(), name: name.into() })
}

fn unknown(what: &'static str, asked: &str, inputs: Inputs<'_>) -> Unanswerable {
    let hint = if inputs.options.controllers.network_policy {
        "; write namespace/name, or give an address"
    } else {
        "; without network policy an agent knows the pods of its own node at most: ask there, or give an address"
    };
    Unanswerable::Unknown { what, asked: asked.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        let name =
            |namespace: &str, name: &str| ObjectName { namespace: namespace.into(), name: name.into() };
        for (text, kind, expected) in [
            ("web", None, name("default", "web")),
            ("shop/web", None, name("shop", "web")),
            ("pod/web", Some(Kind::Pod), name("default", "web")),
            ("po/shop/web", Some(Kind::Pod), name("shop", "web")),
            ("svc/web", Some(Kind::Service), name("default", "web")),
            ("service/shop/web", Some(Kind::Service), name("shop", "web")),
        ] {
            assert_eq!(kind_and_name(text), (kind, expected), "{text}");
        }
    }
}

//! Node.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Unused;
use super::reading::{Reading, dedup};
use crate::annotations::{RoutingAnnotations, node as annotation};
use crate::kube::model::{Kind, Node};
use crate::kube::wire::{self, List, Meta};

pub(super) fn node(wire: wire::Node, meta: Meta, reading: &mut Reading<'_>) -> Result<Node, Unused> {
    let status = reading.take("status", wire.status).unwrap_or_default();
    let (internal_ips, external_ips) = addresses(reading, status.addresses);
    let object = reading.id().of_kind(Kind::Node);
    let (routing, objections) = RoutingAnnotations::read(&object, |key| meta.annotation(key));
    reading.extend(objections);
    Ok(Node {
        name: reading.id().name.clone(),
        internal_ips,
        external_ips,
        pod_cidrs: pod_cidrs(reading, &meta, wire.spec),
        routing: Arc::new(routing),
    })
}

/// Internal and external addresses, each in the order of the object; the first internal one is primary.
fn addresses(reading: &mut Reading<'_>, list: List<wire::NodeAddress>) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let (mut internal, mut external) = (Vec::new(), Vec::new());
    for (place, wire) in reading.list("status.addresses", list) {
        let into = match wire.kind.get().map(String::as_str) {
            Some("InternalIP") => &mut internal,
            Some("ExternalIP") => &mut external,
            _ => continue,
        };
        let field = format_args!("status.addresses[{place}].address");
        if let Some(text) = reading.text(field, wire.address) {
            into.extend(reading.ip(field, &text));
        }
    }
    (dedup(internal), dedup(external))
}

/// The first of the two annotations and the spec that gives at least one prefix. An annotation of which nothing can
/// be used counts as absent.
fn pod_cidrs(reading: &mut Reading<'_>, meta: &Meta, spec: wire::Part<wire::NodeSpec>) -> Vec<IpNet> {
    for key in [annotation::POD_CIDR, annotation::POD_CIDRS] {
        let Some(value) = meta.annotation(key) else { continue };
        let mut nets = Vec::new();
        for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            nets.extend(reading.net(format_args!("metadata.annotations[{key}]"), text));
        }
        if !nets.is_empty() {
            return dedup(nets);
        }
    }
    let spec = reading.take("spec", spec).unwrap_or_default();
    let mut nets = Vec::new();
    for (place, text) in reading.list("spec.podCIDRs", spec.pod_cidrs) {
        nets.extend(reading.net(format_args!("spec.podCIDRs[{place}]"), &text));
    }
    if nets.is_empty()
        && let Some(text) = reading.text("spec.podCIDR", spec.pod_cidr)
    {
        nets.extend(reading.net("spec.podCIDR", &text));
    }
    dedup(nets)
}

//! EndpointSlice.

use linux::row::{Family, Name};

use super::reading::{Reading, dedup};
use super::{Lenient, Unused};
use crate::kube::model::{Endpoint, EndpointPort, EndpointSlice};
use crate::kube::wire::{self, List, Meta};
use crate::names::label;

/// Annotation with the time of the change that led to this version of the slice (RFC 3339).
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

pub(super) fn slice(
    wire: wire::EndpointSlice,
    meta: Meta,
    reading: &mut Reading<'_>,
) -> Result<EndpointSlice, Unused> {
    if meta.label(label::HEADLESS).is_some() {
        return Err(Unused::Headless);
    }
    let family = match reading.text("addressType", wire.address_type).as_deref() {
        Some("IPv4") => Family::V4,
        Some("IPv6") => Family::V6,
        Some("FQDN") => return Err(Unused::Fqdn),
        other => {
            let remedy = "the slice is not used";
            reading.object_to("addressType", other.unwrap_or_default(), "is not IPv4, IPv6 or FQDN", remedy);
            return Err(Unused::Unusable);
        }
    };
    let Some(service) = service_name(&meta, reading) else {
        let field = format!("metadata.labels[{}]", label::SERVICE_NAME);
        reading.object_to(field, "", "is missing and no owner tells the Service", "the slice is not used");
        return Err(Unused::Unusable);
    };

    let triggered = meta.annotation(TRIGGER_TIME).filter(|text| !text.is_empty()).and_then(|text| {
        let field = format_args!("metadata.annotations[{TRIGGER_TIME}]");
        reading.time(field, text).map(|time| time.as_millisecond())
    });
    Ok(EndpointSlice {
        id: reading.id().clone(),
        service,
        ports: ports(reading, wire.ports),
        endpoints: endpoints(reading, wire.endpoints, family),
        triggered,
    })
}

/// The Service of a slice: its label; else its only owner; else what its own name was generated from.
fn service_name(meta: &Meta, reading: &mut Reading<'_>) -> Option<Name> {
    let owner = || match meta.owner_references.get()?.as_slice() {
        [only] => only.get()?.name.get().map(String::as_str),
        _ => None,
    };
    let origin = || meta.generate_name.get().map(|name| name.strip_suffix('-').unwrap_or(name));
    let name = [meta.label(label::SERVICE_NAME), owner(), origin()]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty());
    name.map(|name| reading.shared(name))
}

/// A port without a number is legal ("all ports") and serves no virtual server.
fn ports(reading: &mut Reading<'_>, list: List<wire::EndpointPort>) -> std::sync::Arc<[EndpointPort]> {
    let mut ports = Vec::new();
    for (place, wire) in reading.list("ports", list) {
        let name = reading.text(format_args!("ports[{place}].name"), wire.name).unwrap_or_default();
        let protocol = reading.protocol(format_args!("ports[{place}].protocol"), wire.protocol);
        let field = format_args!("ports[{place}].port");
        let port =
            reading.take(field, wire.port).and_then(|port| reading.port(field, port, "the port is left out"));
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push(EndpointPort { name: reading.shared(&name), protocol, port });
        }
    }
    dedup(ports).into()
}

/// One endpoint for each address. Equal addresses of different endpoints stay apart: a pod that terminates and its
/// successor on the host's network have the same address and different conditions.
fn endpoints(reading: &mut Reading<'_>, list: List<wire::Endpoint>, family: Family) -> Vec<Endpoint> {
    let list = reading.list("endpoints", list);
    let mut endpoints = Vec::with_capacity(list.len());
    for (place, wire) in list {
        let (ready, serving, terminating) = conditions(reading, place, wire.conditions);
        let node = reading.text(format_args!("endpoints[{place}].nodeName"), wire.node_name);
        let node = node.map(|node| reading.shared(&node));

        let addresses = reading.take(format_args!("endpoints[{place}].addresses"), wire.addresses);
        let mut ips = Vec::with_capacity(1);
        for (index, address) in addresses.unwrap_or_default().into_iter().enumerate() {
            let field = format_args!("endpoints[{place}].addresses[{index}]");
            let Some(text) = reading.take(field, address) else { continue };
            let Some(ip) = reading.ip(field, &text) else { continue };
            if Family::of(&ip) != family {
                reading.object_to(
                    field,
                    text,
                    "is not of the slice's addressType",
                    "the address is left out",
                );
            } else if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        endpoints.extend(ips.into_iter().map(|ip| Endpoint {
            ip,
            ready,
            serving,
            terminating,
            node: node.clone(),
        }));
    }
    endpoints
}

/// Ready, serving, terminating. What is absent means yes, as ready, and no (discovery/v1 `EndpointConditions`); what
/// is there and no boolean means no.
fn conditions(
    reading: &mut Reading<'_>,
    place: usize,
    wire: Lenient<wire::EndpointConditions>,
) -> (bool, bool, bool) {
    let wire = reading.take(format_args!("endpoints[{place}].conditions"), wire).unwrap_or_default();
    let mut condition = |name: &str, value: Lenient<bool>, absent: bool| match value {
        Lenient::Absent => absent,
        value => reading.take(format_args!("endpoints[{place}].conditions.{name}"), value).unwrap_or(false),
    };
    let ready = condition("ready", wire.ready, true);
    let serving = condition("serving", wire.serving, ready);
    let terminating = condition("terminating", wire.terminating, false);
    (ready, serving, terminating)
}

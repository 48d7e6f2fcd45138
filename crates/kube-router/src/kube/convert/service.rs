//! Service.

use std::net::IpAddr;

use linux::row::Scheduler;

use super::Unused;
use super::reading::{Reading, dedup};
use crate::annotations::{SchedulerFlags, ServiceAnnotations};
use crate::kube::model::{Kind, Service, ServicePort, ServiceWishes};
use crate::kube::wire::{self, List, Meta, Text};
use crate::names::label;

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` if it is not set (core/v1 `DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: u32 = 10_800;
/// Most seconds the API takes (core/v1 `MaxClientIPServiceAffinitySeconds`).
const MOST_AFFINITY_SECONDS: u32 = 86_400;

/// Ignored are, in this order: Services of another proxy, headless ones, names instead of addresses.
pub(super) fn service(wire: wire::Service, meta: Meta, reading: &mut Reading<'_>) -> Result<Service, Unused> {
    if meta.label(label::SERVICE_PROXY_NAME).is_some_and(|name| name != label::PROXY_NAME) {
        return Err(Unused::OtherProxy);
    }
    if meta.label(label::HEADLESS).is_some() {
        return Err(Unused::Headless);
    }
    let spec = reading.take("spec", wire.spec).ok_or(Unused::Headless)?;
    let kind = reading.text("spec.type", spec.kind);
    if kind.as_deref() == Some("ExternalName") {
        return Err(Unused::ExternalName);
    }
    let primary = reading.text("spec.clusterIP", spec.cluster_ip).ok_or(Unused::Headless)?;
    if primary == "None" {
        return Err(Unused::Headless);
    }

    let mut cluster_ips: Vec<IpAddr> = reading.ip("spec.clusterIP", &primary).into_iter().collect();
    for (place, text) in reading.list("spec.clusterIPs", spec.cluster_ips) {
        if text != primary {
            cluster_ips.extend(reading.ip(format_args!("spec.clusterIPs[{place}]"), &text));
        }
    }
    let mut external_ips = Vec::new();
    for (place, text) in reading.list("spec.externalIPs", spec.external_ips) {
        external_ips.extend(reading.ip(format_args!("spec.externalIPs[{place}]"), &text));
    }

    let config = reading.take("spec.sessionAffinityConfig", spec.session_affinity_config).unwrap_or_default();
    let affinity = match choice(reading, "spec.sessionAffinity", spec.session_affinity, ["None", "ClientIP"])
    {
        Some("ClientIP") => Some(affinity_seconds(reading, config)),
        _ => None,
    };
    let policies = ["Cluster", "Local"];
    let internal = choice(reading, "spec.internalTrafficPolicy", spec.internal_traffic_policy, policies);
    let external = choice(reading, "spec.externalTrafficPolicy", spec.external_traffic_policy, policies);

    let object = reading.id().of_kind(Kind::Service);
    let (annotations, objections) = ServiceAnnotations::read(&object, |key| meta.annotation(key));
    reading.extend(objections);

    Ok(Service {
        id: reading.id().clone(),
        created: created(reading, &meta),
        cluster_ips: dedup(cluster_ips),
        external_ips: dedup(external_ips),
        load_balancer_ips: load_balancer_ips(reading, wire.status),
        ports: ports(reading, spec.ports),
        is_load_balancer: kind.as_deref() == Some("LoadBalancer"),
        affinity,
        internal_local: internal == Some("Local"),
        external_local: external == Some("Local") || annotations.local,
        health_check_port: optional_port(reading, "spec.healthCheckNodePort", spec.health_check_node_port),
        wishes: wishes(annotations),
    })
}

fn wishes(annotations: ServiceAnnotations) -> ServiceWishes {
    let SchedulerFlags { one, two, three } = annotations.scheduler_flags;
    ServiceWishes {
        scheduler: Scheduler::named(annotations.scheduler.name()),
        // IP_VS_SVC_F_SCHED1 to 3 (linux/ip_vs.h)
        scheduler_flags: u8::from(one) << 3 | u8::from(two) << 4 | u8::from(three) << 5,
        hairpin: annotations.hairpin,
        hairpin_external_ips: annotations.hairpin_external_ips,
        skip_load_balancer_ips: annotations.skip_load_balancer_ips,
        direct_return: annotations.dsr,
        advertise_cluster_ip: annotations.advertise_cluster_ip,
        advertise_external_ip: annotations.advertise_external_ip,
        advertise_load_balancer_ip: annotations.advertise_load_balancer_ip,
    }
}

/// An age that cannot be read is younger than any other: it must not win an address from a Service whose age is known.
fn created(reading: &mut Reading<'_>, meta: &Meta) -> i64 {
    let field = "metadata.creationTimestamp";
    let text = reading.text(field, meta.creation_timestamp.clone());
    text.and_then(|text| reading.time(field, &text)).map_or(i64::MAX, |time| time.as_second())
}

/// `ipMode: Proxy` means that the load balancer wants to see the traffic itself; the address is not ours then.
fn load_balancer_ips(reading: &mut Reading<'_>, status: wire::Part<wire::ServiceStatus>) -> Vec<IpAddr> {
    let status = reading.take("status", status).unwrap_or_default();
    let status = reading.take("status.loadBalancer", status.load_balancer).unwrap_or_default();
    let mut ips = Vec::new();
    for (place, ingress) in reading.list("status.loadBalancer.ingress", status.ingress) {
        let field = format_args!("status.loadBalancer.ingress[{place}].ip");
        let proxied = ingress.ip_mode.get().is_some_and(|mode| mode == "Proxy");
        if let Some(text) = reading.text(field, ingress.ip).filter(|_| !proxied) {
            ips.extend(reading.ip(field, &text));
        }
    }
    dedup(ips)
}

fn ports(reading: &mut Reading<'_>, list: List<wire::ServicePort>) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (place, wire) in reading.list("spec.ports", list) {
        let name = reading.text(format_args!("spec.ports[{place}].name"), wire.name).unwrap_or_default();
        let protocol = reading.protocol(format_args!("spec.ports[{place}].protocol"), wire.protocol);
        let field = format_args!("spec.ports[{place}].port");
        let port =
            reading.take(field, wire.port).and_then(|port| reading.port(field, port, "the port is left out"));
        let node_port = optional_port(reading, format_args!("spec.ports[{place}].nodePort"), wire.node_port);
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push(ServicePort { name: reading.shared(&name), protocol, port, node_port });
        }
    }
    ports
}

/// A port for which 0 means none.
fn optional_port(
    reading: &mut Reading<'_>,
    field: impl std::fmt::Display + Copy,
    port: super::Lenient<i64>,
) -> Option<u16> {
    let port = reading.take(field, port).filter(|&port| port != 0)?;
    reading.port(field, port, "there is none")
}

/// One of a few words, the first of them if absent or another.
fn choice<const N: usize>(
    reading: &mut Reading<'_>,
    field: &str,
    value: Text,
    words: [&'static str; N],
) -> Option<&'static str> {
    let text = reading.text(field, value)?;
    let word = words.into_iter().find(|word| *word == text);
    if word.is_none() {
        let first = words.first().copied().unwrap_or_default();
        reading.object_to(
            field,
            text,
            format_args!("is not one of {}", words.join(", ")),
            format_args!("{first} is assumed"),
        );
    }
    word
}

fn affinity_seconds(reading: &mut Reading<'_>, config: wire::SessionAffinityConfig) -> u32 {
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let config = reading.take("spec.sessionAffinityConfig.clientIP", config.client_ip).unwrap_or_default();
    let Some(seconds) = reading.take(field, config.timeout_seconds) else {
        return AFFINITY_SECONDS;
    };
    match u32::try_from(seconds) {
        Ok(seconds) if (1..=MOST_AFFINITY_SECONDS).contains(&seconds) => seconds,
        _ => {
            let reason = format_args!("is not within 1-{MOST_AFFINITY_SECONDS}");
            reading.object_to(field, seconds, reason, format_args!("{AFFINITY_SECONDS} is used"));
            AFFINITY_SECONDS
        }
    }
}

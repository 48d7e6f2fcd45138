//! Pod.

use super::Unused;
use super::reading::{Reading, dedup};
use crate::kube::model::{NamedPort, Pod, PodUid};
use crate::kube::wire::{self, List, Meta};
use crate::names::label;

/// `spec.terminationGracePeriodSeconds` if it is not set.
const GRACE_SECONDS: u32 = 30;

pub(super) fn pod(wire: wire::Pod, meta: Meta, reading: &mut Reading<'_>) -> Result<Pod, Unused> {
    let spec = reading.take("spec", wire.spec).unwrap_or_default();
    let status = reading.take("status", wire.status).unwrap_or_default();

    let mut ips = Vec::new();
    for (place, wire) in reading.list("status.podIPs", status.pod_ips) {
        let field = format_args!("status.podIPs[{place}].ip");
        if let Some(text) = reading.text(field, wire.ip) {
            ips.extend(reading.ip(field, &text));
        }
    }
    if ips.is_empty()
        && let Some(text) = reading.text("status.podIP", status.pod_ip)
    {
        ips.extend(reading.ip("status.podIP", &text));
    }

    let node = reading.text("spec.nodeName", spec.node_name);
    let phase = reading.text("status.phase", status.phase);
    let field = "spec.terminationGracePeriodSeconds";
    let grace = reading.take(field, spec.termination_grace_period_seconds);
    let mut ports = named_ports(reading, "spec.containers", spec.containers, |_| true);
    // Init containers that go on running are as good as containers (sidecars); the others are over when traffic comes.
    let runs_on =
        |container: &wire::Container| container.restart_policy.get().is_some_and(|policy| policy == "Always");
    ports.extend(named_ports(reading, "spec.initContainers", spec.init_containers, runs_on));
    ports.sort_by(|one, other| (&one.name, one.protocol).cmp(&(&other.name, other.protocol)));
    // Names are unique in a pod; should they not be, the first counts, as it does for the API server.
    ports.dedup_by(|later, first| (&later.name, later.protocol) == (&first.name, first.protocol));
    let uid = meta.annotation(label::MIRRORED_POD).map(str::to_owned).or_else(|| meta.uid.get().cloned());
    Ok(Pod {
        id: reading.id().clone(),
        uid: PodUid::of(uid.as_deref().unwrap_or_default()),
        ips: dedup(ips),
        node: node.map(|node| reading.shared(&node)),
        host_network: reading.take("spec.hostNetwork", spec.host_network).unwrap_or(false),
        finished: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating: meta.deletion_timestamp.get().is_some(),
        grace_seconds: match grace {
            None => GRACE_SECONDS,
            // as the kubelet reads it
            Some(seconds) if seconds < 0 => 1,
            Some(seconds) => u32::try_from(seconds).unwrap_or(u32::MAX),
        },
        labels: reading.labels(meta.labels),
        ports: reading.named_ports(ports),
    })
}

fn named_ports(
    reading: &mut Reading<'_>,
    field: &'static str,
    containers: List<wire::Container>,
    counts: impl Fn(&wire::Container) -> bool,
) -> Vec<NamedPort> {
    let mut found = Vec::new();
    for (place, container) in reading.list(field, containers) {
        if !counts(&container) {
            continue;
        }
        let ports = reading.take(format_args!("{field}[{place}].ports"), container.ports);
        for (index, port) in ports.unwrap_or_default().into_iter().enumerate() {
            let field = format_args!("{field}[{place}].ports[{index}]");
            let Some(wire) = reading.take(field, port) else { continue };
            let Some(name) = reading.text(format_args!("{field}.name"), wire.name) else { continue };
            let protocol = reading.protocol(format_args!("{field}.protocol"), wire.protocol);
            let number = reading.take(format_args!("{field}.containerPort"), wire.container_port);
            let port = number.and_then(|number| {
                reading.port(format_args!("{field}.containerPort"), number, "the port is left out")
            });
            if let (Some(protocol), Some(port)) = (protocol, port) {
                found.push(NamedPort { name: reading.shared(&name), protocol, port });
            }
        }
    }
    found
}

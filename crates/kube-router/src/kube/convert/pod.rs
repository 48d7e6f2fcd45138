//! Pod.

use super::Unused;
use super::reading::{Reading, dedup};
use crate::kube::model::Pod;
use crate::kube::wire::{self, Meta};

/// `spec.terminationGracePeriodSeconds` if it is not set.
const GRACE_SECONDS: u32 = 30;

pub(super) fn pod(wire: wire::Pod, _meta: Meta, reading: &mut Reading<'_>) -> Result<Pod, Unused> {
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
    Ok(Pod {
        id: reading.id().clone(),
        ips: dedup(ips),
        node: node.map(|node| reading.shared(&node)),
        host_network: reading.take("spec.hostNetwork", spec.host_network).unwrap_or(false),
        finished: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
        grace_seconds: match grace {
            None => GRACE_SECONDS,
            // as the kubelet reads it
            Some(seconds) if seconds < 0 => 1,
            Some(seconds) => u32::try_from(seconds).unwrap_or(u32::MAX),
        },
    })
}

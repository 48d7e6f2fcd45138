//! NetworkPolicy and Namespace.
//!
//! Decided here: what a part that cannot be read means. It must never make anything more open. A peer or port that
//! cannot be read permits nothing; a rule of nothing but such peers is not a rule without peers. A policy whose own
//! `podSelector` cannot be read isolates every pod it may mean and permits them nothing.

use std::fmt::Display;

use super::reading::{Reading, dedup};
use super::selector::selector;
use super::{Lenient, Unused};
use crate::kube::model::{Namespace, NetworkPolicy, Peer, PolicyPort, PolicyRule, PortRange};
use crate::kube::wire::{self, IntOrString, List, Meta};

pub(super) fn namespace(
    _wire: wire::Namespace,
    meta: Meta,
    reading: &mut Reading<'_>,
) -> Result<Namespace, Unused> {
    Ok(Namespace { name: reading.id().name.clone(), labels: reading.labels(meta.labels) })
}

pub(super) fn policy(
    wire: wire::NetworkPolicy,
    _meta: Meta,
    reading: &mut Reading<'_>,
) -> Result<NetworkPolicy, Unused> {
    let spec = reading.take("spec", wire.spec).unwrap_or_default();
    let remedy = "every pod it may mean is isolated, and permitted nothing by this policy";
    let target = selector(reading, "spec.podSelector", spec.pod_selector, remedy);
    let (target, whole) = target.map_or_else(Default::default, |found| (found.selector, Some(found.whole)));
    let whole = whole.unwrap_or(true);

    let types = policy_types(reading, spec.policy_types);
    let mut ingress = Vec::new();
    for (place, rule) in rules(reading, "spec.ingress", spec.ingress) {
        let field = format_args!("spec.ingress[{place}]");
        let peers = peers(reading, format_args!("{field}.from"), rule.from);
        ingress.push(PolicyRule { peers, ports: ports(reading, format_args!("{field}.ports"), rule.ports) });
    }
    let mut egress = Vec::new();
    for (place, rule) in rules(reading, "spec.egress", spec.egress) {
        let field = format_args!("spec.egress[{place}]");
        let peers = peers(reading, format_args!("{field}.to"), rule.to);
        egress.push(PolicyRule { peers, ports: ports(reading, format_args!("{field}.ports"), rule.ports) });
    }
    let (isolates_ingress, isolates_egress) = types.unwrap_or((true, !egress.is_empty()));
    if !whole {
        ingress.clear();
        egress.clear();
    }
    Ok(NetworkPolicy {
        id: reading.id().clone(),
        target,
        ingress: isolates_ingress.then_some(ingress),
        egress: isolates_egress.then_some(egress),
    })
}

/// Whether Ingress and Egress are listed; `None` if nothing usable is. The API server fills in the default: Ingress,
/// and Egress if there are egress rules.
fn policy_types(reading: &mut Reading<'_>, list: List<String>) -> Option<(bool, bool)> {
    let (mut ingress, mut egress) = (false, false);
    for (place, name) in reading.list("spec.policyTypes", list) {
        match name.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            _ => {
                let field = format_args!("spec.policyTypes[{place}]");
                reading.object_to(field, name, "is not Ingress or Egress", "the type is left out");
            }
        }
    }
    (ingress || egress).then_some((ingress, egress))
}

/// The rules that can be read; the others permit nothing.
fn rules<T>(reading: &mut Reading<'_>, field: &'static str, list: List<T>) -> Vec<(usize, T)> {
    reading.list(field, list)
}

/// The elements that can be read of a list that, absent or empty, would mean everything; `None` if it does.
fn restriction<T>(
    reading: &mut Reading<'_>,
    field: impl Display,
    list: List<T>,
    remedy: &str,
) -> Option<Vec<(usize, T)>> {
    let list = match list {
        Lenient::Absent => return None,
        Lenient::Found(list) if list.is_empty() => return None,
        Lenient::Found(list) => list,
        Lenient::Refused { found, .. } => {
            reading.object_to(field, found, "is not a list", "the rule permits nothing");
            return Some(Vec::new());
        }
    };
    let mut elements = Vec::with_capacity(list.len());
    for (place, element) in list.into_iter().enumerate() {
        match element {
            Lenient::Found(element) => elements.push((place, element)),
            Lenient::Absent => {
                reading.object_to(format_args!("{field}[{place}]"), "null", "says nothing", remedy);
            }
            Lenient::Refused { found, .. } => {
                reading.object_to(format_args!("{field}[{place}]"), found, "is not an object", remedy);
            }
        }
    }
    Some(elements)
}

fn peers(reading: &mut Reading<'_>, field: impl Display, list: List<wire::PolicyPeer>) -> Option<Vec<Peer>> {
    let list = restriction(reading, &field, list, LEFT_OUT)?;
    let mut peers = Vec::with_capacity(list.len());
    for (place, wire) in list {
        peers.extend(peer(reading, format_args!("{field}[{place}]"), wire));
    }
    Some(dedup_sorted(peers))
}

const LEFT_OUT: &str = "the peer is left out and permitted nothing";

fn peer(reading: &mut Reading<'_>, field: impl Display, wire: wire::PolicyPeer) -> Option<Peer> {
    let has_block = !matches!(wire.ip_block, Lenient::Absent);
    let pods = selector(reading, format_args!("{field}.podSelector"), wire.pod_selector, LEFT_OUT);
    let namespaces =
        selector(reading, format_args!("{field}.namespaceSelector"), wire.namespace_selector, LEFT_OUT);
    if has_block && (pods.is_some() || namespaces.is_some()) {
        reading.object_to(&field, "", "has an ipBlock and a selector, which exclude each other", LEFT_OUT);
        return None;
    }
    if has_block {
        return block(reading, field, wire.ip_block);
    }
    if pods.is_none() && namespaces.is_none() {
        reading.object_to(&field, "", "has neither a selector nor an ipBlock", LEFT_OUT);
        return None;
    }
    if [&pods, &namespaces].into_iter().flatten().any(|found| !found.whole) {
        return None;
    }
    Some(Peer::Pods {
        namespaces: namespaces.map(|found| found.selector),
        pods: pods.map(|found| found.selector).unwrap_or_default(),
    })
}

/// An except that cannot be read would leave a hole in the refusal, so its whole block goes.
fn block(reading: &mut Reading<'_>, field: impl Display, wire: Lenient<wire::IpBlock>) -> Option<Peer> {
    let Lenient::Found(wire) = wire else {
        reading.object_to(format_args!("{field}.ipBlock"), "", "is not an object", LEFT_OUT);
        return None;
    };
    let cidr = wire.cidr.found().unwrap_or_default();
    let net = reading.net_or(format_args!("{field}.ipBlock.cidr"), &cidr, LEFT_OUT)?;
    let excepts = match wire.except {
        Lenient::Absent => Vec::new(),
        Lenient::Found(list) => list,
        Lenient::Refused { found, .. } => {
            reading.object_to(format_args!("{field}.ipBlock.except"), found, "is not a list", LEFT_OUT);
            return None;
        }
    };
    let mut except = Vec::with_capacity(excepts.len());
    for (place, text) in excepts.into_iter().enumerate() {
        let field = format_args!("{field}.ipBlock.except[{place}]");
        let text = text.found().unwrap_or_default();
        let hole = reading.net_or(field, &text, "its whole block is left out and permitted nothing")?;
        if net.contains(&hole) {
            except.push(hole);
        } else if hole.contains(&net) {
            reading.object_to(field, text, "takes the whole block away", "make the block larger than it");
            except.push(hole);
        } else {
            reading.object_to(field, text, "does not lie in the block", "it takes nothing away");
        }
    }
    except.sort();
    except.dedup();
    Some(Peer::Block { net, except })
}

const PORT_LEFT_OUT: &str = "the port is left out and permitted nothing";

fn ports(
    reading: &mut Reading<'_>,
    field: impl Display,
    list: List<wire::PolicyPort>,
) -> Option<Vec<PolicyPort>> {
    let list = restriction(reading, &field, list, PORT_LEFT_OUT)?;
    let mut ports = Vec::with_capacity(list.len());
    for (place, wire) in list {
        ports.extend(port(reading, format_args!("{field}[{place}]"), wire));
    }
    ports.sort();
    ports.dedup();
    Some(ports)
}

fn port(reading: &mut Reading<'_>, field: impl Display, wire: wire::PolicyPort) -> Option<PolicyPort> {
    let protocol = reading.protocol_or(format_args!("{field}.protocol"), wire.protocol, PORT_LEFT_OUT)?;
    let end = match wire.end_port {
        Lenient::Absent => None,
        Lenient::Found(end) => Some(end),
        Lenient::Refused { found, .. } => {
            reading.object_to(format_args!("{field}.endPort"), found, "is not a number", PORT_LEFT_OUT);
            return None;
        }
    };
    let first = match wire.port {
        Lenient::Found(IntOrString::Number(number)) => {
            reading.port(format_args!("{field}.port"), number, PORT_LEFT_OUT)?
        }
        // As everywhere in the API, text stands for a name only.
        Lenient::Found(IntOrString::Text(name)) if !name.is_empty() && end.is_none() => {
            return Some(PolicyPort { protocol, port: PortRange::Named(reading.shared(&name)) });
        }
        Lenient::Absent if end.is_none() => return Some(PolicyPort { protocol, port: PortRange::Any }),
        Lenient::Refused { found, .. } => {
            let reason = "is neither a number nor a name";
            reading.object_to(format_args!("{field}.port"), found, reason, PORT_LEFT_OUT);
            return None;
        }
        Lenient::Found(IntOrString::Text(name)) if end.is_none() => {
            reading.object_to(format_args!("{field}.port"), name, "is empty", PORT_LEFT_OUT);
            return None;
        }
        Lenient::Found(IntOrString::Text(_)) | Lenient::Absent => {
            let reason = "needs a port by number beside it";
            let end = end.unwrap_or_default();
            reading.object_to(format_args!("{field}.endPort"), end, reason, PORT_LEFT_OUT);
            return None;
        }
    };
    let last = match end {
        None => first,
        Some(end) => match u16::try_from(end) {
            Ok(end) if end >= first => end,
            _ => {
                let reason = "is not a port from the first one to 65535";
                reading.object_to(format_args!("{field}.endPort"), end, reason, PORT_LEFT_OUT);
                return None;
            }
        },
    };
    Some(PolicyPort { protocol, port: PortRange::Numbers(first, last) })
}

/// Without equals; short lists only, so order may stay.
fn dedup_sorted(peers: Vec<Peer>) -> Vec<Peer> {
    const FEW: usize = 64;
    if peers.len() <= FEW { dedup(peers) } else { peers }
}

//! What the service proxy says of packets to a Service's address: which backends they may get.

use std::net::IpAddr;

use linux::reconciler::Reconciler;
use linux::row::{Key, Row, VirtualServerKey};

use super::contests::{Claimant, Contests};
use super::{NetworkServices, firewall};
use crate::core::Inputs;
use crate::explain::{Backend, EndKind, Explanation, PathHop, ServiceHop, Verdict};
use crate::owner::Owner;

impl NetworkServices {
    /// Replaces paths to virtual servers by paths to their backends. O(virtual servers + pods + backends found).
    pub(super) fn lead(&self, inputs: Inputs<'_>, rows: &Reconciler<Owner>, explanation: &mut Explanation) {
        let to_service = explanation.to.kind == EndKind::Service;
        for path in std::mem::take(&mut explanation.paths) {
            let (met, others) = meets(&self.contests, &path);
            if met.is_empty() && !to_service && !others {
                explanation.paths.push(path);
                continue;
            }
            if met.is_empty() {
                let asked = path.port.map(|port| format!(":{port}")).unwrap_or_default();
                explanation.notes.push(format!(
                    "{}{asked} is no port of a Service here; other ports of service addresses are refused",
                    path.destination
                ));
            }
            for (key, claimant) in met {
                let backends = self.backends(key, inputs, rows, &path);
                explanation.services.push(hop(key, claimant, inputs, rows, &backends));
                let usable = backends.into_iter().filter(|(_, weight)| *weight > 0);
                explanation.paths.extend(usable.map(|(path, _)| path));
            }
        }
        if explanation.paths.is_empty() {
            explanation.verdict = Verdict::Unserved;
        }
        explanation.name_ends(inputs.store);
    }

    /// The real servers in the kernel, as paths with their weights.
    fn backends(
        &self,
        key: VirtualServerKey,
        inputs: Inputs<'_>,
        rows: &Reconciler<Owner>,
        path: &PathHop,
    ) -> Vec<(PathHop, u32)> {
        let VirtualServerKey::Address { protocol, .. } = key else { return Vec::new() };
        let (through, container) = (key.to_string(), Key::VirtualServer(key));
        let pods = |ip: IpAddr| self.pods.here().any(|pod| pod == ip);
        let leads = |(key, row): (&Key, &Row)| match (key, row) {
            (Key::RealServer(_, ip, port), Row::RealServer(server)) => {
                let mut path = path.to_backend(&through, (*ip, *port), protocol);
                path.masqueraded_as =
                    firewall::masqueraded_as(path.source, *ip, inputs.node, inputs.options, pods);
                Some((path, server.weight))
            }
            _ => None,
        };
        rows.contents(&container).filter_map(leads).collect()
    }
}

/// Virtual servers that packets of a path meet, by their address, and by port and protocol if those are asked for; and
/// whether there are others at that address.
fn meets<'a>(contests: &'a Contests, path: &PathHop) -> (Vec<(VirtualServerKey, &'a Claimant)>, bool) {
    let (mut met, mut others) = (Vec::new(), false);
    for (key, claimant) in contests.winners() {
        let VirtualServerKey::Address { ip, protocol, port } = *key else { continue };
        if ip != path.destination {
            continue;
        }
        let node_port = claimant.kind == super::frontends::Kind::NodePort;
        // Without a port, packets to a node's address are to the node.
        let asked = path.port.map_or(!node_port, |asked| asked == port)
            && path.transport().is_none_or(|asked| asked == protocol);
        if asked {
            met.push((*key, claimant));
        } else {
            others |= !node_port;
        }
    }
    met.sort_by_key(|(key, _)| *key);
    (met, others)
}

fn hop(
    key: VirtualServerKey,
    claimant: &Claimant,
    inputs: Inputs<'_>,
    rows: &Reconciler<Owner>,
    backends: &[(PathHop, u32)],
) -> ServiceHop {
    let key_of_row = Key::VirtualServer(key);
    let (scheduler, affinity_seconds) = match rows.desired(&key_of_row) {
        Some(Row::VirtualServer(server)) => (server.scheduler.as_str().to_owned(), server.persistence),
        _ => (String::new(), None),
    };
    let service = inputs.store.service(&claimant.service);
    let backend = |(path, weight): &(PathHop, u32)| Backend {
        at: std::net::SocketAddr::new(path.destination, path.port.unwrap_or_default()).to_string(),
        weight: *weight,
    };
    ServiceHop {
        service: claimant.service.to_string(),
        at: key.to_string(),
        kind: claimant.kind.as_str().to_owned(),
        scheduler,
        affinity_seconds,
        local_only: service.is_some_and(|service| claimant.kind.local_only(service)),
        programmed: rows.actual(&key_of_row).is_some(),
        backends: backends.iter().map(backend).collect(),
    }
}

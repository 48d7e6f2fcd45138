//! Who serves a frontend: from the endpoints of a Service to real servers with weights.
//!
//! Kubernetes' rules: ready endpoints take the traffic. One that is terminating but still serving takes none while
//! others are ready (weight 0: what it has may finish), and takes it when nobody else is left. A traffic policy of
//! Local looks at this node's endpoints only, before those rules are applied.

use std::collections::BTreeMap;
use std::net::IpAddr;

use linux::row::{Family, Protocol, Scheduler};

use crate::kube::model::{Endpoint, EndpointSlice, ServicePort, ServiceWishes};

/// A real server to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// 1, or 0 while it finishes what it has.
    pub weight: u32,
    /// Whether it runs on this node.
    pub local: bool,
}

/// `IP_VS_SVC_F_SCHED1`: with `sh` and `mh`, a client whose real server takes no new flows gets another.
const FALLBACK: u8 = 0x08;

/// Whether flows of a virtual server can be left to finish behind a real server of weight 0 while new ones go elsewhere.
///
/// UDP has no end to wait for. `dh` refuses every client hashed to such a server, `sh` and `mh` too unless they have the
/// fallback flag (`crates/linux/tests/ipvs_traffic.rs` shows it): with those a real server that leaves must go at once.
pub fn can_drain(protocol: Protocol, wishes: &ServiceWishes) -> bool {
    let respects_weight_zero = match wishes.scheduler {
        Scheduler::DestinationHash => false,
        Scheduler::SourceHash | Scheduler::Maglev => wishes.scheduler_flags & FALLBACK != 0,
        Scheduler::RoundRobin | Scheduler::LeastConnection | Scheduler::Other(_) => true,
    };
    protocol != Protocol::Udp && respects_weight_zero
}

/// The real servers of one port of a Service in one family, by address and port. O(endpoints of the Service).
pub fn backends<'a>(
    endpoints: impl Iterator<Item = (&'a EndpointSlice, &'a Endpoint)>,
    port: &ServicePort,
    family: Family,
    node: &str,
    local_only: bool,
    keep_terminating: bool,
) -> BTreeMap<(IpAddr, u16), Backend> {
    let mut ready = BTreeMap::new();
    let mut leaving = BTreeMap::new();
    for (slice, endpoint) in endpoints {
        let local = endpoint.node.as_deref() == Some(node);
        if Family::of(&endpoint.ip) != family || (local_only && !local) {
            continue;
        }
        // Serving without being ready or terminating should not occur; upstream uses such an endpoint, so do we.
        let takes_new = endpoint.ready || (endpoint.serving && !endpoint.terminating);
        let place = match (takes_new, endpoint.serving) {
            (true, _) => &mut ready,
            (false, true) => &mut leaving,
            (false, false) => continue,
        };
        let named =
            slice.ports.iter().filter(|other| other.name == port.name && other.protocol == port.protocol);
        place.extend(named.map(|target| ((endpoint.ip, target.port), Backend { weight: 1, local })));
    }
    if ready.is_empty() {
        return leaving;
    }
    if keep_terminating {
        for (address, backend) in leaving {
            ready.entry(address).or_insert(Backend { weight: 0, ..backend });
        }
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::model::{EndpointPort, ObjectName};

    fn endpoint(last: u8, node: &str, ready: bool, serving: bool, terminating: bool) -> Endpoint {
        let ip = IpAddr::from([10, 244, 0, last]);
        Endpoint { ip, ready, serving, terminating, node: Some(node.into()) }
    }

    fn weights(endpoints: Vec<Endpoint>, local_only: bool, keep: bool) -> Vec<(u8, u32)> {
        let port = EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 };
        let id = ObjectName { namespace: "default".into(), name: "web-1".into() };
        let slice = EndpointSlice {
            id,
            service: "web".into(),
            ports: [port].into(),
            endpoints: endpoints.clone(),
            triggered: None,
        };
        let port = ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
        let all = endpoints.iter().map(|endpoint| (&slice, endpoint));
        let found = backends(all, &port, Family::V4, "here", local_only, keep);
        found
            .into_iter()
            .map(|((ip, port), backend)| {
                assert_eq!(port, 8080);
                let IpAddr::V4(ip) = ip else { panic!("family") };
                (ip.octets()[3], backend.weight)
            })
            .collect()
    }

    #[test]
    fn ready_endpoints_serve_and_others_do_not() {
        let ready = endpoint(1, "here", true, true, false);
        let not_ready = endpoint(2, "here", false, false, false);
        assert_eq!(weights(vec![ready, not_ready], false, true), [(1, 1)]);
    }

    #[test]
    fn terminating_beside_ready_finishes_what_it_has() {
        let ready = endpoint(1, "here", true, true, false);
        let leaving = endpoint(2, "here", false, true, true);
        assert_eq!(weights(vec![ready.clone(), leaving.clone()], false, true), [(1, 1), (2, 0)]);
        assert_eq!(weights(vec![ready, leaving], false, false), [(1, 1)], "where weight 0 is not respected");
    }

    #[test]
    fn terminating_alone_takes_the_traffic() {
        let leaving = endpoint(2, "here", false, true, true);
        let gone = endpoint(3, "here", false, false, true);
        assert_eq!(weights(vec![leaving, gone], false, true), [(2, 1)]);
    }

    #[test]
    fn local_policy_counts_this_node_only() {
        let remote = endpoint(1, "there", true, true, false);
        let leaving = endpoint(2, "here", false, true, true);
        assert_eq!(weights(vec![remote.clone(), leaving], true, true), [(2, 1)]);
        assert_eq!(weights(vec![remote], true, true), []);
    }
}

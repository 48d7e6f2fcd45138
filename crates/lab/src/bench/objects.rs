//! The cluster that is measured, as the API objects a control plane would have made. Pure.
//!
//! Every Service has one TCP port, a ClusterIP of its own and one EndpointSlice; its endpoints are pods of another node
//! with addresses no other Service has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

/// The node's name and address.
pub(super) const NODE: &str = "node-1";
/// Its only address.
pub(super) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 11);
/// Port of every Service.
pub(super) const PORT: u16 = 80;
/// Port of every endpoint.
pub(super) const TARGET_PORT: u16 = 8080;

const SERVICES: u32 = u32::from_be_bytes([10, 96, 1, 0]);
const ENDPOINTS: u32 = u32::from_be_bytes([10, 128, 0, 0]);
/// Room between the endpoints of two Services: the first half for those at the start, the rest for those that replace
/// them. 10,000 Services take 10.128.0.0 to 10.137.255.255.
const STRIDE: u32 = 64;

/// This node.
pub(super) fn node(address: IpAddr, pods: &str) -> Value {
    json!({
        "metadata": {"name": NODE},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address.to_string()},
                                 {"type": "Hostname", "address": NODE}]},
    })
}

/// ClusterIP of the `index`th Service.
pub(super) fn cluster_ip(index: usize) -> IpAddr {
    Ipv4Addr::from(SERVICES + number(index)).into()
}

/// Address of the `endpoint`th endpoint of the `index`th Service; those from 32 on are for replacements.
pub(super) fn endpoint_ip(index: usize, endpoint: usize) -> IpAddr {
    Ipv4Addr::from(ENDPOINTS + number(index) * STRIDE + number(endpoint)).into()
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Name of the `index`th Service, in the namespace `default`.
pub(super) fn service_name(index: usize) -> String {
    format!("service-{index:05}")
}

/// The `index`th Service, with what a real one carries: labels, a selector, an annotation, all defaults filled in.
pub(super) fn service(index: usize) -> Value {
    let (name, ip) = (service_name(index), cluster_ip(index).to_string());
    json!({
        "metadata": {"name": name, "namespace": "default",
                     "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "bench"},
                     "annotations": {"example.com/owner": "team-bench"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                 "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                 "sessionAffinity": "None", "selector": {"app.kubernetes.io/name": name},
                 "ports": [{"name": "http", "protocol": "TCP", "port": PORT, "targetPort": TARGET_PORT}]},
        "status": {"loadBalancer": {}},
    })
}

/// Name of its EndpointSlice.
pub(super) fn slice_name(index: usize) -> String {
    format!("{}-x7k2p", service_name(index))
}

/// Its EndpointSlice with these addresses, all ready, on another node.
pub(super) fn slice(index: usize, addresses: impl IntoIterator<Item = IpAddr>) -> Value {
    slice_on(index, addresses.into_iter().map(|ip| SocketAddr::new(ip, TARGET_PORT)), "node-2")
}

/// Its EndpointSlice with endpoints on `node`; the port of the first is everyone's.
pub(super) fn slice_on(index: usize, endpoints: impl IntoIterator<Item = SocketAddr>, node: &str) -> Value {
    let endpoints: Vec<SocketAddr> = endpoints.into_iter().collect();
    let port = endpoints.first().map_or(TARGET_PORT, SocketAddr::port);
    let endpoints: Vec<Value> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| {
            json!({"addresses": [endpoint.ip().to_string()],
                   "conditions": {"ready": true, "serving": true, "terminating": false},
                   "nodeName": node,
                   "targetRef": {"kind": "Pod", "namespace": "default",
                                 "name": format!("{}-{number}", service_name(index))}})
        })
        .collect();
    json!({
        "metadata": {"name": slice_name(index), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": service_name(index),
                                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        "endpoints": endpoints,
    })
}

/// Its first `count` endpoints.
pub(super) fn endpoints(index: usize, count: usize) -> impl Iterator<Item = IpAddr> {
    (0..count).map(move |endpoint| endpoint_ip(index, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_services_share_an_address() {
        let count = 10_000;
        let services: BTreeSet<IpAddr> = (0..count).map(cluster_ip).collect();
        let first: BTreeSet<IpAddr> = (0..count).map(|index| endpoint_ip(index, 0)).collect();
        assert_eq!((services.len(), first.len()), (count, count));
        assert!(services.is_disjoint(&first));
        assert!(endpoint_ip(0, 63) < endpoint_ip(1, 0));
    }
}

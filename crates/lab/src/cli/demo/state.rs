//! What the demo judges by: the objects of the API server as they are once everything is ready, in the form the
//! questions need. Endpoints of services with a selector are found from the pods' labels, not from EndpointSlices, so
//! that whoever writes those is judged, too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lab::api_server::Resource;
use lab::cluster::{Cluster, is_ready};
use lab::probe::Protocol;
use serde_json::Value;

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) services: Vec<Service>,
    pub(super) pods: Vec<Pod>,
    /// `node-1` first.
    pub(super) nodes: Vec<Host>,
    pub(super) outside: Host,
}

/// A node or a host outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) ports: Vec<Port>,
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) external_ips: Vec<IpAddr>,
    pub(super) balancer_ips: Vec<IpAddr>,
    pub(super) sticky: bool,
    /// externalTrafficPolicy Local.
    pub(super) local: bool,
    pub(super) health_port: Option<u16>,
    pub(super) hairpin: bool,
    /// Who may answer, by name, with the node it is on (empty outside of the cluster).
    pub(super) backends: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    pub(super) node_port: Option<u16>,
}

impl State {
    /// Reads all of it from the cluster's API server.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let api = cluster.api();
        let nodes: Vec<Host> = cluster
            .nodes()
            .iter()
            .map(|node| Host { name: node.name().to_owned(), addresses: node.addresses() })
            .collect();
        let outside = Host { name: "outside".to_owned(), addresses: cluster.outside().addresses() };
        let objects: Vec<Arc<Value>> =
            api.list(Resource::Pods, None).into_iter().filter(|pod| is_ready(pod)).collect();
        let slices = api.list(Resource::EndpointSlices, None);
        let mut state =
            Self { services: Vec::new(), pods: objects.iter().map(self::pod).collect(), nodes, outside };
        for object in api.list(Resource::Services, None) {
            let mut service = service(&object);
            service.backends = match object.pointer("/spec/selector").and_then(Value::as_object) {
                Some(selector) => selected(selector, &service.namespace, &objects),
                None => state.by_hand(&service, &slices),
            };
            if !service.backends.is_empty() {
                state.services.push(service);
            }
        }
        state
    }

    /// Endpoints of a service without selector, by the name of whoever has the address.
    fn by_hand(&self, service: &Service, slices: &[Arc<Value>]) -> BTreeMap<String, String> {
        let of_service = |slice: &&Arc<Value>| {
            text(slice, "/metadata/namespace") == service.namespace
                && slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str)
                    == Some(service.name.as_str())
        };
        let endpoints = slices.iter().filter(of_service).flat_map(|slice| items(slice, "/endpoints"));
        let addresses = endpoints.flat_map(|endpoint| ips(items(endpoint, "/addresses"), ""));
        addresses.filter_map(|address| self.owner(address)).collect()
    }

    fn owner(&self, address: IpAddr) -> Option<(String, String)> {
        if self.outside.addresses.contains(&address) {
            return Some((self.outside.name.clone(), String::new()));
        }
        let pod = self.pods.iter().find(|pod| pod.addresses.contains(&address))?;
        Some((pod.name.clone(), pod.node.clone()))
    }
}

fn selected(
    selector: &serde_json::Map<String, Value>,
    namespace: &str,
    pods: &[Arc<Value>],
) -> BTreeMap<String, String> {
    let labelled = |pod: &&Arc<Value>| {
        let labels = pod.pointer("/metadata/labels");
        text(pod, "/metadata/namespace") == namespace
            && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let named =
        |pod: &Arc<Value>| (text(pod, "/metadata/name").to_owned(), text(pod, "/spec/nodeName").to_owned());
    pods.iter().filter(labelled).map(named).collect()
}

fn pod(pod: &Arc<Value>) -> Pod {
    Pod {
        namespace: text(pod, "/metadata/namespace").to_owned(),
        name: text(pod, "/metadata/name").to_owned(),
        node: text(pod, "/spec/nodeName").to_owned(),
        addresses: ips(items(pod, "/status/podIPs"), "/ip"),
    }
}

fn service(object: &Value) -> Service {
    let small = |value: &Value| {
        value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
    };
    let port = |port: &Value| {
        let protocol = match text(port, "/protocol") {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let node_port = port.get("nodePort").and_then(small);
        Some(Port { number: port.get("port").and_then(small)?, protocol, node_port })
    };
    Service {
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        ports: items(object, "/spec/ports").iter().filter_map(port).collect(),
        // "None" of a headless service is no address.
        cluster_ips: ips(items(object, "/spec/clusterIPs"), ""),
        external_ips: ips(items(object, "/spec/externalIPs"), ""),
        balancer_ips: ips(items(object, "/status/loadBalancer/ingress"), "/ip"),
        sticky: text(object, "/spec/sessionAffinity") == "ClientIP",
        local: text(object, "/spec/externalTrafficPolicy") == "Local",
        health_port: object.pointer("/spec/healthCheckNodePort").and_then(small),
        hairpin: object.pointer("/metadata/annotations/kube-router.io~1service.hairpin").is_some(),
        backends: BTreeMap::new(),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn ips(values: &[Value], pointer: &str) -> Vec<IpAddr> {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_read_with_all_its_addresses() {
        let read = service(&json!({
            "metadata": { "namespace": "shop", "name": "web", "annotations": { "kube-router.io/service.hairpin": "" } },
            "spec": {
                "clusterIPs": ["10.96.0.1", "fd96::1"], "externalIPs": ["203.0.113.1"],
                "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31500,
                "ports": [{ "port": 53, "protocol": "UDP", "nodePort": 30053 }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.1" }] } },
        }));
        assert_eq!((read.cluster_ips.len(), read.external_ips.len(), read.balancer_ips.len()), (2, 1, 1));
        assert!(read.sticky && read.local && read.hairpin && read.health_port == Some(31500));
        assert_eq!(
            read.ports.first().map(|port| (port.protocol, port.node_port)),
            Some((Protocol::Udp, Some(30053)))
        );
    }

    #[test]
    fn headless_services_have_no_address() {
        let read = service(&json!({ "metadata": { "name": "x" }, "spec": { "clusterIPs": ["None"] } }));
        assert!(read.cluster_ips.is_empty());
    }
}

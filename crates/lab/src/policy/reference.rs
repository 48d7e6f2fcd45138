//! What network policies mean, written from the descriptions of `networking.k8s.io/v1` in the Kubernetes API reference
//! and nothing else: no index, no cache, no code of the agent. It is slow and obvious, so that the agent can be judged
//! by it; the cases of Kubernetes' own end-to-end tests, whose outcome is known, judge it in turn.
//!
//! Objects are read as the API server returns them, defaults filled in. What is not valid there matches nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use crate::api_server::object::{items, text};
use crate::api_server::selector::LabelSelector;
use crate::api_server::{Handle, Resource};
use crate::probe::Protocol;

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub from: IpAddr,
    /// Whom it is for, after every translation.
    pub to: IpAddr,
    /// Transport.
    pub protocol: Protocol,
    /// Port of the receiver.
    pub port: u16,
}

/// The objects at one moment.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pods: Vec<Arc<Value>>,
    namespaces: Vec<Arc<Value>>,
    policies: Vec<Arc<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// The `policyTypes` value, the field of the rules, and the field of a rule's peers.
    fn fields(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Ingress => ("Ingress", "ingress", "from"),
            Self::Egress => ("Egress", "egress", "to"),
        }
    }
}

impl Objects {
    /// What the API server has now.
    pub fn of(api: &Handle) -> Self {
        Self {
            pods: api.list(Resource::Pods, None),
            namespaces: api.list(Resource::Namespaces, None),
            policies: api.list(Resource::NetworkPolicies, None),
        }
    }

    /// Whether the packet passes: "the egress policy on the source pod and the ingress policy on the destination pod both
    /// need to allow the traffic". A pod can always be reached from the node it runs on (concepts page of network
    /// policies). O(policies × rules × peers).
    pub fn allows(&self, packet: &Packet) -> bool {
        let (from, to) = (self.pod_at(packet.from), self.pod_at(packet.to));
        let leaves =
            from.is_none_or(|pod| self.allows_one(Direction::Egress, pod, packet.to, to, packet, to));
        let own_node = |pod: &Value| addresses(pod, "hostIPs").any(|host| host == packet.from);
        let enters = to.is_none_or(|pod| {
            own_node(pod) || self.allows_one(Direction::Ingress, pod, packet.from, from, packet, to)
        });
        leaves && enters
    }

    /// The pod with this address. Pods on the host's network have no address of their own, ended ones none any more.
    fn pod_at(&self, address: IpAddr) -> Option<&Value> {
        let has = |pod: &&Arc<Value>| is_networked(pod) && addresses(pod, "podIPs").any(|own| own == address);
        self.pods.iter().find(has).map(AsRef::as_ref)
    }

    /// "If no policy selects the pod, it is not isolated"; otherwise one rule of one of them has to fit.
    fn allows_one(
        &self,
        direction: Direction,
        pod: &Value,
        peer: IpAddr,
        peer_pod: Option<&Value>,
        packet: &Packet,
        receiver: Option<&Value>,
    ) -> bool {
        let (kind, rules, peers) = direction.fields();
        let mut selecting = self.policies.iter().filter(|policy| {
            namespace(policy) == namespace(pod)
                && items(policy, &["spec", "policyTypes"]).iter().any(|one| one == kind)
                && selects(policy.pointer("/spec/podSelector"), pod)
        });
        let fits = |policy: &Arc<Value>| {
            items(policy, &["spec", rules]).iter().any(|rule| {
                self.peer_fits(items(rule, &[peers]), namespace(policy), peer, peer_pod)
                    && port_fits(items(rule, &["ports"]), packet, receiver)
            })
        };
        let Some(first) = selecting.next() else { return true };
        fits(first) || selecting.any(fits)
    }

    /// "If this field is empty or missing, this rule matches all sources"; otherwise the items are combined by or.
    fn peer_fits(&self, peers: &[Value], home: &str, address: IpAddr, pod: Option<&Value>) -> bool {
        peers.is_empty() || peers.iter().any(|peer| self.one_peer_fits(peer, home, address, pod))
    }

    fn one_peer_fits(&self, peer: &Value, home: &str, address: IpAddr, pod: Option<&Value>) -> bool {
        if let Some(block) = peer.get("ipBlock") {
            return block_contains(block, address);
        }
        let (Some(pod), namespaces, pods) = (pod, peer.get("namespaceSelector"), peer.get("podSelector"))
        else {
            return false;
        };
        let space = self.namespaces.iter().find(|space| text(space, &["metadata", "name"]) == namespace(pod));
        let in_namespace = match namespaces {
            Some(selector) => space.is_some_and(|space| selects(Some(selector), space)),
            None => namespace(pod) == home,
        };
        in_namespace && (pods.is_none() || selects(pods, pod)) && (namespaces.is_some() || pods.is_some())
    }
}

/// "If this field is empty or missing, this rule matches all ports". A named port is one of the pod that receives.
fn port_fits(ports: &[Value], packet: &Packet, receiver: Option<&Value>) -> bool {
    let fits = |port: &Value| {
        if text(port, &["protocol"]) != packet.protocol.to_string() {
            return false;
        }
        match port.get("port") {
            None | Some(Value::Null) => true,
            Some(Value::String(name)) => receiver.is_some_and(|pod| has_port(pod, name, packet)),
            Some(first) => {
                let last = port.get("endPort").filter(|last| last.is_u64()).unwrap_or(first);
                let number = u64::from(packet.port);
                first.as_u64().is_some_and(|first| first <= number)
                    && last.as_u64().is_some_and(|last| number <= last)
            }
        }
    };
    ports.is_empty() || ports.iter().any(fits)
}

/// Whether the pod calls the packet's port so. Containers and sidecars (init containers that restart always) have ports.
fn has_port(pod: &Value, name: &str, packet: &Packet) -> bool {
    let sidecars = items(pod, &["spec", "initContainers"])
        .iter()
        .filter(|one| text(one, &["restartPolicy"]) == "Always");
    let containers = items(pod, &["spec", "containers"]).iter().chain(sidecars);
    containers.flat_map(|container| items(container, &["ports"])).any(|port| {
        text(port, &["name"]) == name
            && text(port, &["protocol"]) == packet.protocol.to_string()
            && port.get("containerPort").and_then(Value::as_u64) == Some(packet.port.into())
    })
}

/// In the block and in none of its exceptions.
fn block_contains(block: &Value, address: IpAddr) -> bool {
    let within = |net: &str| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    within(text(block, &["cidr"])) && !items(block, &["except"]).iter().filter_map(Value::as_str).any(within)
}

/// Whether a selector matches the object's labels. An empty one matches everything.
fn selects(selector: Option<&Value>, object: &Value) -> bool {
    selector.map(LabelSelector::from_object).unwrap_or_default().matches(object)
}

fn is_networked(pod: &Value) -> bool {
    let on_host = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    !on_host && !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

fn addresses<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = IpAddr> + use<'a> {
    items(pod, &["status", list]).iter().filter_map(|one| text(one, &["ip"]).parse().ok())
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;

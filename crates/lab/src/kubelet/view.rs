//! What a kubelet reads from a Pod and writes into its status: pure, JSON in, JSON out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::node::PortMapping;
use crate::probe::Protocol;

/// Annotation: `"false"` makes a running pod unready (`status.conditions[Ready]`).
pub const READY: &str = "lab/ready";
/// Annotation: `"false"` closes the pod's ports, and makes it unready, the moment its deletion begins; otherwise it
/// serves until its grace period is over, as a program that shuts down gracefully.
pub const SERVE_WHILE_TERMINATING: &str = "lab/serve-while-terminating";

/// Annotation: the kubelet leaves a pod that has it to whoever made it, who wires it and writes its status.
pub const HANDS_OFF: &str = "lab/hands-off";

/// A Pod as far as a kubelet of the lab cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) host_network: bool,
    pub(super) ports: Vec<(Protocol, u16)>,
    pub(super) mappings: Vec<PortMapping>,
    pub(super) containers: Vec<(String, String)>,
    /// Annotated ready, or not annotated.
    pub(super) wants_ready: bool,
    /// Seconds of grace, once deletion has begun.
    pub(super) terminating: Option<u64>,
    pub(super) serve_while_terminating: bool,
    pub(super) hands_off: bool,
}

impl View {
    /// None for something that is no Pod with a name.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let annotation = |name: &str| pod.pointer("/metadata/annotations")?.get(name)?.as_str();
        let containers =
            pod.pointer("/spec/containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let field = |container: &Value, key: &str| {
            container.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let seconds =
            || pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
        Some(Self {
            namespace: text("/metadata/namespace").unwrap_or("default").to_owned(),
            name: text("/metadata/name")?.to_owned(),
            uid: text("/metadata/uid").unwrap_or_default().to_owned(),
            node: text("/spec/nodeName").unwrap_or_default().to_owned(),
            host_network: pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false),
            // A port may have two names.
            ports: containers.iter().flat_map(ports).collect::<BTreeSet<_>>().into_iter().collect(),
            mappings: containers.iter().flat_map(listed).filter_map(mapping).collect(),
            containers: containers.iter().map(|c| (field(c, "name"), field(c, "image"))).collect(),
            wants_ready: annotation(READY) != Some("false"),
            terminating: text("/metadata/deletionTimestamp").map(|_| seconds()),
            serve_while_terminating: annotation(SERVE_WHILE_TERMINATING) != Some("false"),
            hands_off: annotation(HANDS_OFF).is_some(),
        })
    }

    /// Whether its Ready condition is to be true, given that it runs.
    pub(super) fn ready(&self) -> bool {
        self.wants_ready && (self.terminating.is_none() || self.serve_while_terminating)
    }
}

fn listed(container: &Value) -> &[Value] {
    container.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn ports(container: &Value) -> impl Iterator<Item = (Protocol, u16)> {
    listed(container).iter().filter_map(|port| {
        let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
        let protocol = match port.get("protocol").and_then(Value::as_str) {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        Some((protocol, number))
    })
}

fn mapping(port: &Value) -> Option<PortMapping> {
    let number = |key: &str| u16::try_from(port.get(key)?.as_u64()?).ok();
    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_lowercase();
    Some(PortMapping { host_port: number("hostPort")?, container_port: number("containerPort")?, protocol })
}

/// `status` of a running pod. `since` is its start, `now` the time of this change (RFC 3339).
pub(super) fn running(view: &View, pod: &[IpAddr], host: &[IpAddr], since: &str, now: &str) -> Value {
    let ready = view.ready();
    let condition = |kind: &str, on: bool| {
        let status = if on { "True" } else { "False" };
        json!({ "type": kind, "status": status, "lastTransitionTime": now })
    };
    let list =
        |addresses: &[IpAddr]| addresses.iter().map(|ip| json!({ "ip": ip.to_string() })).collect::<Vec<_>>();
    let container = |(name, image): &(String, String)| {
        json!({
            "name": name, "image": image, "imageID": "", "containerID": format!("lab://{}/{name}", view.uid),
            "ready": ready, "started": true, "restartCount": 0, "state": { "running": { "startedAt": since } },
        })
    };
    json!({
        "phase": "Running", "startTime": since,
        "podIP": pod.first().map(IpAddr::to_string), "podIPs": list(pod),
        "hostIP": host.first().map(IpAddr::to_string), "hostIPs": list(host),
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
        "containerStatuses": view.containers.iter().map(container).collect::<Vec<_>>(),
    })
}

/// `status` of a pod that could not be started: stays Pending, with the reason.
pub(super) fn waiting(reason: &str) -> Value {
    json!({ "phase": "Pending", "reason": "LabCannotStart", "message": reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": { "name": "web-0", "namespace": "shop", "uid": "u" },
            "spec": { "nodeName": "node-1", "containers": [
                { "name": "c", "image": "i", "ports": [
                    { "containerPort": 80 }, { "containerPort": 53, "protocol": "UDP", "hostPort": 5353 },
                    { "containerPort": 99999 },
                ] },
            ] },
        })
    }

    #[test]
    fn ports_default_to_tcp_and_bad_ones_are_left_out() {
        let view = View::of(&pod()).expect("a pod");
        assert_eq!(view.ports, [(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        let mapping = PortMapping { host_port: 5353, container_port: 53, protocol: "udp".to_owned() };
        assert_eq!(view.mappings, [mapping]);
        assert!(view.ready() && !view.host_network && view.terminating.is_none());
    }

    #[test]
    fn readiness_follows_the_annotations() {
        let mut pod = pod();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(7);
        let view = View::of(&pod).expect("a pod");
        assert_eq!((view.terminating, view.ready()), (Some(7), true));
        pod["metadata"]["annotations"] = json!({ SERVE_WHILE_TERMINATING: "false" });
        assert!(!View::of(&pod).expect("a pod").ready());
        pod["metadata"]["annotations"] = json!({ READY: "false" });
        let view = View::of(&pod).expect("a pod");
        let status = running(&view, &["10.0.0.2".parse().expect("ip")], &[], "s", "n");
        assert_eq!(status["conditions"][3]["status"], "False");
        assert_eq!(status["podIPs"], json!([{ "ip": "10.0.0.2" }]));
    }
}

//! The JSON of the API server, as far as this agent reads it.
//!
//! Our own structs instead of the whole API types: a field that no plan reads is skipped by the parser and costs
//! nothing (`managedFields` alone is a third of an average Pod). Every field is [`Lenient`] and nothing is checked
//! here; [`super::convert`] turns this into the model and says what is wrong. Field names are those of the
//! Kubernetes API, version v1 of core and discovery.k8s.io.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::lenient::Lenient;

/// A list of lenient things; an element of the wrong type does not spoil its neighbours.
pub type List<T> = Lenient<Vec<Lenient<T>>>;
/// Text that may be anything else.
pub type Text = Lenient<String>;
/// A large part of an object, out of line: an object is handed on a dozen times until it is converted.
pub type Part<T> = Lenient<Box<T>>;

/// Declares structs whose every field is optional and lenient, named as in JSON by camel case.
macro_rules! wire {
    ($($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        #[allow(missing_docs)] // the API reference documents them
        pub struct $name {
            $($(#[$attribute])* pub $field: $type,)*
        }
    )*};
}

wire! {
    /// `metadata` of any object.
    Meta {
        name: Text,
        namespace: Text,
        uid: Text,
        generate_name: Text,
        resource_version: Text,
        creation_timestamp: Text,
        deletion_timestamp: Text,
        labels: Lenient<BTreeMap<String, Text>>,
        annotations: Lenient<BTreeMap<String, Text>>,
        owner_references: List<OwnerReference>,
    }
    /// `metadata.ownerReferences[]`
    OwnerReference {
        name: Text,
    }

    /// Service
    Service {
        metadata: Part<Meta>,
        spec: Part<ServiceSpec>,
        status: Part<ServiceStatus>,
    }
    /// `spec` of a Service.
    ServiceSpec {
        #[serde(rename = "type")]
        kind: Text,
        #[serde(rename = "clusterIP")]
        cluster_ip: Text,
        #[serde(rename = "clusterIPs")]
        cluster_ips: List<String>,
        #[serde(rename = "externalIPs")]
        external_ips: List<String>,
        ports: List<ServicePort>,
        session_affinity: Text,
        session_affinity_config: Lenient<SessionAffinityConfig>,
        internal_traffic_policy: Text,
        external_traffic_policy: Text,
        health_check_node_port: Lenient<i64>,
    }
    /// `spec.ports[]` of a Service.
    ServicePort {
        name: Text,
        protocol: Text,
        port: Lenient<i64>,
        node_port: Lenient<i64>,
    }
    /// `spec.sessionAffinityConfig`
    SessionAffinityConfig {
        #[serde(rename = "clientIP")]
        client_ip: Lenient<ClientIpConfig>,
    }
    /// `spec.sessionAffinityConfig.clientIP`
    ClientIpConfig {
        timeout_seconds: Lenient<i64>,
    }
    /// `status` of a Service.
    ServiceStatus {
        load_balancer: Lenient<LoadBalancerStatus>,
    }
    /// `status.loadBalancer`
    LoadBalancerStatus {
        ingress: List<LoadBalancerIngress>,
    }
    /// `status.loadBalancer.ingress[]`
    LoadBalancerIngress {
        ip: Text,
        ip_mode: Text,
    }

    /// EndpointSlice
    EndpointSlice {
        metadata: Part<Meta>,
        address_type: Text,
        ports: List<EndpointPort>,
        endpoints: List<Endpoint>,
    }
    /// `ports[]` of an EndpointSlice.
    EndpointPort {
        name: Text,
        protocol: Text,
        port: Lenient<i64>,
    }
    /// `endpoints[]` of an EndpointSlice.
    Endpoint {
        addresses: List<String>,
        conditions: Lenient<EndpointConditions>,
        node_name: Text,
    }
    /// `endpoints[].conditions`
    EndpointConditions {
        ready: Lenient<bool>,
        serving: Lenient<bool>,
        terminating: Lenient<bool>,
    }

    /// Node
    Node {
        metadata: Part<Meta>,
        spec: Part<NodeSpec>,
        status: Part<NodeStatus>,
    }
    /// `spec` of a Node.
    NodeSpec {
        #[serde(rename = "podCIDR")]
        pod_cidr: Text,
        #[serde(rename = "podCIDRs")]
        pod_cidrs: List<String>,
    }
    /// `status` of a Node.
    NodeStatus {
        addresses: List<NodeAddress>,
    }
    /// `status.addresses[]` of a Node.
    NodeAddress {
        #[serde(rename = "type")]
        kind: Text,
        address: Text,
    }

    /// Pod
    Pod {
        metadata: Part<Meta>,
        spec: Part<PodSpec>,
        status: Part<PodStatus>,
    }
    /// `spec` of a Pod.
    PodSpec {
        node_name: Text,
        host_network: Lenient<bool>,
        termination_grace_period_seconds: Lenient<i64>,
        containers: List<Container>,
        init_containers: List<Container>,
    }
    /// `spec.containers[]`, `spec.initContainers[]`
    Container {
        restart_policy: Text,
        ports: List<ContainerPort>,
    }
    /// `spec.containers[].ports[]`
    ContainerPort {
        name: Text,
        protocol: Text,
        container_port: Lenient<i64>,
    }
    /// `status` of a Pod.
    PodStatus {
        phase: Text,
        #[serde(rename = "podIP")]
        pod_ip: Text,
        #[serde(rename = "podIPs")]
        pod_ips: List<PodIp>,
    }
    /// `status.podIPs[]`
    PodIp {
        ip: Text,
    }

    /// Namespace
    Namespace {
        metadata: Part<Meta>,
    }

    /// NetworkPolicy
    NetworkPolicy {
        metadata: Part<Meta>,
        spec: Part<NetworkPolicySpec>,
    }
    /// `spec` of a NetworkPolicy.
    NetworkPolicySpec {
        pod_selector: Lenient<LabelSelector>,
        policy_types: List<String>,
        ingress: List<IngressRule>,
        egress: List<EgressRule>,
    }
    /// `spec.ingress[]`
    IngressRule {
        from: List<PolicyPeer>,
        ports: List<PolicyPort>,
    }
    /// `spec.egress[]`
    EgressRule {
        to: List<PolicyPeer>,
        ports: List<PolicyPort>,
    }
    /// A NetworkPolicyPeer.
    PolicyPeer {
        pod_selector: Lenient<LabelSelector>,
        namespace_selector: Lenient<LabelSelector>,
        ip_block: Lenient<IpBlock>,
    }
    /// `ipBlock`
    IpBlock {
        cidr: Text,
        except: List<String>,
    }
    /// A NetworkPolicyPort.
    PolicyPort {
        protocol: Text,
        port: Lenient<IntOrString>,
        end_port: Lenient<i64>,
    }
    /// `metav1.LabelSelector`
    LabelSelector {
        match_labels: Lenient<BTreeMap<String, Text>>,
        match_expressions: List<LabelExpression>,
    }
    /// `matchExpressions[]`
    LabelExpression {
        key: Text,
        operator: Text,
        values: List<String>,
    }

    /// `metadata` of a list.
    ListMeta {
        resource_version: Text,
        #[serde(rename = "continue")]
        next: Text,
    }
}

/// A number or a name (`intstr.IntOrString`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Number(i64),
    /// A name, or the digits of a number.
    Text(String),
}

/// A page of a list. `items` is strict: a list that cannot be read must fail, never look empty.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub struct Page<T> {
    /// Version of the list, and where its next page begins.
    #[serde(default)]
    pub metadata: ListMeta,
    /// Objects; null in a list without any, but always there.
    #[serde(deserialize_with = "Option::deserialize")]
    pub items: Option<Vec<T>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_items_fails_and_null_is_empty() {
        assert!(serde_json::from_str::<Page<Service>>(r#"{"kind": "Status"}"#).is_err());
        assert!(
            serde_json::from_str::<Page<Service>>(r#"{"items": null}"#)
                .is_ok_and(|page| page.items.is_none())
        );
        assert!(serde_json::from_str::<Page<Service>>(r#"{"items": {}}"#).is_err());
    }

    #[test]
    fn names_are_those_of_the_api() {
        let service: Service = serde_json::from_str(
            r#"{"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "externalIPs": ["192.0.2.1"],
                "type": "NodePort", "healthCheckNodePort": 30001, "ports": [{"nodePort": 30000}],
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}}"#,
        )
        .expect("readable");
        let spec = service.spec.found().expect("spec");
        assert!(spec.cluster_ip.get().is_some() && spec.cluster_ips.get().is_some_and(|ips| ips.len() == 1));
        assert!(spec.external_ips.get().is_some_and(|ips| ips.len() == 1));
        assert!(spec.kind.get().is_some() && spec.health_check_node_port.get().is_some());
        let config = spec.session_affinity_config.found().and_then(|config| config.client_ip.found());
        assert_eq!(config.expect("config").timeout_seconds, Lenient::Found(5));
    }
}

//! The cluster as this agent sees it: small, typed, parsed once.
//!
//! Nothing here knows the wire format ([`super::convert`] does) and nothing here decides anything. A field that no
//! plan reads is not kept.

mod labels;
mod policy;
mod uid;

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use linux::order;
use linux::row::{Name, Protocol, Scheduler};

use crate::annotations::RoutingAnnotations;
pub use labels::{Labels, Operator, Requirement, Selector};
pub use policy::{NamedPort, Namespace, NetworkPolicy, Peer, PolicyPort, PolicyRule, PortRange};
pub use uid::PodUid;

use crate::objection::{ObjectRef, Objection};

/// Namespace and name of an object. Ordered by namespace, then name, compared field by field: `a-b/c` and `a/b-c`
/// never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// Namespace; empty for cluster-wide objects.
    pub namespace: Name,
    /// Name.
    pub name: Name,
}

impl Ord for ObjectName {
    fn cmp(&self, other: &ObjectName) -> Ordering {
        order::names(&self.namespace, &other.namespace).then_with(|| order::names(&self.name, &other.name))
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &ObjectName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ObjectName {
    /// This object as objections name it.
    pub fn of_kind(&self, kind: Kind) -> ObjectRef {
        ObjectRef { kind: kind.as_str(), namespace: self.namespace.to_string(), name: self.name.to_string() }
    }

    /// A name in no namespace, as those of Nodes are.
    pub fn cluster_wide(name: Name) -> ObjectName {
        ObjectName { namespace: Name::from(""), name }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service that some node may have to proxy or advertise. Services that never concern us (ExternalName, headless,
/// another proxy's) are not kept at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub id: ObjectName,
    /// `metadata.creationTimestamp`, seconds since 1970; the older of two claimants of one address keeps it.
    pub created: i64,
    /// `spec.clusterIPs` (and `spec.clusterIP`), without duplicates.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, not yet validated against the ranges.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is not `Proxy`, not yet validated against the ranges.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.type` is LoadBalancer.
    pub is_load_balancer: bool,
    /// `spec.sessionAffinity` ClientIP: its timeout in seconds.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy` is Local.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is Local, or annotation `kube-router.io/service.local` is true.
    pub external_local: bool,
    /// `spec.healthCheckNodePort`, if not 0.
    pub health_check_port: Option<u16>,
    /// Annotations that concern us.
    pub wishes: ServiceWishes,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name by which EndpointSlices give the backend port; empty for the only port of a service.
    pub name: Name,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the cluster, external and load balancer addresses.
    pub port: u16,
    /// Port on nodes, if any.
    pub node_port: Option<u16>,
}

/// What a Service's annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceWishes {
    /// `kube-router.io/service.scheduler`; round robin unless asked.
    pub scheduler: Scheduler,
    /// `kube-router.io/service.schedflags` as kernel bits; only with the Maglev scheduler.
    pub scheduler_flags: u8,
    /// `kube-router.io/service.hairpin` (or the old `kube-router.io/hairpin-mode`).
    pub hairpin: bool,
    /// `kube-router.io/service.hairpin.externalips`.
    pub hairpin_external_ips: bool,
    /// `kube-router.io/service.skiplbips`: load balancer addresses are neither programmed nor advertised.
    pub skip_load_balancer_ips: bool,
    /// `kube-router.io/service.dsr: tunnel`: direct server return for external addresses.
    pub direct_return: bool,
    /// `kube-router.io/service.advertise.clusterip`
    pub advertise_cluster_ip: Option<bool>,
    /// `kube-router.io/service.advertise.externalip`
    pub advertise_external_ip: Option<bool>,
    /// `kube-router.io/service.advertise.loadbalancerip`
    pub advertise_load_balancer_ip: Option<bool>,
}

impl Default for ServiceWishes {
    fn default() -> ServiceWishes {
        ServiceWishes {
            scheduler: Scheduler::RoundRobin,
            scheduler_flags: 0,
            hairpin: false,
            hairpin_external_ips: false,
            skip_load_balancer_ips: false,
            direct_return: false,
            advertise_cluster_ip: None,
            advertise_external_ip: None,
            advertise_load_balancer_ip: None,
        }
    }
}

/// An EndpointSlice of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Which.
    pub id: ObjectName,
    /// Name of its Service, in the same namespace.
    pub service: Name,
    /// `ports`; one without a number serves nothing and is not kept.
    pub ports: Arc<[EndpointPort]>,
    /// `endpoints`, one for each usable address.
    pub endpoints: Vec<Endpoint>,
    /// `endpoints.kubernetes.io/last-change-trigger-time`, milliseconds since 1970: when the change behind this
    /// version of the slice happened, for programming-latency metrics.
    pub triggered: Option<i64>,
}

impl EndpointSlice {
    /// Its Service.
    pub fn service_id(&self) -> ObjectName {
        ObjectName { namespace: self.id.namespace.clone(), name: self.service.clone() }
    }
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name; matches [`ServicePort::name`].
    pub name: Name,
    /// Protocol.
    pub protocol: Protocol,
    /// Port the backend listens on.
    pub port: u16,
}

/// A backend address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address. Two endpoints of a slice may share one (pods on the host's network): ready and serving are then the
    /// better of both.
    pub ip: IpAddr,
    /// `conditions.ready`; absent means ready, as the API says.
    pub ready: bool,
    /// `conditions.serving`; absent means as ready.
    pub serving: bool,
    /// `conditions.terminating`; absent means no.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<Name>,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: Name,
    /// `status.addresses` of type InternalIP, in order.
    pub internal_ips: Vec<IpAddr>,
    /// `status.addresses` of type ExternalIP, in order.
    pub external_ips: Vec<IpAddr>,
    /// Pod prefixes: annotation `kube-router.io/pod-cidr`, else `kube-router.io/pod-cidrs`, else `spec.podCIDRs`
    /// (`spec.podCIDR`).
    pub pod_cidrs: Vec<IpNet>,
    /// What its annotations say of routing.
    pub routing: Arc<RoutingAnnotations>,
}

impl Node {
    /// This object, but what it no longer says of a family's addresses or of pod prefixes, and `before` did, as before: a
    /// node that registers anew is not a node without them.
    pub fn keeping(mut self, before: Option<&Node>) -> Node {
        let Some(before) = before else { return self };
        for family in linux::row::Family::ALL {
            let of = |ip: &&IpAddr| linux::row::Family::of(ip) == family;
            if self.best_ip(family).is_none() {
                self.internal_ips.extend(before.internal_ips.iter().filter(of));
                self.external_ips.extend(before.external_ips.iter().filter(of));
            }
        }
        if self.pod_cidrs.is_empty() {
            self.pod_cidrs.clone_from(&before.pod_cidrs);
        }
        self
    }

    /// The primary address: first InternalIP, else first ExternalIP.
    pub fn primary_ip(&self) -> Option<IpAddr> {
        self.internal_ips.first().or(self.external_ips.first()).copied()
    }

    /// The best address of a family: the primary if it is of that family, else the first internal, else external.
    pub fn best_ip(&self, family: linux::row::Family) -> Option<IpAddr> {
        self.internal_ips
            .iter()
            .chain(&self.external_ips)
            .copied()
            .find(|ip| linux::row::Family::of(ip) == family)
    }
}

/// A Pod. The service proxy watches those of this node, and all where removed endpoints drain; network policy watches
/// all. Labels and ports are shared by the pods made from one template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Which.
    pub id: ObjectName,
    /// Which of those that have had this name.
    pub uid: PodUid,
    /// `status.podIPs`; before the API server shows any, those of [`crate::store::Announced`].
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: Option<Name>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.phase` is Succeeded or Failed.
    pub finished: bool,
    /// `metadata.deletionTimestamp` is set: it is being deleted, and goes when its containers and its sandbox are gone.
    pub terminating: bool,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Named ports of containers and of init containers that run on (`restartPolicy: Always`), by name.
    pub ports: Arc<[NamedPort]>,
}

/// Any object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
    Pod(Pod),
    Namespace(Namespace),
    NetworkPolicy(NetworkPolicy),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::Node(_) => Kind::Node,
            Object::Pod(_) => Kind::Pod,
            Object::Namespace(_) => Kind::Namespace,
            Object::NetworkPolicy(_) => Kind::NetworkPolicy,
        }
    }

    /// Its name.
    pub fn id(&self) -> ObjectName {
        match self {
            Object::Service(service) => service.id.clone(),
            Object::EndpointSlice(slice) => slice.id.clone(),
            Object::Node(node) => ObjectName::cluster_wide(node.name.clone()),
            Object::Pod(pod) => pod.id.clone(),
            Object::Namespace(namespace) => ObjectName::cluster_wide(namespace.name.clone()),
            Object::NetworkPolicy(policy) => policy.id.clone(),
        }
    }
}

/// Kinds of objects watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Service,
    EndpointSlice,
    Node,
    Pod,
    Namespace,
    NetworkPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Pod, Kind::Namespace, Kind::NetworkPolicy];

    /// `kind` of such an object.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Node => "Node",
            Kind::Pod => "Pod",
            Kind::Namespace => "Namespace",
            Kind::NetworkPolicy => "NetworkPolicy",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a watch tells the store.
#[derive(Debug)]
pub enum WatchEvent {
    /// A complete list begins. Nothing is gone until it ends.
    ListBegins(Kind),
    /// An object as it is now, in a list or by itself, and what of it was left out. The objections replace those of
    /// its earlier versions.
    Applied(Object, Vec<Objection>),
    /// An object of the list, or changed to, something that does not concern us or cannot be used: treated as absent.
    Ignored(Kind, ObjectName, Vec<Objection>),
    /// An object is gone.
    Deleted(Kind, ObjectName),
    /// The list is complete: what it did not name is gone.
    ListEnds(Kind),
    /// The watch is broken (text for a person); the last known state stays valid. Repeated about once a minute.
    Broken(Kind, String),
    /// The watch that was broken works again. Nothing changed by that alone.
    Mended(Kind),
}

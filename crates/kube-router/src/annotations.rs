//! The annotations of kube-router: their keys, and what those of a Service and of a Node mean.
//!
//! Decided here, from the annotations of one object alone: typed values, and an [`Objection`] for each text that means
//! nothing. A value that cannot be read never hides the others.

mod peers;
mod routing;

pub use peers::NodePeer;
pub use routing::{Prepend, Reflector, RoutingAnnotations};

use crate::objection::{ObjectRef, Objection};
use crate::options::syntax::go_bool;

/// Keys on Services.
pub mod service {
    /// Direct server return; the value `tunnel` switches it on.
    pub const DSR: &str = "kube-router.io/service.dsr";
    /// The IPVS scheduler.
    pub const SCHEDULER: &str = "kube-router.io/service.scheduler";
    /// Flags of the scheduler `mh`.
    pub const SCHEDULER_FLAGS: &str = "kube-router.io/service.schedflags";
    /// Its presence lets the service's pods reach themselves through it.
    pub const HAIRPIN: &str = "kube-router.io/service.hairpin";
    /// The name of [`HAIRPIN`] in early deployments.
    pub const HAIRPIN_OLDER: &str = "kube-router.io/hairpin-mode";
    /// Its presence extends [`HAIRPIN`] to external IPs.
    pub const HAIRPIN_EXTERNAL_IPS: &str = "kube-router.io/service.hairpin.externalips";
    /// `true`: external traffic goes to endpoints of this node only.
    pub const LOCAL: &str = "kube-router.io/service.local";
    /// Its presence leaves load-balancer IPs to others.
    pub const SKIP_LOAD_BALANCER_IPS: &str = "kube-router.io/service.skiplbips";
    /// Whether cluster IPs are advertised, whatever the flag says.
    pub const ADVERTISE_CLUSTER_IP: &str = "kube-router.io/service.advertise.clusterip";
    /// Whether external IPs are advertised, whatever the flag says.
    pub const ADVERTISE_EXTERNAL_IP: &str = "kube-router.io/service.advertise.externalip";
    /// Whether load-balancer IPs are advertised, whatever the flag says.
    pub const ADVERTISE_LOAD_BALANCER_IP: &str = "kube-router.io/service.advertise.loadbalancerip";
    /// All keys the agent reads on a Service: what the store has to keep.
    pub const ALL: [&str; 11] = [
        DSR,
        SCHEDULER,
        SCHEDULER_FLAGS,
        HAIRPIN,
        HAIRPIN_OLDER,
        HAIRPIN_EXTERNAL_IPS,
        LOCAL,
        SKIP_LOAD_BALANCER_IPS,
        ADVERTISE_CLUSTER_IP,
        ADVERTISE_EXTERNAL_IP,
        ADVERTISE_LOAD_BALANCER_IP,
    ];
}

/// Keys on Nodes.
pub mod node {
    /// The node's pod network, before `spec.podCIDR`.
    pub const POD_CIDR: &str = "kube-router.io/pod-cidr";
    /// The node's pod networks, before `spec.podCIDRs`.
    pub const POD_CIDRS: &str = "kube-router.io/pod-cidrs";
    /// The node's AS number.
    pub const ASN: &str = "kube-router.io/node.asn";
    /// Communities added to what external peers are told.
    pub const BGP_COMMUNITIES: &str = "kube-router.io/node.bgp.communities";
    /// Prefixes not accepted from peers.
    pub const BGP_IMPORT_REJECT: &str = "kube-router.io/node.bgp.customimportreject";
    /// The AS number put before the path.
    pub const PATH_PREPEND_AS: &str = "kube-router.io/path-prepend.as";
    /// How often it is put there.
    pub const PATH_PREPEND_REPEAT: &str = "kube-router.io/path-prepend.repeat-n";
    /// Makes the node a route reflector of this cluster ID.
    pub const ROUTE_REFLECTOR_SERVER: &str = "kube-router.io/rr.server";
    /// Makes the node a client of the reflectors.
    pub const ROUTE_REFLECTOR_CLIENT: &str = "kube-router.io/rr.client";
    /// Addresses the speaker listens on.
    pub const BGP_LOCAL_ADDRESSES: &str = "kube-router.io/bgp-local-addresses";
    /// External peers of the node, as YAML.
    pub const PEERS: &str = "kube-router.io/peers";
    /// Addresses of external peers.
    pub const PEER_IPS: &str = "kube-router.io/peer.ips";
    /// AS numbers of external peers.
    pub const PEER_ASNS: &str = "kube-router.io/peer.asns";
    /// Ports of external peers.
    pub const PEER_PORTS: &str = "kube-router.io/peer.ports";
    /// Passwords of external peers, in base64.
    pub const PEER_PASSWORDS: &str = "kube-router.io/peer.passwords";
    /// Local addresses of the sessions with external peers.
    pub const PEER_LOCAL_IPS: &str = "kube-router.io/peer.localips";
    /// All keys the agent reads on a Node.
    pub const ALL: [&str; 16] = [
        POD_CIDR,
        POD_CIDRS,
        ASN,
        BGP_COMMUNITIES,
        BGP_IMPORT_REJECT,
        PATH_PREPEND_AS,
        PATH_PREPEND_REPEAT,
        ROUTE_REFLECTOR_SERVER,
        ROUTE_REFLECTOR_CLIENT,
        BGP_LOCAL_ADDRESSES,
        PEERS,
        PEER_IPS,
        PEER_ASNS,
        PEER_PORTS,
        PEER_PASSWORDS,
        PEER_LOCAL_IPS,
    ];
}

/// An IPVS scheduler of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// Round robin.
    #[default]
    RoundRobin,
    /// Weighted round robin.
    WeightedRoundRobin,
    /// Least connections.
    LeastConnections,
    /// Weighted least connections.
    WeightedLeastConnections,
    /// Locality-based least connections.
    LocalityLeastConnections,
    /// Locality-based least connections with replication.
    LocalityLeastConnectionsReplicated,
    /// Hash of the destination.
    DestinationHash,
    /// Hash of the source.
    SourceHash,
    /// Shortest expected delay.
    ShortestExpectedDelay,
    /// Never queue.
    NeverQueue,
    /// Maglev consistent hash of the source.
    Maglev,
}

impl Scheduler {
    /// Every scheduler with the kernel's name for it (module `ip_vs_<name>`).
    const NAMES: [(Scheduler, &'static str); 11] = [
        (Scheduler::RoundRobin, "rr"),
        (Scheduler::WeightedRoundRobin, "wrr"),
        (Scheduler::LeastConnections, "lc"),
        (Scheduler::WeightedLeastConnections, "wlc"),
        (Scheduler::LocalityLeastConnections, "lblc"),
        (Scheduler::LocalityLeastConnectionsReplicated, "lblcr"),
        (Scheduler::DestinationHash, "dh"),
        (Scheduler::SourceHash, "sh"),
        (Scheduler::ShortestExpectedDelay, "sed"),
        (Scheduler::NeverQueue, "nq"),
        (Scheduler::Maglev, "mh"),
    ];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(scheduler, _)| *scheduler == self).map_or("rr", |(_, name)| name)
    }

    /// The scheduler of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(scheduler, _)| *scheduler)
    }
}

/// The scheduler flags of an IPVS service (`IP_VS_SVC_F_SCHED1..3`): for `mh`, fallback and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerFlags {
    /// `flag-1`: fall back to another server when the chosen one is unavailable.
    pub one: bool,
    /// `flag-2`: hash the source port too.
    pub two: bool,
    /// `flag-3`.
    pub three: bool,
}

/// What the annotations of a Service say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceAnnotations {
    /// The IPVS scheduler.
    pub scheduler: Scheduler,
    /// Its flags; set with [`Scheduler::Maglev`] only.
    pub scheduler_flags: SchedulerFlags,
    /// Direct server return by tunnel.
    pub dsr: bool,
    /// Pods may reach themselves through the service.
    pub hairpin: bool,
    /// Also through its external IPs.
    pub hairpin_external_ips: bool,
    /// External traffic goes to endpoints of this node only.
    pub local: bool,
    /// Load-balancer IPs are left to others.
    pub skip_load_balancer_ips: bool,
    /// Advertise cluster IPs; `None` leaves it to the flag.
    pub advertise_cluster_ip: Option<bool>,
    /// Advertise external IPs; `None` leaves it to the flag.
    pub advertise_external_ip: Option<bool>,
    /// Advertise load-balancer IPs; `None` leaves it to the flag.
    pub advertise_load_balancer_ip: Option<bool>,
}

impl ServiceAnnotations {
    /// Reads the annotations of `object`; `get` finds the value of a key.
    pub fn read<'a>(object: &ObjectRef, get: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<Objection>) {
        let mut reader = Reader { object, get, objections: Vec::new() };
        let scheduler = reader.scheduler();
        let annotations = Self {
            scheduler,
            scheduler_flags: reader.scheduler_flags(scheduler),
            dsr: reader.dsr(),
            hairpin: reader.present(service::HAIRPIN) | reader.present(service::HAIRPIN_OLDER),
            hairpin_external_ips: reader.present(service::HAIRPIN_EXTERNAL_IPS),
            local: reader.local(),
            skip_load_balancer_ips: reader.present(service::SKIP_LOAD_BALANCER_IPS),
            advertise_cluster_ip: reader.switch(service::ADVERTISE_CLUSTER_IP),
            advertise_external_ip: reader.switch(service::ADVERTISE_EXTERNAL_IP),
            advertise_load_balancer_ip: reader.switch(service::ADVERTISE_LOAD_BALANCER_IP),
        };
        (annotations, reader.objections)
    }
}

/// What is wrong with the value of an annotation.
fn unusable(object: &ObjectRef, key: &str, value: &str, reason: &str, remedy: &str) -> Objection {
    Objection {
        object: object.clone(),
        field: format!("metadata.annotations[{key}]"),
        value: value.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

struct Reader<'o, G> {
    object: &'o ObjectRef,
    get: G,
    objections: Vec<Objection>,
}

impl<'a, G: Fn(&str) -> Option<&'a str>> Reader<'_, G> {
    fn object_to(&mut self, key: &str, value: &str, reason: &str, remedy: &str) {
        self.objections.push(unusable(self.object, key, value, reason, remedy));
    }

    fn scheduler(&mut self) -> Scheduler {
        let Some(text) = (self.get)(service::SCHEDULER) else { return Scheduler::default() };
        Scheduler::from_name(text).unwrap_or_else(|| {
            let remedy = "use one of rr lc dh sh mh wrr wlc lblc lblcr sed nq; rr is used until then";
            self.object_to(service::SCHEDULER, text, "is not a scheduler", remedy);
            Scheduler::default()
        })
    }

    fn scheduler_flags(&mut self, scheduler: Scheduler) -> SchedulerFlags {
        let mut flags = SchedulerFlags::default();
        let Some(text) = (self.get)(service::SCHEDULER_FLAGS) else { return flags };
        for flag in text.split(',').map(str::trim).filter(|flag| !flag.is_empty()) {
            match flag {
                "flag-1" => flags.one = true,
                "flag-2" => flags.two = true,
                "flag-3" => flags.three = true,
                other => {
                    let remedy = "use flag-1, flag-2, flag-3; the others are used";
                    self.object_to(service::SCHEDULER_FLAGS, other, "is not a scheduler flag", remedy);
                }
            }
        }
        if scheduler == Scheduler::Maglev || flags == SchedulerFlags::default() {
            return flags;
        }
        let remedy = "set the scheduler to mh or remove the flags; they have no effect until then";
        self.object_to(service::SCHEDULER_FLAGS, text, "is for the scheduler mh only", remedy);
        SchedulerFlags::default()
    }

    fn dsr(&mut self) -> bool {
        match (self.get)(service::DSR) {
            None => false,
            Some("tunnel") => true,
            Some(other) => {
                let remedy = "set it to \"tunnel\"; the service is served without until then";
                self.object_to(service::DSR, other, "is not a way of direct server return", remedy);
                false
            }
        }
    }

    fn local(&mut self) -> bool {
        match (self.get)(service::LOCAL) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let remedy = "use the exact texts; endpoints of all nodes are used until then";
                self.object_to(service::LOCAL, other, "is neither \"true\" nor \"false\"", remedy);
                false
            }
        }
    }

    /// For keys whose presence counts, whatever their value: a `false` there is a trap, and its owner is told.
    fn present(&mut self, key: &str) -> bool {
        let Some(text) = (self.get)(key) else { return false };
        if go_bool(text) == Some(false) {
            self.object_to(
                key,
                text,
                "does not switch it off",
                "remove the annotation; its presence switches it on",
            );
        }
        true
    }

    fn switch(&mut self, key: &str) -> Option<bool> {
        let text = (self.get)(key)?;
        let read = go_bool(text);
        if read.is_none() {
            self.object_to(
                key,
                text,
                "is neither true nor false",
                "use one of them; it counts as false until then",
            );
        }
        Some(read.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::service::*;
    use super::*;
    use std::collections::BTreeMap;

    fn read(annotations: &[(&str, &'static str)]) -> (ServiceAnnotations, Vec<String>) {
        let map: BTreeMap<&str, &'static str> = annotations.iter().copied().collect();
        let object = ObjectRef::service("default", "web");
        let (read, objections) = ServiceAnnotations::read(&object, |key| map.get(key).copied());
        (read, objections.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(read(&[]), (ServiceAnnotations::default(), vec![]));
    }

    #[test]
    fn every_scheduler_is_known_by_its_kernel_name() {
        for (scheduler, name) in Scheduler::NAMES {
            assert_eq!(scheduler.name(), name);
            let (annotations, objections) = read(&[(SCHEDULER, name)]);
            assert_eq!((annotations.scheduler, objections), (scheduler, vec![]));
        }
    }

    #[test]
    fn an_unknown_scheduler_is_round_robin_and_reported() {
        let (annotations, objections) = read(&[(SCHEDULER, "random")]);
        assert_eq!(annotations.scheduler, Scheduler::RoundRobin);
        assert_eq!(
            objections,
            [
                "Service default/web: metadata.annotations[kube-router.io/service.scheduler] \"random\" is not a \
              scheduler: use one of rr lc dh sh mh wrr wlc lblc lblcr sed nq; rr is used until then"
            ]
        );
    }

    #[test]
    fn scheduler_flags_are_for_maglev() {
        let flags = SchedulerFlags { one: true, two: false, three: true };
        let (annotations, objections) = read(&[(SCHEDULER, "mh"), (SCHEDULER_FLAGS, "flag-1, flag-3,")]);
        assert_eq!((annotations.scheduler_flags, objections.len()), (flags, 0));
        let (annotations, objections) =
            read(&[(SCHEDULER, "mh"), (SCHEDULER_FLAGS, "flag-4,flag-1 ,flag-3")]);
        assert_eq!((annotations.scheduler_flags, objections.len()), (flags, 1));
        let (annotations, objections) = read(&[(SCHEDULER, "sh"), (SCHEDULER_FLAGS, "flag-1")]);
        assert_eq!((annotations.scheduler_flags, objections.len()), (SchedulerFlags::default(), 1));
    }

    #[test]
    fn presence_counts_where_upstream_says_so() {
        for key in [HAIRPIN, HAIRPIN_OLDER] {
            for value in ["", "true", "yes"] {
                let (annotations, objections) = read(&[(key, value)]);
                assert!(annotations.hairpin && objections.is_empty(), "{key}={value}");
            }
            let (annotations, objections) = read(&[(key, "false")]);
            assert!(annotations.hairpin && objections.len() == 1, "{key}=false");
        }
        let (annotations, _) = read(&[(HAIRPIN_EXTERNAL_IPS, ""), (SKIP_LOAD_BALANCER_IPS, "")]);
        assert!(
            annotations.hairpin_external_ips && annotations.skip_load_balancer_ips && !annotations.hairpin
        );
    }

    #[test]
    fn exact_values_count_where_upstream_says_so() {
        assert!(read(&[(LOCAL, "true")]).0.local);
        assert_eq!(read(&[(LOCAL, "false")]).1.len(), 0);
        let (annotations, objections) = read(&[(LOCAL, "True"), (DSR, "nat")]);
        assert!(!annotations.local && !annotations.dsr);
        assert_eq!(objections.len(), 2);
        assert!(read(&[(DSR, "tunnel")]).0.dsr);
    }

    #[test]
    fn advertising_is_a_go_bool() {
        assert_eq!(read(&[(ADVERTISE_CLUSTER_IP, "T")]).0.advertise_cluster_ip, Some(true));
        assert_eq!(read(&[(ADVERTISE_EXTERNAL_IP, "0")]).0.advertise_external_ip, Some(false));
        let (annotations, objections) = read(&[(ADVERTISE_LOAD_BALANCER_IP, "yes")]);
        assert_eq!((annotations.advertise_load_balancer_ip, objections.len()), (Some(false), 1));
    }
}

//! Where a Service can be reached on this node: its frontends.
//!
//! Decided here, from the Service, the node's addresses and the options: which (address, protocol, port) it wants to
//! answer at. Not here: who wins when two Services want the same one ([`super::contests`]), who serves it
//! ([`super::backends`]), and what becomes of it in the kernel ([`super::plan`]).

use std::collections::HashSet;
use std::net::IpAddr;

use linux::row::{Family, VirtualServerKey};

use super::service_ips;
use crate::kube::model::{self, Service, ServicePort};
use crate::node::ThisNode;
use crate::objection::Objection;
use crate::options::Options;

/// The kind of address a frontend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `spec.clusterIPs`
    ClusterIp,
    /// A node address with `spec.ports[].nodePort`.
    NodePort,
    /// `spec.externalIPs`
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancerIp,
}

impl Kind {
    /// In the words of the Service API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ClusterIp => "ClusterIP",
            Kind::NodePort => "NodePort",
            Kind::ExternalIp => "externalIP",
            Kind::LoadBalancerIp => "LoadBalancer",
        }
    }

    /// Whether only endpoints of this node may serve it, by the Service's traffic policies.
    pub fn local_only(self, service: &Service) -> bool {
        match self {
            Kind::ClusterIp => service.internal_local,
            Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancerIp => service.external_local,
        }
    }

    /// Whether a pod behind it must be able to reach itself through it.
    pub fn hairpins(self, service: &Service, everywhere: bool) -> bool {
        let selected = everywhere || service.wishes.hairpin;
        match self {
            Kind::ClusterIp | Kind::NodePort => selected,
            Kind::ExternalIp => selected && service.wishes.hairpin_external_ips,
            Kind::LoadBalancerIp => false,
        }
    }
}

/// One way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontend {
    /// The virtual server it asks for.
    pub key: VirtualServerKey,
    /// Kind of address.
    pub kind: Kind,
    /// Index into [`Service::ports`].
    pub port: usize,
}

/// Every frontend a Service asks for, with what it asks for and cannot have. O(addresses × ports).
pub fn frontends(service: &Service, node: &ThisNode, options: &Options) -> (Vec<Frontend>, Vec<Objection>) {
    let (frontends, objections) = (Vec::new(), Vec::new());
    let mut asked = Asked { service, node, frontends, keys: HashSet::new(), objections };
    asked.addresses(Kind::ClusterIp, &service.cluster_ips, "spec.clusterIPs", options);
    asked.node_ports(options);
    asked.addresses(Kind::ExternalIp, &service.external_ips, "spec.externalIPs", options);
    if !service.wishes.skip_load_balancer_ips {
        let field = "status.loadBalancer.ingress";
        asked.addresses(Kind::LoadBalancerIp, &service.load_balancer_ips, field, options);
    }
    (asked.frontends, asked.objections)
}

struct Asked<'a> {
    service: &'a Service,
    node: &'a ThisNode,
    frontends: Vec<Frontend>,
    keys: HashSet<VirtualServerKey>,
    objections: Vec<Objection>,
}

impl Asked<'_> {
    fn addresses(&mut self, kind: Kind, ips: &[IpAddr], field: &str, options: &Options) {
        for ip in ips {
            if let Err(no) = service_ips::check(&options.service_ips, kind, *ip) {
                self.object(field, ip, no.reason, no.remedy);
            } else if self.node.best_ip(Family::of(ip)).is_none() {
                let reason = "is of a family this node has no address of".to_owned();
                self.object(
                    field,
                    ip,
                    reason,
                    "it is not served here; give the node such an address".to_owned(),
                );
            } else {
                self.ports(kind, *ip, |port| Some(port.port));
            }
        }
    }

    fn node_ports(&mut self, options: &Options) {
        for family in Family::ALL {
            if !self.service.cluster_ips.iter().any(|ip| Family::of(ip) == family) {
                continue;
            }
            let ips: Vec<IpAddr> = if options.service_proxy.node_ports_everywhere {
                self.node.local_ips(family).collect()
            } else {
                self.node.best_ip(family).into_iter().collect()
            };
            for ip in ips {
                self.ports(Kind::NodePort, ip, |port| port.node_port);
            }
        }
    }

    fn ports(&mut self, kind: Kind, ip: IpAddr, number: impl Fn(&ServicePort) -> Option<u16>) {
        for (index, port) in self.service.ports.iter().enumerate() {
            let Some(number) = number(port) else { continue };
            let key = VirtualServerKey::Address { ip, protocol: port.protocol, port: number };
            if self.keys.insert(key) {
                self.frontends.push(Frontend { key, kind, port: index });
            }
        }
    }

    fn object(&mut self, field: &str, value: &IpAddr, reason: String, remedy: String) {
        self.objections.push(Objection {
            object: self.service.id.of_kind(model::Kind::Service),
            field: field.to_owned(),
            value: value.to_string(),
            reason,
            remedy,
        });
    }
}

//! Which addresses of a Service this node tells its external peers.
//!
//! Decided here, for one Service alone: the kinds its annotations and the flags ask for, without addresses that are
//! not accepted (CVE-2020-8554), and without those that only local endpoints serve where none of them is ready
//! (upstream takes any endpoint, W4). That several Services may want one address is counted elsewhere (W19).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kube::model::{Endpoint, Service};
use crate::network_services::frontends::Kind;
use crate::network_services::service_ips;
use crate::options::Options;

/// The addresses. O(addresses + endpoints).
pub fn advertised<'a>(
    service: &Service,
    endpoints: impl Iterator<Item = &'a Endpoint>,
    node: &str,
    options: &Options,
) -> BTreeSet<IpAddr> {
    let flags = options.bgp.advertise;
    let wishes = &service.wishes;
    let kinds = [
        (Kind::ClusterIp, wishes.advertise_cluster_ip.unwrap_or(flags.cluster_ip), &service.cluster_ips),
        (Kind::ExternalIp, wishes.advertise_external_ip.unwrap_or(flags.external_ip), &service.external_ips),
        (
            Kind::LoadBalancerIp,
            !wishes.skip_load_balancer_ips
                && service.is_load_balancer
                && wishes.advertise_load_balancer_ip.unwrap_or(flags.load_balancer_ip),
            &service.load_balancer_ips,
        ),
    ];
    if !kinds.iter().any(|(_, wanted, _)| *wanted) {
        return BTreeSet::new();
    }
    let mut endpoints = endpoints;
    let ready_here = endpoints.any(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    let served = |kind: &Kind| ready_here || !kind.local_only(service);
    let wanted = kinds.into_iter().filter(|(kind, wanted, _)| *wanted && served(kind));
    let addresses = wanted.flat_map(|(kind, _, ips)| ips.iter().map(move |ip| (kind, *ip)));
    addresses
        .filter(|(kind, ip)| service_ips::check(&options.service_ips, *kind, *ip).is_ok())
        .map(|(_, ip)| ip)
        .collect()
}

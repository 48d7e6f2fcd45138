//! Which addresses of a Service this node tells its external peers, and as what.
//!
//! Decided here, for one Service alone: the kinds its annotations and the flags ask for, without addresses that are
//! not accepted (CVE-2020-8554), and without those that only local endpoints serve where none of them is ready
//! (upstream takes any endpoint, W4). With `--advertise-aggregate` an address is told as the narrowest range services
//! have addresses from that it lies in, unless only local endpoints serve it: then the nodes differ, and so must what
//! they tell. That several Services may want one address is counted elsewhere (W19).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::told::Wish;
use crate::kube::model::{Endpoint, Service};
use crate::network_services::frontends::Kind;
use crate::network_services::service_ips;
use crate::options::Options;

/// The addresses, each with the prefix it is told as. O(addresses × ranges + endpoints).
pub fn advertised<'a>(
    service: &Service,
    endpoints: impl Iterator<Item = &'a Endpoint>,
    node: &str,
    options: &Options,
) -> BTreeSet<Wish> {
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
        .map(|(kind, ip)| {
            let apart = kind.local_only(service) || !options.bgp.advertise.aggregate;
            let range = if apart { None } else { range_of(ip, options) };
            Wish { prefix: range.unwrap_or_else(|| IpNet::from(ip)), address: ip }
        })
        .collect()
}

fn range_of(ip: IpAddr, options: &Options) -> Option<IpNet> {
    let around = options.service_ips.ranges().filter(|range| range.contains(&ip));
    around.max_by_key(IpNet::prefix_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::model::{ObjectName, ServiceWishes};

    const RANGES: [&str; 3] = [
        "--service-cluster-ip-range=10.96.0.0/12",
        "--service-external-ip-range=203.0.113.0/24",
        "--advertise-cluster-ip",
    ];

    fn service() -> Service {
        Service {
            id: ObjectName::cluster_wide("web".into()),
            created: 0,
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            external_ips: vec!["203.0.113.7".parse().unwrap()],
            load_balancer_ips: Vec::new(),
            ports: Vec::new(),
            is_load_balancer: false,
            affinity: None,
            internal_local: false,
            external_local: false,
            health_check_port: None,
            wishes: ServiceWishes::default(),
        }
    }

    fn told(service: &Service, flags: &[&str]) -> Vec<String> {
        let flags: Vec<&str> = RANGES.iter().chain(flags).copied().collect();
        let options = Options::from_flags(&flags).unwrap();
        let wishes = advertised(service, std::iter::empty(), "here", &options);
        wishes.iter().map(|wish| format!("{} as {}", wish.address, wish.prefix)).collect()
    }

    #[test]
    fn kinds_are_told_as_flags_say_and_annotations_overrule() {
        assert_eq!(told(&service(), &[]), ["10.96.0.10 as 10.96.0.10/32"]);
        let mut service = service();
        service.wishes.advertise_cluster_ip = Some(false);
        service.wishes.advertise_external_ip = Some(true);
        assert_eq!(told(&service, &[]), ["203.0.113.7 as 203.0.113.7/32"]);
    }

    #[test]
    fn ranges_stand_for_their_addresses_unless_nodes_differ() {
        let flags = ["--advertise-external-ip", "--advertise-aggregate"];
        let both = ["10.96.0.10 as 10.96.0.0/12", "203.0.113.7 as 203.0.113.0/24"];
        assert_eq!(told(&service(), &flags), both);
        let narrower = [flags[0], flags[1], "--loadbalancer-ip-range=203.0.113.0/28"];
        assert_eq!(told(&service(), &narrower)[1], "203.0.113.7 as 203.0.113.0/28");
        let local = Service { external_local: true, ..service() };
        assert_eq!(told(&local, &flags), [both[0]], "nobody here serves it");
    }
}

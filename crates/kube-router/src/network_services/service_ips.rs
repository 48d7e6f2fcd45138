//! Which external and load-balancer addresses of a Service are accepted.
//!
//! Without this check anyone who may write a Service can attract any address (CVE-2020-8554). Strict (the default):
//! an address must lie in the range given for its kind and outside the cluster IP range; no range given, none accepted.

use std::net::IpAddr;

use ipnet::IpNet;

use super::frontends::Kind;
use crate::options::ServiceIps;

/// Why an address is not used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacceptable {
    /// The reason.
    pub reason: String,
    /// What to change.
    pub remedy: String,
}

/// Checks one address of a Service.
///
/// # Errors
/// The reason in words, when it must not be programmed or advertised.
pub fn check(ranges: &ServiceIps, kind: Kind, ip: IpAddr) -> Result<(), Unacceptable> {
    let (allowed, flag) = match kind {
        Kind::ClusterIp | Kind::NodePort => return Ok(()),
        Kind::ExternalIp => (&ranges.external, "--service-external-ip-range"),
        Kind::LoadBalancerIp => (&ranges.load_balancer, "--loadbalancer-ip-range"),
    };
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return refuse("is no address a service can be reached at", "write a unicast address".to_owned());
    }
    if !ranges.strict {
        return Ok(());
    }
    if contains(&ranges.cluster, ip) {
        return refuse(
            "lies in the cluster IP range",
            "write an address outside --service-cluster-ip-range".into(),
        );
    }
    if allowed.is_empty() {
        return refuse(&format!("is refused because {flag} names no range"), format!("set {flag}"));
    }
    if !contains(allowed, ip) {
        return refuse(
            &format!("lies outside {flag}"),
            format!("write one of its addresses or extend {flag}"),
        );
    }
    Ok(())
}

fn contains(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

fn refuse(reason: &str, remedy: String) -> Result<(), Unacceptable> {
    Err(Unacceptable { reason: reason.to_owned(), remedy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn verdict(flags: &[&str], kind: Kind, ip: &str) -> Result<(), String> {
        let options = Options::from_flags(flags).unwrap();
        check(&options.service_ips, kind, ip.parse().unwrap()).map_err(|no| no.reason)
    }

    #[test]
    fn strict_is_the_default_and_no_range_accepts_none() {
        assert!(verdict(&[], Kind::ExternalIp, "198.51.100.1").unwrap_err().contains("names no range"));
        assert!(verdict(&[], Kind::LoadBalancerIp, "198.51.100.1").is_err());
        assert!(verdict(&[], Kind::ClusterIp, "10.96.0.1").is_ok());
    }

    #[test]
    fn ranges_are_per_kind() {
        let flags = ["--service-external-ip-range=198.51.100.0/24", "--loadbalancer-ip-range=203.0.113.0/24"];
        assert!(verdict(&flags, Kind::ExternalIp, "198.51.100.1").is_ok());
        assert!(verdict(&flags, Kind::LoadBalancerIp, "203.0.113.9").is_ok());
        assert!(verdict(&flags, Kind::ExternalIp, "203.0.113.9").unwrap_err().contains("outside"));
        assert!(verdict(&flags, Kind::LoadBalancerIp, "198.51.100.1").is_err());
    }

    #[test]
    fn the_cluster_range_is_never_external() {
        let flags = ["--service-external-ip-range=10.0.0.0/8"];
        assert!(verdict(&flags, Kind::ExternalIp, "10.96.0.7").unwrap_err().contains("cluster IP range"));
        assert!(verdict(&flags, Kind::ExternalIp, "10.1.0.7").is_ok());
    }

    #[test]
    fn unstrict_accepts_what_can_be_an_address() {
        let flags = ["--strict-external-ip-validation=false"];
        assert!(verdict(&flags, Kind::ExternalIp, "192.0.2.1").is_ok());
        assert!(verdict(&flags, Kind::ExternalIp, "127.0.0.1").is_err());
        assert!(verdict(&flags, Kind::ExternalIp, "ff02::1").is_err());
    }
}

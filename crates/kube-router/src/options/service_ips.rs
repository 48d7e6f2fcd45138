//! The addresses and ports services may have.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::refusal::{BadFlag, of_enabled_family};
use super::syntax::{Cidr, List, Switch, items};
use super::{Families, Given};

/// The addresses and ports services may have, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Addresses of services")]
pub(super) struct ServiceIpFlags {
    /// CIDRs of cluster IPs, one or two
    #[arg(long, default_value = "10.96.0.0/12")]
    service_cluster_ip_range: Vec<List<Cidr>>,
    /// CIDRs external IPs may come from
    #[arg(long)]
    service_external_ip_range: Vec<List<Cidr>>,
    /// CIDRs load-balancer IPs may come from, and are allocated from
    #[arg(long)]
    loadbalancer_ip_range: Vec<List<Cidr>>,
    /// Ports of NodePorts, first to last
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
    /// Refuse external and load-balancer IPs outside of their ranges
    #[arg(long, default_value = "true")]
    strict_external_ip_validation: Switch,
}

/// The addresses and ports services may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIps {
    /// Where cluster IPs come from; empty only if no range was given and the default's family is off.
    pub cluster: Vec<IpNet>,
    /// Where external IPs may come from.
    pub external: Vec<IpNet>,
    /// Where load-balancer IPs may come from.
    pub load_balancer: Vec<IpNet>,
    /// Where NodePorts come from.
    pub node_ports: RangeInclusive<u16>,
    /// Whether external and load-balancer IPs outside of their ranges are refused.
    pub strict: bool,
}

impl ServiceIps {
    /// All ranges, host bits zero.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.cluster.iter().chain(&self.external).chain(&self.load_balancer).map(IpNet::trunc)
    }

    pub(super) fn read(flags: ServiceIpFlags, families: Families, given: &Given) -> Result<Self, BadFlag> {
        let checked = |flag: &str, uses: Vec<List<Cidr>>| {
            let nets: Vec<IpNet> = items(uses).into_iter().map(|cidr| cidr.0).collect();
            of_enabled_family(flag, &nets, families).map(|()| nets)
        };
        let cluster_flag = "service-cluster-ip-range";
        let cluster = if given.has(cluster_flag) {
            let cluster = checked(cluster_flag, flags.service_cluster_ip_range)?;
            if !(1..=2).contains(&cluster.len()) {
                let list = cluster.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
                return Err(BadFlag::new(cluster_flag, list, "takes one or two CIDRs"));
            }
            cluster
        } else {
            // Nobody asked for the IPv4 default, so an IPv6-only node is no mistake.
            let default = items(flags.service_cluster_ip_range).into_iter().map(|cidr| cidr.0);
            default.filter(|net| families.has(net.addr())).collect()
        };
        Ok(Self {
            cluster,
            external: checked("service-external-ip-range", flags.service_external_ip_range)?,
            load_balancer: checked("loadbalancer-ip-range", flags.loadbalancer_ip_range)?,
            node_ports: node_ports(&flags.service_node_port_range).map_err(|reason| {
                BadFlag::new("service-node-port-range", &flags.service_node_port_range, reason)
            })?,
            strict: flags.strict_external_ip_validation.0,
        })
    }
}

/// Reads `first-last` or `first:last`.
fn node_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let malformed = "not a range of ports such as 30000-32767";
    let (first, last) = text.split_once(['-', ':']).ok_or(malformed)?;
    let port = |digits: &str| {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed);
        }
        digits.parse::<u16>().map_err(|_| "ports end at 65535")
    };
    let (first, last) = (port(first)?, port(last)?);
    if first < last { Ok(first..=last) } else { Err("the first port must be below the last") }
}

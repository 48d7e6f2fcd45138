//! Who this node's speaker is: AS number, router id, the addresses it listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bgp::Asn;

use crate::annotations::node as annotation;
use crate::fnv::fnv1a;
use crate::kube::model::{Kind, Node, ObjectName};
use crate::objection::Objection;
use crate::options::{Bgp, RouterId};

/// The cluster's AS number in a full mesh, otherwise the node's own.
///
/// # Errors
/// The node has none, but needs one.
pub fn asn(node: &Node, options: &Bgp) -> Result<Asn, Box<Objection>> {
    if options.full_mesh {
        return Ok(options.asn.unwrap_or(Asn::DEFAULT));
    }
    node.routing.asn.ok_or_else(|| {
        Box::new(Objection {
            object: ObjectName::cluster_wide(node.name.clone()).of_kind(Kind::Node),
            field: format!("metadata.annotations[{}]", annotation::ASN),
            value: String::new(),
            reason: "is needed with --nodes-full-mesh=false".to_owned(),
            remedy: "set the node's AS number; BGP peers stay as they were until then, at a start none"
                .to_owned(),
        })
    })
}

/// The router id: as given, the primary address, or made of it where it is IPv6. `None` without a primary address.
pub fn router_id(node: &Node, options: &Bgp) -> Option<Ipv4Addr> {
    match (options.router_id, node.primary_ip()?) {
        (RouterId::Fixed(id), _) => Some(id),
        (RouterId::PrimaryAddress, IpAddr::V4(ip)) => Some(ip),
        (_, ip) => Some(generated(ip)),
    }
}

/// FNV-1a over the 16 octets of the address, as upstream makes it: a node keeps its id when its agent is replaced.
fn generated(ip: IpAddr) -> Ipv4Addr {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Ipv4Addr::from(fnv1a(&octets))
}

/// Where the speaker listens: the addresses its annotation names, otherwise the best of each family.
pub fn listen(node: &Node, options: &Bgp) -> Vec<SocketAddr> {
    let best = linux::row::Family::ALL.into_iter().filter_map(|family| node.best_ip(family)).collect();
    let addresses: Vec<IpAddr> = node.routing.local_addresses.clone().unwrap_or(best);
    addresses.into_iter().map(|ip| SocketAddr::new(ip, options.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_as_upstream_makes_them() {
        for (ip, id) in [("10.0.0.1", "0.15.248.254"), ("2001:db8::1", "110.91.4.244")] {
            assert_eq!(generated(ip.parse().unwrap()).to_string(), id);
        }
    }
}

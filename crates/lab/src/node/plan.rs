//! Who has which address: a pure function of segment and position, the same in every lab.
//!
//! Every lab is in namespaces of its own, so the addresses need not differ between labs, and a newcomer who has seen one
//! output can read all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Address families of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

impl Families {
    /// Whether IPv4 is on.
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Whether IPv6 is on.
    pub fn v6(self) -> bool {
        self != Self::V4
    }

    fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        let both = [(self.v4(), v4), (self.v6(), v6)];
        both.into_iter().filter_map(|(on, value)| on.then_some(value)).collect()
    }

    /// The network's own address on a segment: default gateway of all on it, `172.31.SEGMENT.1`, `fd31:SEGMENT::1`.
    pub fn gateway(self, segment: u8) -> Vec<IpNet> {
        self.host(segment, 1)
    }

    /// Addresses of the `index`th node (from 1), with the prefix length of its segment: `172.31.SEGMENT.10+index`.
    pub fn node(self, segment: u8, index: u8) -> Vec<IpNet> {
        self.host(segment, 10u8.saturating_add(index))
    }

    /// Addresses of the `index`th host (from 1) that is no node: `172.31.SEGMENT.200+index`.
    pub fn outside(self, segment: u8, index: u8) -> Vec<IpNet> {
        self.host(segment, 200u8.saturating_add(index))
    }

    /// Addresses of the `index`th BGP router (from 1): `172.31.SEGMENT.100+index`.
    pub fn router(self, segment: u8, index: u8) -> Vec<IpNet> {
        self.host(segment, 100u8.saturating_add(index))
    }

    fn host(self, segment: u8, host: u8) -> Vec<IpNet> {
        self.pick(
            net4(Ipv4Addr::new(172, 31, segment, host), 24),
            net6(Ipv6Addr::new(0xfd31, segment.into(), 0, 0, 0, 0, 0, host.into()), 64),
        )
    }

    /// Pod ranges of the `index`th node (from 1): `10.244.INDEX.0/24`, `fd44:INDEX::/64`.
    pub fn pods(self, index: u8) -> Vec<IpNet> {
        self.pick(
            net4(Ipv4Addr::new(10, 244, index, 0), 24),
            net6(Ipv6Addr::new(0xfd44, index.into(), 0, 0, 0, 0, 0, 0), 64),
        )
    }

    /// Service ranges: `10.96.0.0/16`, `fd96::/112`.
    pub fn services(self) -> Vec<IpNet> {
        self.pick(
            net4(Ipv4Addr::new(10, 96, 0, 0), 16),
            net6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0), 112),
        )
    }
}

// Prefix lengths are written above; one out of range becomes a host route and fails the first test.
fn net4(address: Ipv4Addr, length: u8) -> IpNet {
    Ipv4Net::new(address, length).unwrap_or_else(|_| address.into()).into()
}

fn net6(address: Ipv6Addr, length: u8) -> IpNet {
    Ipv6Net::new(address, length).unwrap_or_else(|_| address.into()).into()
}

/// The addresses of networks, without their prefix lengths.
pub fn addresses(nets: &[IpNet]) -> Vec<IpAddr> {
    nets.iter().map(IpNet::addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_segment_and_index() {
        let text = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(Families::Dual.node(1, 2)), ["172.31.1.12/24", "fd31:1::c/64"]);
        assert_eq!(text(Families::V4.gateway(0)), ["172.31.0.1/24"]);
        assert_eq!(text(Families::V6.pods(3)), ["fd44:3::/64"]);
        assert_eq!(text(Families::Dual.services()), ["10.96.0.0/16", "fd96::/112"]);
    }
}

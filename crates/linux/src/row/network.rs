//! What rows say of addresses, links, routes and policy routing rules.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Name;

/// Address family of a table, set or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: &IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family of a prefix.
    pub fn of_net(net: &IpNet) -> Family {
        Family::of(&net.addr())
    }

    /// The kernel's number, `AF_INET` or `AF_INET6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// Bits of a host prefix: 32 or 128.
    pub fn host_len(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// Transport protocols a Kubernetes Service or policy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Protocol of an IANA number, if it is one of ours.
    pub fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Lower-case name as tools print it: `tcp`, `udp`, `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kinds of links we create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// `dummy`
    Dummy,
    /// `bridge`
    Bridge,
    /// `ipip` or `ip6tnl`, by the family of its ends.
    Tunnel(Tunnel),
    /// Any other kind, as read; never created by us.
    Other(Name),
}

/// A point-to-point tunnel that carries IP in IP. Both ends are of one family; the kernel has at most one tunnel of a
/// kind between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Our end.
    pub local: IpAddr,
    /// The other end.
    pub remote: IpAddr,
    /// UDP port of the other end where packets are wrapped in generic UDP encapsulation (`encap gue`); `None` is plain.
    pub udp_port: Option<u16>,
}

/// How a link should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kind; a link of the wrong kind under our name is replaced.
    pub kind: LinkKind,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes; `None` leaves it alone.
    pub mtu: Option<u32>,
}

impl Link {
    /// The port that a tunnel in UDP sends to, in the family of its ends.
    pub fn udp_port(&self) -> Option<(Family, u16)> {
        match self.kind {
            LinkKind::Tunnel(Tunnel { local, udp_port, .. }) => {
                udp_port.map(|port| (Family::of(&local), port))
            }
            _ => None,
        }
    }
}

/// Address and route scope (`RT_SCOPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// 0
    Universe,
    /// 253
    Link,
    /// 254
    Host,
}

/// Route type (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Gateway or direct route.
    Unicast,
    /// Local delivery.
    Local,
    /// Any other type number, as read.
    Other(u8),
}

/// How a route should be. Its table, destination and metric are in its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Type.
    pub kind: RouteKind,
    /// Outgoing link.
    pub link: Option<Name>,
    /// Gateway; may be of the other family (RFC 8950).
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Scope; IPv6 routes always read back as universe.
    pub scope: Scope,
    /// Routing protocol number (`RTPROT_*`): 2 kernel, 17 ours.
    pub protocol: u8,
}

/// Which policy routing rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRuleKey {
    /// Family.
    pub family: Family,
    /// Priority; `None` lets the kernel choose and matches any when read back.
    pub priority: Option<u32>,
    /// `from`
    pub from: Option<IpNet>,
    /// `fwmark`
    pub mark: Option<u32>,
    /// `lookup`
    pub table: u32,
}

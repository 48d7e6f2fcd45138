//! What rows say of IPVS.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Family, Name, Protocol};

/// Which virtual server. The order puts real servers of one virtual server together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualServerKey {
    /// Found by destination address, protocol and port.
    Address {
        /// Virtual address.
        ip: IpAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// Port, 1-65535; 0 only when read from the kernel (a port-less service of someone else).
        port: u16,
    },
    /// Found by firewall mark (`IPVS_SVC_ATTR_FWMARK`).
    Mark {
        /// Family of its real servers.
        family: Family,
        /// The mark, never 0.
        mark: u32,
    },
}

impl VirtualServerKey {
    /// Family of the virtual server.
    pub fn family(&self) -> Family {
        match self {
            VirtualServerKey::Address { ip, .. } => Family::of(ip),
            VirtualServerKey::Mark { family, .. } => *family,
        }
    }
}

/// IPVS schedulers by kernel module name (`ip_vs_<name>`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// Round robin.
    RoundRobin,
    /// Least connection.
    LeastConnection,
    /// Destination hashing.
    DestinationHash,
    /// Source hashing.
    SourceHash,
    /// Maglev hashing.
    Maglev,
    /// Any other, by the kernel's name (`wrr`, `sed`, `nq`, …).
    Other(Name),
}

impl Scheduler {
    /// The kernel's name.
    pub fn as_str(&self) -> &str {
        match self {
            Scheduler::RoundRobin => "rr",
            Scheduler::LeastConnection => "lc",
            Scheduler::DestinationHash => "dh",
            Scheduler::SourceHash => "sh",
            Scheduler::Maglev => "mh",
            Scheduler::Other(name) => name,
        }
    }

    /// The scheduler the kernel calls `name`.
    pub fn named(name: &str) -> Scheduler {
        match name {
            "rr" => Scheduler::RoundRobin,
            "lc" => Scheduler::LeastConnection,
            "dh" => Scheduler::DestinationHash,
            "sh" => Scheduler::SourceHash,
            "mh" => Scheduler::Maglev,
            other => Scheduler::Other(Arc::from(other)),
        }
    }
}

/// How a virtual server should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Scheduler flags `flag-1..3` as `IP_VS_SVC_F_SCHED1..3` (0x08, 0x10, 0x20); other bits are not ours.
    pub scheduler_flags: u8,
    /// Session affinity: seconds a client sticks to its real server; `None` is not persistent.
    pub persistence: Option<u32>,
}

/// How packets reach a real server (`IP_VS_CONN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// NAT.
    Masquerade,
    /// The real server is this host.
    Local,
    /// IP-in-IP.
    Tunnel,
    /// Direct routing.
    DirectRoute,
}

/// How a real server should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServer {
    /// 0 takes no new connections.
    pub weight: u32,
    /// Forwarding method.
    pub forwarding: Forwarding,
}

/// Global IPVS timeouts in seconds (`IPVS_CMD_SET_CONFIG`); 0 keeps what the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpvsTimeouts {
    /// Established TCP.
    pub tcp: u32,
    /// TCP after FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

//! What rows say of sets and chains.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Family, Name, Protocol};
use crate::order;

/// ipset types in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `hash:ip`
    HashIp,
    /// `hash:net`
    HashNet,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:net,port`
    HashNetPort,
}

/// Which set, by the name without the kernel's family prefix (`inet6:` is added by the ipset lane).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetKey {
    /// Family of the members.
    pub family: Family,
    /// Name.
    pub name: Name,
}

impl Ord for SetKey {
    fn cmp(&self, other: &SetKey) -> Ordering {
        // Members of one set share its key, and are compared with each other most of all.
        if std::ptr::eq(self, other) {
            return Ordering::Equal;
        }
        self.family.cmp(&other.family).then_with(|| order::names(&self.name, &other.name))
    }
}

impl PartialOrd for SetKey {
    fn partial_cmp(&self, other: &SetKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Header of a set. A change of it is a swap, members are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetHeader {
    /// Type.
    pub kind: SetKind,
    /// Most members the kernel will take.
    pub max_members: u32,
    /// Default timeout in seconds; `Some(0)` is what Go kube-router creates, ours have none.
    pub timeout: Option<u32>,
}

/// A member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// An address.
    Ip(IpAddr),
    /// A prefix; /0 is never written (two halves are).
    Net(IpNet),
    /// Address, protocol and port.
    IpPort(IpAddr, Protocol, u16),
    /// Address, protocol and port, second address.
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    /// Prefix, protocol and port.
    NetPort(IpNet, Protocol, u16),
}

/// Packet filter tables in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterTable {
    /// `filter`
    Filter,
    /// `nat`
    Nat,
    /// `mangle`
    Mangle,
}

impl FilterTable {
    /// Every table, in the order they are read and written.
    pub const ALL: [FilterTable; 3] = [FilterTable::Mangle, FilterTable::Nat, FilterTable::Filter];

    /// iptables' name.
    pub fn as_str(self) -> &'static str {
        match self {
            FilterTable::Filter => "filter",
            FilterTable::Nat => "nat",
            FilterTable::Mangle => "mangle",
        }
    }
}

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    /// Family.
    pub family: Family,
    /// Table.
    pub table: FilterTable,
    /// Chain name, at most 28 bytes.
    pub name: Name,
}

/// Where a rule of ours stands in a chain that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// Before every other rule but those of ours that are first with a lower rank; equal ranks stand in any order.
    First(u8),
    /// After every other rule at the time of insertion; later rules of others may follow.
    Last,
    /// Anywhere.
    Anywhere,
}

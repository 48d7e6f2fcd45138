//! rtnetlink: links, bridge ports, addresses, routes and policy rules as one lane, with the UDP ports of tunnels.
//!
//! Decided here: which objects of a namespace could be ours ([`RouteScope`]), and in which order the kinds of a stage
//! are written. Which rows there should be is decided by plans. How each kind looks as a message stands in
//! [`link`](self), `address`, `fib` and `policy_rule`, with the normal form that makes rows read back equal.
//!
//! Facts of the kernel this rests on:
//! - An IPv4 address brings its own `local` route (source: itself) at once; an IPv6 one a little later, from a work
//!   queue, with metric 0. Removing an address removes that route only while its source is still the address
//!   (IPv4), or while it is the very same route (IPv6). A route of ours in its place is left standing, so the two are
//!   two rows, each removed for itself.
//! - With the last IPv4 address of a link go all IPv4 routes over it, without a notification.
//! - IPv6 cannot replace a metric 0 route: ours is written beside it (metric 1024), then the kernel's is removed.
//! - IPv4 `NLM_F_REPLACE` replaces the first route of a prefix, even if it belongs to another link. So ours in table
//!   local is put in front and the one it stands for is removed by its exact source: a virtual address that is also on
//!   another link does not lose that link's route.

mod address;
mod fib;
mod filter;
mod fou;
mod kernel;
mod lane;
mod link;
pub mod lookup;
mod policy_rule;
mod read;
mod socket;
mod tunnel;
mod write;

pub mod monitor;

pub use address::{LocalAddress, local_addresses};
pub use lane::RouteLane;
pub use link::{LinkState, links};
pub use socket::{Rtnetlink, Undecoded};

use ipnet::IpNet;

pub use crate::netlink::OwnPorts;
use crate::row::{Key, Name};

/// What of a network namespace could be ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteScope {
    /// Links by exact name (`kube-dummy-if`, `kube-bridge`).
    pub links: Vec<Name>,
    /// Links by prefix of their name (`tun-`).
    pub link_prefixes: Vec<Name>,
    /// Links whose MTU is ours to set; others read back with `mtu: None`.
    pub links_with_mtu: Vec<Name>,
    /// Links on which every address is ours but IPv6 link-local ones, with the host routes of those addresses in
    /// table local (`kube-dummy-if`).
    pub address_links: Vec<Name>,
    /// Bridges whose ports' hairpin mode is read (`kube-bridge`).
    pub bridges: Vec<Name>,
    /// Routing tables that are ours with all routes in them and all rules that look them up.
    pub tables: Vec<u32>,
    /// Those of `tables` whose rules have a priority of ours; elsewhere the kernel chooses it.
    pub tables_with_priority: Vec<u32>,
    /// Routes of this protocol could be ours in any table (17); 0 is none.
    pub protocol: u8,
    /// A UDP port of encapsulated tunnels that could be ours whether or not one is there; so could each that a tunnel
    /// with a prefix of ours sends to. Other ports are others'.
    pub udp_port: Option<u16>,
}

impl RouteScope {
    /// What is in either. There is one protocol, and one UDP port: ours.
    pub fn and(mut self, other: RouteScope) -> RouteScope {
        self.links.extend(other.links);
        self.link_prefixes.extend(other.link_prefixes);
        self.links_with_mtu.extend(other.links_with_mtu);
        self.address_links.extend(other.address_links);
        self.bridges.extend(other.bridges);
        self.tables.extend(other.tables);
        // Each is read once.
        self.tables.sort_unstable();
        self.tables.dedup();
        self.tables_with_priority.extend(other.tables_with_priority);
        self.protocol = self.protocol.max(other.protocol);
        self.udp_port = self.udp_port.or(other.udp_port);
        self
    }

    fn has_link(&self, name: &str) -> bool {
        self.links.iter().any(|own| **own == *name)
            || self.link_prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    }
}

/// The key of a route: in table local, routes to one address may be on several links.
fn route_key(table: u32, destination: IpNet, link: Option<&Name>) -> Key {
    let link = link.filter(|_| table == kernel::route::TABLE_LOCAL).cloned();
    Key::Route { table, destination, link }
}

/// Whether a prefix is a single address.
fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

//! What plans need to know of this node's kernel.

use ipnet::IpNet;
use linux::row::Name;

/// Inputs of plans that come from the kernel instead of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of this node's links, in any fixed order.
    pub local_addresses: Vec<LocalAddress>,
}

/// An address of a link of this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// Link name.
    pub link: Name,
    /// Address with its prefix length; host bits kept.
    pub net: IpNet,
}

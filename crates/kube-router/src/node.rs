//! This node as plans see it: what the API says of it, and what its kernel says.
//!
//! Both are inputs like any object; nothing here looks anything up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use linux::row::{Family, Name, Tunnel};

use crate::kube::model::Node;

/// What the kernel of this node says, kept up by notifications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of every link.
    pub addresses: Vec<(Name, IpNet)>,
    /// MTU of links that hold an address, in bytes.
    pub mtu: BTreeMap<Name, u32>,
    /// Tunnels named like ours, whoever made them.
    pub tunnels: Vec<(Name, Tunnel)>,
    /// Ports of `kube-bridge`.
    pub bridge_ports: Vec<Name>,
    /// `net/ipv4/conf/<link>/rp_filter` as it was when we started, by link.
    pub rp_filter: BTreeMap<Name, u8>,
    /// `net/ipv6/conf/<link>/accept_ra` as it was when we started, by link.
    pub accept_ra: BTreeMap<Name, u8>,
    /// Whether the node forwarded IPv6 when we started.
    pub forwards_v6: bool,
    /// Whether `iptables` knows `--random-fully` (1.6.2).
    pub random_fully: bool,
    /// Whether the packet filter has verdict maps: nftables has, iptables has not.
    pub verdict_maps: bool,
}

impl Facts {
    /// What Services depend on: each address, and whether it is the node's own. Pods come and go without a change of
    /// this, whatever links they use.
    pub fn seen_by_services(&self) -> std::collections::BTreeSet<(IpAddr, bool)> {
        self.addresses.iter().map(|(link, net)| (net.addr(), is_node_local(link))).collect()
    }
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThisNode {
    /// Its name in the API.
    pub name: Name,
    /// Its Node object, if there is one.
    pub object: Option<Node>,
    /// Its kernel.
    pub facts: Facts,
}

impl ThisNode {
    /// The address of a family by which others know this node: the primary one if it is of that family, else the first
    /// internal, else the first external (behaviour of upstream).
    pub fn best_ip(&self, family: Family) -> Option<IpAddr> {
        self.object.as_ref()?.best_ip(family)
    }

    /// Families this node is known by, IPv4 first. Services are served in these; sets and rules exist for no others.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| self.best_ip(*family).is_some())
    }

    /// Prefixes this node's pods have addresses from.
    pub fn pod_cidrs(&self, family: Family) -> impl Iterator<Item = IpNet> {
        let all = self.object.iter().flat_map(|node| node.pod_cidrs.iter().copied());
        all.filter(move |net| Family::of_net(net) == family)
    }

    /// Addresses of the node proper: those of every link that is not named like a virtual one
    /// ([`crate::names::link::NOT_NODE_LOCAL`], upstream's rule), and the node's best one whatever its link is called:
    /// a node must not refuse itself. Without duplicates.
    pub fn local_ips(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let own = self.facts.addresses.iter().filter(|(link, _)| is_node_local(link));
        let ips: std::collections::BTreeSet<IpAddr> = own
            .map(|(_, net)| net.addr())
            .chain(self.best_ip(family))
            .filter(|ip| Family::of(ip) == family)
            .collect();
        ips.into_iter()
    }

    /// Whether [`Self::local_ips`] has this address. O(addresses).
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.best_ip(Family::of(&ip)) == Some(ip)
            || self.facts.addresses.iter().any(|(link, net)| net.addr() == ip && is_node_local(link))
    }

    /// Whether an address is the node's own on any link but `kube-dummy-if`.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        let elsewhere = |link: &Name| **link != *crate::names::link::DUMMY;
        self.facts.addresses.iter().any(|(link, net)| net.addr() == ip && elsewhere(link))
    }

    /// The link on whose subnet `other` is, by the prefixes of this node's own addresses: those the Node object names.
    /// O(addresses).
    pub fn subnet_of(&self, other: IpAddr) -> Option<&Name> {
        let object = self.object.as_ref()?;
        let named = |ip: &IpAddr| object.internal_ips.contains(ip) || object.external_ips.contains(ip);
        let near = self.facts.addresses.iter().find(|(_, net)| net.contains(&other) && named(&net.addr()));
        near.map(|(link, _)| link)
    }

    /// The tunnel between two addresses that is there already. O(tunnels).
    pub fn tunnel_between(&self, local: IpAddr, remote: IpAddr) -> Option<&Name> {
        let ends = |tunnel: &Tunnel| tunnel.local == local && tunnel.remote == remote;
        self.facts.tunnels.iter().find(|(_, tunnel)| ends(tunnel)).map(|(name, _)| name)
    }

    /// MTU of the link that carries the node's primary address, in bytes.
    pub fn mtu(&self) -> Option<u32> {
        let link = self.link_of(self.object.as_ref()?.primary_ip()?)?;
        self.facts.mtu.get(link).copied()
    }

    /// The link that carries an address.
    pub fn link_of(&self, ip: IpAddr) -> Option<&Name> {
        self.facts.addresses.iter().find(|(_, net)| net.addr() == ip).map(|(link, _)| link)
    }
}

fn is_node_local(link: &Name) -> bool {
    !crate::names::link::NOT_NODE_LOCAL.iter().any(|part| link.contains(part))
}

//! What this node advertises: its pod networks, and service addresses, counted over the Services that want them.
//!
//! Decided here: which paths differ from what the speaker was told last. An address that two Services want stays until
//! both are gone or want it no longer (upstream's W19).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use linux::row::Family;

use crate::kube::model::ObjectName;
use crate::node::ThisNode;

/// A path to announce, with its next hop; or to withdraw.
pub type PathChange = (IpNet, Option<IpAddr>);

/// See the module.
#[derive(Debug, Default)]
pub struct Told {
    of: HashMap<ObjectName, BTreeSet<IpAddr>>,
    wanted: BTreeMap<IpAddr, u32>,
    pod_networks: BTreeSet<IpNet>,
    told: BTreeMap<IpNet, IpAddr>,
    dirty: BTreeSet<IpNet>,
}

impl Told {
    /// The addresses a Service wants advertised. O(its addresses).
    pub fn service(&mut self, id: &ObjectName, addresses: BTreeSet<IpAddr>) {
        let before = self.of.remove(id).unwrap_or_default();
        for address in addresses.difference(&before) {
            *self.wanted.entry(*address).or_default() += 1;
            self.dirty.insert(IpNet::from(*address));
        }
        for address in before.difference(&addresses) {
            if let Some(count) = self.wanted.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.wanted.remove(address);
                }
                self.dirty.insert(IpNet::from(*address));
            }
        }
        if !addresses.is_empty() {
            self.of.insert(id.clone(), addresses);
        }
    }

    /// This node's pod networks, and the next hop of everything, may have changed. O(all paths).
    pub fn pod_networks(&mut self, node: &ThisNode) {
        let now: BTreeSet<IpNet> =
            node.families().flat_map(|family| node.pod_cidrs(family)).map(|net| net.trunc()).collect();
        self.dirty.extend(self.pod_networks.iter().chain(&now));
        self.dirty.extend(self.told.keys());
        self.dirty.extend(self.wanted.keys().map(|ip| IpNet::from(*ip)));
        self.pod_networks = now;
    }

    /// What the speaker has to be told. The next hop is the node's address of the prefix's family; without one there is
    /// no path. O(what changed).
    pub fn take_changes(&mut self, node: &ThisNode) -> Vec<PathChange> {
        let mut changes = Vec::new();
        for prefix in std::mem::take(&mut self.dirty) {
            let host = prefix.prefix_len() == prefix.max_prefix_len();
            let wanted =
                self.pod_networks.contains(&prefix) || (host && self.wanted.contains_key(&prefix.addr()));
            let next_hop = wanted.then(|| node.best_ip(Family::of_net(&prefix))).flatten();
            if self.told.get(&prefix).copied() != next_hop {
                match next_hop {
                    Some(next_hop) => self.told.insert(prefix, next_hop),
                    None => self.told.remove(&prefix),
                };
                changes.push((prefix, next_hop));
            }
        }
        changes
    }
}

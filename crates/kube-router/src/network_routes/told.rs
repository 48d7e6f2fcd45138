//! What this node advertises: its pod networks, and service addresses, counted over the Services that want them.
//!
//! Decided here: which paths differ from what the speaker was told last. An address that two Services want stays until
//! both are gone or want it no longer (upstream's W19). An address is told only when it is programmed: a path attracts
//! traffic. A prefix that stands for several addresses is told with the first of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use linux::row::Family;

use crate::kube::model::ObjectName;
use crate::node::ThisNode;

/// A path to announce, with its next hop; or to withdraw. And whether it leads to pods, not to services.
pub type PathChange = (IpNet, Option<IpAddr>, bool);

/// An address of a Service that is to be advertised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wish {
    /// As part of this prefix, which may be the address alone.
    pub prefix: IpNet,
    /// The address.
    pub address: IpAddr,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Told {
    of: HashMap<ObjectName, BTreeSet<Wish>>,
    /// How many Services want an address, under the prefix it is told as.
    wanted: BTreeMap<IpNet, BTreeMap<IpAddr, u32>>,
    pod_networks: BTreeSet<IpNet>,
    /// With the next hop, and whether it is a service's.
    told: BTreeMap<IpNet, (IpAddr, bool)>,
    dirty: BTreeSet<IpNet>,
    /// Wanted, but nothing of it is programmed yet.
    waiting: BTreeSet<IpNet>,
}

impl Told {
    /// The addresses a Service wants advertised. O(its addresses).
    pub fn service(&mut self, id: &ObjectName, wishes: BTreeSet<Wish>) {
        let before = self.of.remove(id).unwrap_or_default();
        for wish in wishes.difference(&before) {
            *self.wanted.entry(wish.prefix).or_default().entry(wish.address).or_default() += 1;
            self.dirty.insert(wish.prefix);
        }
        for wish in before.difference(&wishes) {
            self.unwanted(wish);
        }
        if !wishes.is_empty() {
            self.of.insert(id.clone(), wishes);
        }
    }

    fn unwanted(&mut self, wish: &Wish) {
        self.dirty.insert(wish.prefix);
        let Some(addresses) = self.wanted.get_mut(&wish.prefix) else { return };
        if let Some(count) = addresses.get_mut(&wish.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&wish.address);
            }
        }
        if addresses.is_empty() {
            self.wanted.remove(&wish.prefix);
        }
    }

    /// This node's pod networks, and the next hop of everything, may have changed. O(all paths).
    pub fn pod_networks(&mut self, node: &ThisNode) {
        let now: BTreeSet<IpNet> =
            node.families().flat_map(|family| node.pod_cidrs(family)).map(|net| net.trunc()).collect();
        self.dirty.extend(self.pod_networks.iter().chain(&now));
        self.dirty.extend(self.told.keys());
        self.dirty.extend(self.wanted.keys());
        self.pod_networks = now;
    }

    /// What the speaker has to be told. The next hop is the node's address of the prefix's family; without one there is
    /// no path. What has been told once stays until nobody wants it, whatever happens to it in the kernel. O(what
    /// changed + what waits).
    pub fn take_changes(&mut self, node: &ThisNode, programmed: impl Fn(IpAddr) -> bool) -> Vec<PathChange> {
        let mut changes = Vec::new();
        let mut due = std::mem::take(&mut self.dirty);
        due.append(&mut self.waiting);
        for prefix in due {
            let addresses = self.wanted.get(&prefix);
            let of_pods = self.pod_networks.contains(&prefix);
            let known = of_pods || self.told.contains_key(&prefix);
            if !known && addresses.is_some_and(|addresses| !addresses.keys().any(|ip| programmed(*ip))) {
                self.waiting.insert(prefix);
                continue;
            }
            let wanted = of_pods || addresses.is_some();
            // Of what is withdrawn nobody wants anything any more: remembered from when it was told.
            let is_service = match self.told.get(&prefix) {
                Some((_, service)) => *service,
                None => !of_pods,
            };
            let next_hop = wanted.then(|| node.best_ip(Family::of_net(&prefix))).flatten();
            if self.told.get(&prefix).map(|(hop, _)| *hop) != next_hop {
                match next_hop {
                    Some(next_hop) => self.told.insert(prefix, (next_hop, is_service)),
                    None => self.told.remove(&prefix),
                };
                changes.push((prefix, next_hop, !is_service));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kube::model::Node;
    use crate::node::Facts;

    fn node() -> ThisNode {
        let object = Node {
            name: "here".into(),
            internal_ips: vec!["10.0.0.1".parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Arc::default(),
        };
        ThisNode { name: "here".into(), object: Some(object), facts: Facts::default() }
    }

    fn wish(prefix: &str, address: &str) -> Wish {
        Wish { prefix: prefix.parse().unwrap(), address: address.parse().unwrap() }
    }

    fn changes(told: &mut Told, programmed: &[&str]) -> Vec<String> {
        let there = |ip: IpAddr| programmed.contains(&ip.to_string().as_str());
        let changes = told.take_changes(&node(), there);
        changes
            .iter()
            .map(|(prefix, hop, _)| format!("{}{prefix}", if hop.is_some() { '+' } else { '-' }))
            .collect()
    }

    #[test]
    fn an_address_waits_until_it_is_programmed_and_stays_while_somebody_wants_it() {
        let (one, other) = (ObjectName::cluster_wide("a".into()), ObjectName::cluster_wide("b".into()));
        let wishes: BTreeSet<Wish> = [wish("10.96.0.1/32", "10.96.0.1")].into();
        let mut told = Told::default();
        told.service(&one, wishes.clone());
        assert!(changes(&mut told, &[]).is_empty());
        assert_eq!(changes(&mut told, &["10.96.0.1"]), ["+10.96.0.1/32"]);
        told.service(&other, wishes);
        told.service(&one, BTreeSet::new());
        assert!(changes(&mut told, &[]).is_empty(), "the other wants it, and it was told already");
        told.service(&other, BTreeSet::new());
        assert_eq!(changes(&mut told, &["10.96.0.1"]), ["-10.96.0.1/32"]);
        told.service(&one, [wish("10.96.0.2/32", "10.96.0.2")].into());
        assert!(changes(&mut told, &[]).is_empty());
        told.service(&one, BTreeSet::new());
        assert!(changes(&mut told, &["10.96.0.2"]).is_empty(), "nobody waits for it any more");
    }

    #[test]
    fn a_range_comes_with_its_first_address_and_goes_with_its_last() {
        let (one, other) = (ObjectName::cluster_wide("a".into()), ObjectName::cluster_wide("b".into()));
        let mut told = Told::default();
        told.service(&one, [wish("10.96.0.0/12", "10.96.0.1")].into());
        told.service(&other, [wish("10.96.0.0/12", "10.96.0.2")].into());
        assert!(changes(&mut told, &[]).is_empty());
        assert_eq!(changes(&mut told, &["10.96.0.2"]), ["+10.96.0.0/12"]);
        told.service(&other, BTreeSet::new());
        assert!(changes(&mut told, &[]).is_empty());
        told.service(&one, BTreeSet::new());
        assert_eq!(changes(&mut told, &[]), ["-10.96.0.0/12"]);
    }
}

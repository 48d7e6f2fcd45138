//! Paths learned from other speakers: which prefixes there are, by next hop, and which of them are due to be planned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use linux::row::Name;

use super::overlay::Learned;

/// Best paths of the speaker, indexed by next hop, with the addresses of nodes.
#[derive(Debug, Default)]
pub struct LearnedPaths {
    next_hops: BTreeMap<IpNet, IpAddr>,
    prefixes: HashMap<IpAddr, BTreeSet<IpNet>>,
    addresses_of: HashMap<Name, BTreeSet<IpAddr>>,
    /// How many nodes claim an address: for a moment two may.
    nodes: HashMap<IpAddr, u32>,
    dirty: BTreeSet<IpNet>,
}

impl LearnedPaths {
    /// The best path to a prefix changed, or there is none any more. O(log prefixes).
    pub fn set(&mut self, prefix: IpNet, next_hop: Option<IpAddr>) {
        let before = match next_hop {
            Some(next_hop) => self.next_hops.insert(prefix, next_hop),
            None => self.next_hops.remove(&prefix),
        };
        if before == next_hop {
            return;
        }
        if let Some(before) = before
            && let Some(prefixes) = self.prefixes.get_mut(&before)
        {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.prefixes.remove(&before);
            }
        }
        if let Some(next_hop) = next_hop {
            self.prefixes.entry(next_hop).or_default().insert(prefix);
        }
        self.dirty.insert(prefix);
    }

    /// The addresses of a node; none if it is gone. O(its addresses + prefixes behind those that changed).
    pub fn set_node(&mut self, name: &Name, addresses: impl Iterator<Item = IpAddr>) {
        let now: BTreeSet<IpAddr> = addresses.collect();
        let before = self.addresses_of.remove(name).unwrap_or_default();
        for address in now.difference(&before) {
            let count = self.nodes.entry(*address).or_default();
            *count += 1;
            if *count == 1 {
                self.dirty.extend(self.prefixes.get(address).into_iter().flatten());
            }
        }
        for address in before.difference(&now) {
            if let Some(count) = self.nodes.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.nodes.remove(address);
                    self.dirty.extend(self.prefixes.get(address).into_iter().flatten());
                }
            }
        }
        if !now.is_empty() {
            self.addresses_of.insert(name.clone(), now);
        }
    }

    /// Everything is to be planned anew. O(prefixes).
    pub fn all_dirty(&mut self) {
        self.dirty.extend(self.next_hops.keys());
    }

    /// What is to be planned.
    pub fn take_dirty(&mut self) -> BTreeSet<IpNet> {
        std::mem::take(&mut self.dirty)
    }

    /// Every path, by prefix.
    pub fn all(&self) -> impl Iterator<Item = Learned> {
        self.next_hops.keys().filter_map(|prefix| self.get(prefix))
    }

    /// The path packets to an address take: that of the longest prefix. O(prefixes).
    pub fn covering(&self, ip: IpAddr) -> Option<Learned> {
        let covering = self.next_hops.keys().filter(|prefix| prefix.contains(&ip));
        self.get(covering.max_by_key(|prefix| prefix.prefix_len())?)
    }

    /// The path to a prefix.
    pub fn get(&self, prefix: &IpNet) -> Option<Learned> {
        let next_hop = *self.next_hops.get(prefix)?;
        Some(Learned { prefix: *prefix, next_hop, is_node: self.nodes.contains_key(&next_hop) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_comes_late_makes_its_paths_due() {
        let (prefix, hop): (IpNet, IpAddr) = ("10.244.1.0/24".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut paths = LearnedPaths::default();
        paths.set(prefix, Some(hop));
        assert_eq!(paths.take_dirty(), [prefix].into());
        assert!(!paths.get(&prefix).unwrap().is_node);
        paths.set(prefix, Some(hop));
        assert!(paths.take_dirty().is_empty(), "the same again is no change");
        paths.set_node(&"b".into(), [hop].into_iter());
        assert_eq!(paths.take_dirty(), [prefix].into());
        assert!(paths.get(&prefix).unwrap().is_node);
        paths.set_node(&"c".into(), [hop].into_iter());
        paths.set_node(&"b".into(), [].into_iter());
        assert!(paths.take_dirty().is_empty(), "another node has the address still");
        paths.set_node(&"c".into(), [].into_iter());
        assert_eq!(paths.take_dirty(), [prefix].into());
        paths.set(prefix, None);
        assert_eq!((paths.take_dirty(), paths.get(&prefix)), ([prefix].into(), None));
    }
}

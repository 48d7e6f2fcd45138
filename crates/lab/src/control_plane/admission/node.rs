//! Pod ranges of nodes: a /24 of each IPv4 and a /64 of each IPv6 cluster range, the first free one.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::api_server::object::{child, default, items, text};

/// The pod ranges in use.
#[derive(Debug)]
pub(super) struct PodRanges {
    cluster: Vec<IpNet>,
    taken: BTreeSet<IpNet>,
}

impl PodRanges {
    pub(super) fn new(cluster: Vec<IpNet>) -> Self {
        Self { cluster, taken: BTreeSet::new() }
    }

    /// Notes the node's ranges, or gives it some. O(nodes).
    pub(super) fn admit(&mut self, node: &mut Value) {
        let own = ranges_of(node);
        if !own.is_empty() {
            self.taken.extend(own);
            return;
        }
        let ranges: Vec<_> = self.cluster.iter().filter_map(|range| self.first_free(*range)).collect();
        let Some(primary) = ranges.first() else { return };
        let spec = child(node, "spec");
        default(spec, "podCIDR", primary.to_string());
        default(spec, "podCIDRs", json!(ranges.iter().map(IpNet::to_string).collect::<Vec<_>>()));
        self.taken.extend(ranges);
    }

    fn first_free(&self, cluster: IpNet) -> Option<IpNet> {
        let length = if cluster.addr().is_ipv4() { 24 } else { 64 };
        let mut subnets = cluster.subnets(length.max(cluster.prefix_len())).ok()?;
        subnets.find(|subnet| !self.taken.contains(subnet))
    }

    /// Frees a deleted node's ranges.
    pub(super) fn release(&mut self, node: &Value) {
        for range in ranges_of(node) {
            self.taken.remove(&range);
        }
    }
}

fn ranges_of(node: &Value) -> Vec<IpNet> {
    let list = items(node, &["spec", "podCIDRs"]).iter().filter_map(Value::as_str);
    list.chain([text(node, &["spec", "podCIDR"])]).filter_map(|range| range.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_the_first_free_range_of_each_family() {
        let cluster = ["10.244.0.0/16", "fd00:10:244::/56"].map(|range| range.parse().unwrap());
        let mut ranges = PodRanges::new(cluster.to_vec());
        let mut fixed = json!({"spec": {"podCIDR": "10.244.0.0/24"}});
        ranges.admit(&mut fixed);
        assert_eq!(fixed["spec"].get("podCIDRs"), None);
        let (mut first, mut second) = (json!({}), json!({}));
        ranges.admit(&mut first);
        ranges.admit(&mut second);
        assert_eq!(first["spec"]["podCIDRs"], json!(["10.244.1.0/24", "fd00:10:244::/64"]));
        assert_eq!(second["spec"]["podCIDRs"], json!(["10.244.2.0/24", "fd00:10:244:1::/64"]));
        ranges.release(&first);
        let mut third = json!({});
        ranges.admit(&mut third);
        assert_eq!(third["spec"]["podCIDR"], "10.244.1.0/24");
    }
}

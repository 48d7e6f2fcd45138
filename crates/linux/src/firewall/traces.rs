//! Whether iptables and ipset hold something of ours, told without starting a program.

use super::scope::FirewallScope;
use crate::ipset::Sets;
use crate::iptables::tool::legacy_tables_exist;
use crate::nftables;
use crate::row::Family;

/// Whether there may be sets or chains of ours: sets by netlink, chains of iptables-nft by netlink, and as the legacy
/// tables tell nobody what is in them, whether there are any. What cannot be asked is not there. O(sets + chains).
pub fn may_hold(scope: &FirewallScope) -> bool {
    has_sets(scope) || has_chains(scope) || Family::ALL.into_iter().any(legacy_tables_exist)
}

fn has_sets(scope: &FirewallScope) -> bool {
    let described = Sets::open().and_then(|mut sets| sets.describe());
    described.is_ok_and(|sets| sets.iter().any(|set| scope.has_set(&set.key.name)))
}

fn has_chains(scope: &FirewallScope) -> bool {
    let chains = nftables::chains_of_iptables();
    chains.is_ok_and(|names| names.iter().any(|name| scope.has_chain(name)))
}

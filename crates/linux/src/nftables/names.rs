//! Where things are in nftables: the table of a family, the names of chains, the hooks of those that have one.
//!
//! One table for each family holds everything, because rules see the sets of their own table only. Chains of `filter`
//! keep their names; those of other tables, and the chains of ours that stand in for built-in ones, have the table
//! before it: `nat-KUBE-ROUTER-HAIRPIN`, `filter-FORWARD`.

use crate::row::{ChainKey, Family, FilterTable, Name};

/// `NFT_NAME_MAXLEN` less the terminating zero; iptables allows 28, sets 31.
const NAME_BYTES: usize = 255;

/// Names in nftables that are the agent's choice.
#[derive(Debug, Clone)]
pub struct Names {
    /// The table for IPv4.
    pub table_v4: Name,
    /// The table for IPv6.
    pub table_v6: Name,
    /// The set of service addresses, protocols and ports: connections first sent to one of them go through IPVS.
    pub service_ports: Name,
}

impl Names {
    /// The table of a family.
    pub fn table(&self, family: Family) -> &Name {
        match family {
            Family::V4 => &self.table_v4,
            Family::V6 => &self.table_v6,
        }
    }
}

/// Where packets come by a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    /// `filter`, `nat` or `route`.
    pub(super) kind: &'static str,
    /// `NF_INET_*`
    pub(super) number: u32,
    /// `NF_IP_PRI_*`, the same as iptables' table has.
    pub(super) priority: i32,
}

/// The hook of a built-in chain; `None` if the chain is none, or its table has none there.
pub(super) fn hook(chain: &ChainKey) -> Option<Hook> {
    let number = match &*chain.name {
        "PREROUTING" => 0,
        "INPUT" => 1,
        "FORWARD" => 2,
        "OUTPUT" => 3,
        "POSTROUTING" => 4,
        _ => return None,
    };
    let (kind, priority) = match (chain.table, number) {
        (FilterTable::Filter, 1..=3) => ("filter", 0),
        (FilterTable::Nat, 0 | 3) => ("nat", -100),
        (FilterTable::Nat, 1 | 4) => ("nat", 100),
        (FilterTable::Mangle, 3) => ("route", -150),
        (FilterTable::Mangle, _) => ("filter", -150),
        _ => return None,
    };
    Some(Hook { kind, number, priority })
}

/// The name of a chain of ours, or of the one that stands in for a built-in chain.
///
/// # Errors
/// Says why it is no name.
pub(super) fn chain_name(chain: &ChainKey) -> Result<String, String> {
    let name = match (chain.table, hook(chain)) {
        (FilterTable::Filter, None) => chain.name.to_string(),
        (table, _) => format!("{}-{}", table.as_str(), chain.name),
    };
    checked(&name)?;
    if key_of(chain.family, &name) == *chain {
        Ok(name)
    } else {
        Err(format!("'{name}' names another chain"))
    }
}

/// The chain of a name in our table.
pub(super) fn key_of(family: Family, name: &str) -> ChainKey {
    for table in FilterTable::ALL {
        let rest = name.strip_prefix(table.as_str()).and_then(|rest| rest.strip_prefix('-'));
        if let Some(rest) = rest {
            return ChainKey { family, table, name: rest.into() };
        }
    }
    ChainKey { family, table: FilterTable::Filter, name: name.into() }
}

/// Whether nftables takes a name, and `nft` can print it so that it can be read again.
///
/// # Errors
/// Says that it is no name.
pub(super) fn checked(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if good && name.len() <= NAME_BYTES && name.chars().all(plain) {
        Ok(())
    } else {
        Err(format!("'{name}' is no name for nftables"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(table: FilterTable, name: &str) -> Result<String, String> {
        chain_name(&ChainKey { family: Family::V4, table, name: name.into() })
    }

    #[test]
    fn a_chain_is_found_by_its_name() {
        use FilterTable::{Filter, Mangle, Nat};
        for (table, name, expected) in [
            (Filter, "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-FORWARD"),
            (Filter, "FORWARD", "filter-FORWARD"),
            (Nat, "KUBE-ROUTER-HAIRPIN", "nat-KUBE-ROUTER-HAIRPIN"),
            (Nat, "POSTROUTING", "nat-POSTROUTING"),
            (Mangle, "OUTPUT", "mangle-OUTPUT"),
        ] {
            assert_eq!(named(table, name).as_deref(), Ok(expected));
            let key = key_of(Family::V4, expected);
            assert_eq!((key.table, &*key.name), (table, name));
        }
        for bad in ["nat-FORWARD", "", "two words", "9", &"x".repeat(256)] {
            assert!(named(Filter, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_built_in_chains_have_hooks() {
        let hook = |table, name: &str| hook(&ChainKey { family: Family::V6, table, name: name.into() });
        let forward = hook(FilterTable::Filter, "FORWARD").unwrap();
        assert_eq!((forward.kind, forward.number, forward.priority), ("filter", 2, 0));
        assert_eq!(hook(FilterTable::Nat, "POSTROUTING").unwrap().priority, 100);
        assert_eq!(hook(FilterTable::Filter, "POSTROUTING"), None);
        assert_eq!(hook(FilterTable::Filter, "KUBE-ROUTER-FORWARD"), None);
    }
}

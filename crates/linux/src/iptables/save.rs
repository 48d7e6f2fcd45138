//! A whole `iptables-save` dump taken apart by table and chain.
//!
//! Decided here: which line belongs where. Rules stay text; most belong to others and need no parsing.

use std::collections::BTreeMap;

use crate::row::FilterTable;

/// Chains of a table with their rules, in order, as the text behind `-A CHAIN `.
pub type Chains<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The tables of a dump; tables no [`FilterTable`] names (raw, security) are left out.
pub fn tables(dump: &str) -> BTreeMap<FilterTable, Chains<'_>> {
    let mut tables: BTreeMap<FilterTable, Chains<'_>> = BTreeMap::new();
    let mut current: Option<FilterTable> = None;
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = FilterTable::ALL.into_iter().find(|table| table.as_str() == name.trim());
            if let Some(table) = current {
                tables.entry(table).or_default();
            }
        }
        let Some(chains) = current.and_then(|table| tables.get_mut(&table)) else { continue };
        if let Some(declaration) = line.strip_prefix(':') {
            if let Some(name) = declaration.split(' ').next() {
                chains.entry(name).or_default();
            }
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            chains.entry(chain).or_default().push(rule);
        }
    }
    tables
}

/// A table whose rules the dump leaves out because iptables cannot express them; the program still succeeds.
pub fn unreadable(dump: &str) -> Option<FilterTable> {
    let named = |line: &str| {
        let (name, _) = line.strip_prefix("# Table `")?.split_once("' is incompatible")?;
        FilterTable::ALL.into_iter().find(|table| table.as_str() == name)
    };
    dump.lines().find_map(named)
}

/// Chains a dump declares, over every table including those left out by [`tables`].
pub fn chain_names(dump: &str) -> impl Iterator<Item = &str> {
    dump.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next())
}

/// Rules in a dump.
pub fn rule_count(dump: &str) -> usize {
    dump.lines().filter(|line| line.starts_with("-A ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_belong_to_their_table_and_chain() {
        let dump = "# x\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n\
            *filter\n:INPUT ACCEPT [1:2]\n:A - [0:0]\n-A INPUT -j A\n-A A\n-A A -s 10.0.0.0/8 -j DROP\nCOMMIT\n";
        let tables = tables(dump);
        assert_eq!(tables.keys().collect::<Vec<_>>(), [&FilterTable::Filter]);
        let filter = &tables[&FilterTable::Filter];
        assert_eq!(filter["INPUT"], ["-j A"]);
        assert_eq!(filter["A"], ["", "-s 10.0.0.0/8 -j DROP"]);
        assert_eq!(chain_names(dump).collect::<Vec<_>>(), ["PREROUTING", "INPUT", "A"]);
        assert_eq!((rule_count(dump), unreadable(dump)), (4, None));
    }

    #[test]
    fn tables_left_out_are_noticed() {
        assert_eq!(unreadable("# Table `nat' is incompatible, use 'nft' tool.\n"), Some(FilterTable::Nat));
        assert_eq!(unreadable("# Table `raw' is incompatible, use 'nft' tool.\n"), None);
    }
}

//! Chain and rule rows to edits of one table, and dumps to rows.
//!
//! Pure: text in, text out. A changed chain is written whole; within the transaction no packet sees it empty.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::foreign;
use super::scope::FirewallScope;
use crate::iptables::restore::{Edit, Line};
use crate::iptables::save::Chains;
use crate::iptables::{check, parse, render};
use crate::lane::Refusal;
use crate::row::{ChainKey, Family, FilterTable, Key, Position, Row};
use crate::rule::Rule;

/// `XT_EXTENSION_MAXNAMELEN` without its end and the tools' own reserve.
const CHAIN_NAME_BYTES: usize = 28;
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Where each rule of ours in a foreign chain was asked to be.
pub(super) type Asked = BTreeMap<(ChainKey, Rule), Position>;

/// The edit that gives a chain these rules, or removes it.
pub(super) fn chain_edit(key: &ChainKey, rules: Option<&[Rule]>) -> Result<Edit, Refusal> {
    if key.name.len() > CHAIN_NAME_BYTES || key.name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let reason = format!("'{}' is no chain name (at most {CHAIN_NAME_BYTES} bytes)", key.name);
        return Err(Refusal::new(reason));
    }
    let rules_of_it = rules.unwrap_or_default();
    for rule in rules_of_it {
        check(rule, key.family).map_err(Refusal::new)?;
    }
    Ok(Edit {
        declare: Some(key.name.clone()),
        refers: rules_of_it.iter().filter_map(Rule::jump_target).cloned().collect(),
        lines: rules_of_it
            .iter()
            .map(|rule| Line::new(format!("-A {} {}", key.name, render(rule, key.family))))
            .collect(),
        remove: rules.is_none(),
    })
}

/// The edit that brings a rule to its place in a foreign chain, or removes it; `rules` are those in the chain now.
pub(super) fn foreign_edit(
    key: &ChainKey,
    rule: &Rule,
    asked: Option<Position>,
    rules: &[&str],
    scope: &FirewallScope,
    all_asked: &Asked,
) -> Result<Edit, Refusal> {
    if asked.is_some() {
        check(rule, key.family).map_err(Refusal::new)?;
    }
    let parsed: Vec<Rule> = rules.iter().map(|text| parse(text, key.family)).collect();
    let leads = |(rule, text): (&Rule, &&str)| leads(key, rule, scope.is_jumped_to(text), all_asked);
    let leading: Vec<bool> = parsed.iter().zip(rules).map(leads).collect();
    let found: Vec<usize> =
        parsed.iter().enumerate().filter(|(_, there)| *there == rule).map(|(index, _)| index).collect();
    Ok(Edit {
        refers: rule.jump_target().filter(|_| asked.is_some()).cloned().into_iter().collect(),
        lines: foreign::place(&key.name, rules, &leading, &found, &render(rule, key.family), asked),
        ..Edit::default()
    })
}

/// Rows of one table of a dump. O(rules of ours and in built-in chains) parsing, O(text) searching.
pub(super) fn rows(
    family: Family,
    table: FilterTable,
    chains: &Chains<'_>,
    scope: &FirewallScope,
    asked: &Asked,
) -> Vec<(Key, Row)> {
    let mut rows = Vec::new();
    for (name, rules) in chains {
        let key = ChainKey { family, table, name: (*name).into() };
        if scope.has_chain(name) {
            let rules: Arc<[Rule]> = rules.iter().map(|text| parse(text, family)).collect();
            rows.push((Key::Chain(key), Row::Chain(rules)));
        } else {
            foreign_rows(&key, rules, scope, asked, &mut rows);
        }
    }
    rows
}

fn foreign_rows(
    key: &ChainKey,
    rules: &[&str],
    scope: &FirewallScope,
    asked: &Asked,
    rows: &mut Vec<(Key, Row)>,
) {
    let written_here = asked.keys().any(|(chain, _)| chain == key);
    let looked_at = written_here || BUILT_IN.contains(&&*key.name);
    // The rule, and whether it may stand before one that is first.
    let recognise = |text: &&str| -> Option<(Rule, bool)> {
        let jumps = scope.is_jumped_to(text);
        if !jumps && !looked_at {
            return None;
        }
        let rule = parse(text, key.family);
        let ours = jumps || asked.contains_key(&(key.clone(), rule.clone())) || (scope.foreign)(key, &rule);
        let leads = ours && leads(key, &rule, jumps, asked);
        ours.then_some((rule, leads))
    };
    let found: Vec<Option<(Rule, bool)>> = rules.iter().map(recognise).collect();
    let leading: Vec<bool> =
        found.iter().map(|rule| rule.as_ref().is_some_and(|(_, leads)| *leads)).collect();
    let mut seen = HashSet::new();
    for (index, rule) in found.into_iter().enumerate() {
        let Some((rule, _)) = rule.filter(|(rule, _)| seen.insert(rule.clone())) else { continue };
        let row_key = (key.clone(), rule);
        let place = foreign::position(&leading, index, asked.get(&row_key).copied());
        rows.push((Key::ForeignRule(row_key.0, row_key.1), Row::ForeignRule(place)));
    }
}

/// Whether a rule may stand before one of ours that is first: it was asked to be first as well, or it is a jump of
/// ours nobody asked for yet, as after a restart.
fn leads(key: &ChainKey, rule: &Rule, jumps_to_ours: bool, asked: &Asked) -> bool {
    match asked.get(&(key.clone(), rule.clone())) {
        Some(position) => *position == Position::First,
        None => jumps_to_ours,
    }
}

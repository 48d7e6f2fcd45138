//! Chain and rule rows to edits of one table, and dumps to rows.
//!
//! Pure: text in, text out. A changed chain is written whole; within the transaction no packet sees it empty.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::foreign::{self, There};
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
    let mut found = Vec::new();
    let there: Vec<There<'_>> = rules
        .iter()
        .enumerate()
        .map(|(index, printed)| {
            let parsed = parse(printed, key.family);
            if parsed == *rule {
                found.push(index);
            }
            let rank = rank(belongs(key, &parsed, scope.is_jumped_to(printed), scope, all_asked));
            There { printed, written: render(&parsed, key.family), rank }
        })
        .collect();
    Ok(Edit {
        refers: rule.jump_target().filter(|_| asked.is_some()).cloned().into_iter().collect(),
        lines: foreign::place(&key.name, &there, &found, &render(rule, key.family), asked),
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
    let recognise = |text: &&str| -> Option<(Rule, Position)> {
        let jumps = scope.is_jumped_to(text);
        if !jumps && !looked_at {
            return None;
        }
        let rule = parse(text, key.family);
        let place = belongs(key, &rule, jumps, scope, asked)?;
        Some((rule, place))
    };
    let found: Vec<Option<(Rule, Position)>> = rules.iter().map(recognise).collect();
    let ranks: Vec<Option<u8>> =
        found.iter().map(|rule| rank(rule.as_ref().map(|(_, place)| *place))).collect();
    let mut seen = HashSet::new();
    for (index, rule) in found.into_iter().enumerate() {
        let Some((rule, place)) = rule.filter(|(rule, _)| seen.insert(rule.clone())) else { continue };
        let there = foreign::position(&ranks, index, place);
        rows.push((Key::ForeignRule(key.clone(), rule), Row::ForeignRule(there)));
    }
}

/// Where a rule in a foreign chain belongs, if it is ours: where it was asked to be, or, as after a restart, where
/// those who write such rules say. A jump of ours that nobody knows was written by another version.
fn belongs(
    key: &ChainKey,
    rule: &Rule,
    jumps_to_ours: bool,
    scope: &FirewallScope,
    asked: &Asked,
) -> Option<Position> {
    let written = asked.get(&(key.clone(), rule.clone())).copied();
    let known = || scope.foreign.iter().find_map(|place| place(key, rule));
    written.or_else(known).or(jumps_to_ours.then_some(Position::First(0)))
}

fn rank(place: Option<Position>) -> Option<u8> {
    match place {
        Some(Position::First(rank)) => Some(rank),
        _ => None,
    }
}

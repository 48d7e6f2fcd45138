//! The firewall lane: sets over netlink, rules through `iptables-restore`.
//!
//! Decided here: the order within a stage, so that nothing allowed before and after is refused meanwhile and nothing
//! forbidden before and after passes: sets, added members, rules, removed members, removed sets. Rules are one
//! transaction for each family and table. A stage that changes only sets and members starts no process. What others
//! change is found by [`Lane::read`] only.

mod foreign;
mod rules;
mod scope;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use scope::FirewallScope;

use crate::ipset::{self, Edit as MemberEdit, Sets, kernel_name};
use crate::iptables::restore::{self, Edit};
use crate::iptables::save;
use crate::iptables::tool::{self, Programs};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink;
use crate::row::{Family, FilterTable, Key, Member, Row, SetKey};
use rules::Asked;

type Outcomes = Vec<Option<Result<(), Refusal>>>;
type TableEdits = BTreeMap<(Family, FilterTable), Vec<(usize, Edit)>>;

/// Sets, members, chains, and rules in foreign chains of one network namespace.
#[derive(Debug)]
pub struct FirewallLane {
    scope: FirewallScope,
    sets: Option<Sets>,
    programs: Option<Programs>,
    asked: Asked,
}

impl FirewallLane {
    /// Opens nothing yet: the socket and the programs are looked for at first use, on the lane's own thread.
    pub fn new(scope: FirewallScope) -> FirewallLane {
        FirewallLane { scope, sets: None, programs: None, asked: Asked::new() }
    }

    /// With programs already chosen, e.g. because the agent asked them for `--random-fully`.
    pub fn with_programs(scope: FirewallScope, programs: Programs) -> FirewallLane {
        FirewallLane { programs: Some(programs), ..FirewallLane::new(scope) }
    }

    fn sets(&mut self) -> Result<&mut Sets, netlink::Error> {
        match self.sets {
            Some(ref mut sets) => Ok(sets),
            None => Ok(self.sets.insert(Sets::open()?)),
        }
    }

    fn programs(&mut self) -> Result<&Programs, tool::Error> {
        match self.programs {
            Some(ref programs) => Ok(programs),
            None => Ok(self.programs.insert(Programs::detect()?)),
        }
    }

    fn read_sets(&mut self) -> Result<Vec<(Key, Row)>, netlink::Error> {
        let mut rows = Vec::new();
        let described = self.sets()?.describe()?;
        for description in described {
            if !self.scope.has_set(&description.key.name) || description.header.is_none() {
                continue;
            }
            // A set destroyed by someone since is not there.
            let Some((description, members)) = self.sets()?.members(&kernel_name(&description.key))? else {
                continue;
            };
            let Some(header) = description.header else { continue };
            rows.reserve(members.len() + 1);
            let set = Arc::new(description.key.clone());
            rows.push((Key::Set(description.key), Row::Set(header)));
            let member = |member| (Key::Member(set.clone(), member), Row::Member);
            rows.extend(members.into_iter().map(member));
        }
        Ok(rows)
    }

    fn read_rules(&mut self) -> Result<Vec<(Key, Row)>, tool::Error> {
        let mut rows = Vec::new();
        for family in Family::ALL {
            let dump = self.programs()?.save(family)?;
            for (table, chains) in save::tables(&dump) {
                rows.extend(rules::rows(family, table, &chains, &self.scope, &self.asked));
            }
        }
        Ok(rows)
    }

    fn put_sets(&mut self, stage: &[Change], outcomes: &mut Outcomes) {
        for (change, outcome) in stage.iter().zip(outcomes) {
            if let (Key::Set(key), Some(Row::Set(header))) = (&change.key, &change.to) {
                *outcome = Some(match self.sets() {
                    Ok(sets) => sets::put(sets, key, header),
                    Err(error) => Err(ipset::errno::refusal("opening netfilter netlink", &error)),
                });
            }
        }
    }

    fn change_members(&mut self, edit: MemberEdit, stage: &[Change], outcomes: &mut Outcomes) {
        let mut by_set: BTreeMap<&SetKey, (Vec<usize>, Vec<Member>)> = BTreeMap::new();
        for (index, change) in stage.iter().enumerate() {
            let Key::Member(set, member) = &change.key else { continue };
            if change.to.is_some() == (edit == MemberEdit::Add) {
                let (indexes, members) = by_set.entry(&**set).or_default();
                indexes.push(index);
                members.push(*member);
            }
        }
        for (set, (indexes, members)) in by_set {
            let answers = match self.sets() {
                Ok(sets) => sets::change(sets, edit, set, &members),
                Err(error) => {
                    let refusal = ipset::errno::refusal("opening netfilter netlink", &error);
                    vec![Err(refusal); members.len()]
                }
            };
            answer(outcomes, indexes, answers);
        }
    }

    fn destroy_sets(&mut self, stage: &[Change], outcomes: &mut Outcomes) {
        let (indexes, keys): (Vec<usize>, Vec<SetKey>) = stage
            .iter()
            .enumerate()
            .filter_map(|(index, change)| match (&change.key, &change.to) {
                (Key::Set(key), None) => Some((index, key.clone())),
                _ => None,
            })
            .unzip();
        if keys.is_empty() {
            return;
        }
        let answers = match self.sets() {
            Ok(sets) => sets::destroy(sets, &keys),
            Err(error) => {
                vec![Err(ipset::errno::refusal("opening netfilter netlink", &error)); keys.len()]
            }
        };
        answer(outcomes, indexes, answers);
    }

    fn change_rules(&mut self, stage: &[Change], outcomes: &mut Outcomes) {
        let mut edits = TableEdits::new();
        for (index, change) in stage.iter().enumerate() {
            let Key::Chain(key) = &change.key else { continue };
            let rules = match &change.to {
                Some(Row::Chain(rules)) => Some(&**rules),
                None => None,
                Some(_) => continue,
            };
            collect(&mut edits, outcomes, (key.family, key.table), index, rules::chain_edit(key, rules));
        }
        self.edit_foreign(stage, &mut edits, outcomes);
        for ((family, table), edits) in edits {
            let (indexes, edits): (Vec<usize>, Vec<Edit>) = edits.into_iter().unzip();
            let answers = match self.programs() {
                Ok(programs) => restore::commit(table, edits, &mut |input| programs.restore(family, input)),
                Err(error) => vec![Err(Refusal::new(error.to_string())); indexes.len()],
            };
            answer(outcomes, indexes, answers);
        }
        self.forget_removed(stage, outcomes);
    }

    /// Rules in foreign chains are placed among what is there now, so their chains are read first: one process for
    /// each family that has such a change.
    fn edit_foreign(&mut self, stage: &[Change], edits: &mut TableEdits, outcomes: &mut Outcomes) {
        for family in Family::ALL {
            let changes: Vec<_> = stage
                .iter()
                .enumerate()
                .filter_map(|(index, change)| match (&change.key, &change.to) {
                    (Key::ForeignRule(chain, rule), None) => Some((index, chain, rule, None)),
                    (Key::ForeignRule(chain, rule), Some(Row::ForeignRule(position))) => {
                        Some((index, chain, rule, Some(*position)))
                    }
                    _ => None,
                })
                .filter(|(_, chain, ..)| chain.family == family)
                .collect();
            if changes.is_empty() {
                continue;
            }
            for (_, chain, rule, position) in &changes {
                if let Some(position) = position {
                    self.asked.insert(((*chain).clone(), (*rule).clone()), *position);
                }
            }
            let dump = match self.programs().and_then(|programs| programs.save(family)) {
                Ok(dump) => dump,
                Err(error) => {
                    let answers = changes.iter().map(|_| Err(Refusal::new(error.to_string()))).collect();
                    answer(outcomes, changes.iter().map(|change| change.0).collect(), answers);
                    continue;
                }
            };
            let tables = save::tables(&dump);
            for (index, chain, rule, position) in changes {
                let there = tables.get(&chain.table).and_then(|chains| chains.get(&*chain.name));
                let there = there.map(Vec::as_slice).unwrap_or_default();
                let edit = rules::foreign_edit(chain, rule, position, there, &self.scope, &self.asked);
                collect(edits, outcomes, (family, chain.table), index, edit);
            }
        }
    }

    fn forget_removed(&mut self, stage: &[Change], outcomes: &Outcomes) {
        for (change, outcome) in stage.iter().zip(outcomes) {
            if let (Key::ForeignRule(chain, rule), None, Some(Ok(()))) = (&change.key, &change.to, outcome) {
                self.asked.remove(&(chain.clone(), rule.clone()));
            }
        }
    }
}

impl Lane for FirewallLane {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows =
            self.read_sets().map_err(|source| ReadError { table: "sets", source: source.into() })?;
        rows.extend(
            self.read_rules().map_err(|source| ReadError { table: "chains", source: source.into() })?,
        );
        Ok(rows)
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes: Outcomes = vec![None; stage.len()];
        self.put_sets(stage, &mut outcomes);
        self.change_members(MemberEdit::Add, stage, &mut outcomes);
        self.change_rules(stage, &mut outcomes);
        self.change_members(MemberEdit::Delete, stage, &mut outcomes);
        self.destroy_sets(stage, &mut outcomes);
        let unknown = || Err(Refusal::new("not a row of the firewall lane"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
    }
}

/// Notes the edit of a change, or why it can have none. An edit of nothing is done already.
fn collect(
    edits: &mut TableEdits,
    outcomes: &mut Outcomes,
    table: (Family, FilterTable),
    index: usize,
    edit: Result<Edit, Refusal>,
) {
    match edit {
        Ok(edit) if edit.declare.is_none() && edit.lines.is_empty() => {
            answer(outcomes, vec![index], vec![Ok(())]);
        }
        Ok(edit) => edits.entry(table).or_default().push((index, edit)),
        Err(refusal) => answer(outcomes, vec![index], vec![Err(refusal)]),
    }
}

fn answer(outcomes: &mut Outcomes, indexes: Vec<usize>, answers: Vec<Result<(), Refusal>>) {
    for (index, answer) in indexes.into_iter().zip(answers) {
        if let Some(outcome) = outcomes.get_mut(index) {
            *outcome = Some(answer);
        }
    }
}

//! The firewall lane: chains and rules through `iptables-restore`, one transaction for each family and table.
//!
//! The sets that rules look into are written by the [`SetsLane`]. That neither allows nor refuses too much in between
//! is the order of the reconciler: a rule that names a set waits until it is filled, a set goes after the last rule
//! that names it. What others change is found by [`Lane::read`] only.

mod foreign;
mod rules;
mod scope;
mod sets;
mod sets_lane;
mod traces;

use std::collections::BTreeMap;

pub use scope::{FirewallScope, ForeignPlace};
pub use sets::TEMPORARY_PREFIX;
pub use sets_lane::SetsLane;
pub use traces::may_hold;

use crate::iptables::restore::{self, Edit};
use crate::iptables::save;
use crate::iptables::tool::{self, Programs};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::row::{Family, FilterTable, Key, Row};
use rules::Asked;

type Outcomes = Vec<Option<Result<(), Refusal>>>;
type TableEdits = BTreeMap<(Family, FilterTable), Vec<(usize, Edit)>>;

/// Chains, and rules in foreign chains, of one network namespace.
#[derive(Debug)]
pub struct FirewallLane {
    scope: FirewallScope,
    programs: Option<Programs>,
    asked: Asked,
}

impl FirewallLane {
    /// Opens nothing yet: the programs are looked for at first use, on the lane's own thread.
    pub fn new(scope: FirewallScope) -> FirewallLane {
        FirewallLane { scope, programs: None, asked: Asked::new() }
    }

    /// With programs already chosen, e.g. because the agent asked them for `--random-fully`.
    pub fn with_programs(scope: FirewallScope, programs: Programs) -> FirewallLane {
        FirewallLane { programs: Some(programs), ..FirewallLane::new(scope) }
    }

    fn programs(&mut self) -> Result<&Programs, tool::Error> {
        match self.programs {
            Some(ref programs) => Ok(programs),
            None => Ok(self.programs.insert(Programs::detect()?)),
        }
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
            let mut changes: Vec<_> = stage
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
            changes.sort_by_key(|(.., position)| foreign::turn(*position));
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
        self.read_rules().map_err(|source| ReadError { table: "chains", source: source.into() })
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes: Outcomes = vec![None; stage.len()];
        self.change_rules(stage, &mut outcomes);
        finished(outcomes, "firewall")
    }
}

/// The outcomes of a stage; a change that got none is of another lane.
fn finished(outcomes: Outcomes, lane: &str) -> Vec<Result<(), Refusal>> {
    let unknown = || Err(Refusal::new(format!("not a row of the {lane} lane")));
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
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

//! The sets lane: sets and their members over netlink.
//!
//! Decided here: the order within a stage: sets, added members, removed members, removed sets. Starts no process and
//! takes no lock of others, so endpoints and policies change however long somebody holds the xtables lock. What others
//! change is found by [`Lane::read`] only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scope::FirewallScope;
use super::{Outcomes, answer, finished, sets};
use crate::ipset::{self, Edit as MemberEdit, Sets, kernel_name};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink;
use crate::row::{Key, Member, Row, SetKey};

/// Sets and members of one network namespace.
#[derive(Debug)]
pub struct SetsLane {
    scope: FirewallScope,
    sets: Option<Sets>,
}

impl SetsLane {
    /// Opens nothing yet: the socket is opened at first use, on the lane's own thread.
    pub fn new(scope: FirewallScope) -> SetsLane {
        SetsLane { scope, sets: None }
    }

    fn sets(&mut self) -> Result<&mut Sets, netlink::Error> {
        match self.sets {
            Some(ref mut sets) => Ok(sets),
            None => Ok(self.sets.insert(Sets::open()?)),
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
}

impl Lane for SetsLane {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        self.read_sets().map_err(|source| ReadError { table: "sets", source: source.into() })
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes: Outcomes = vec![None; stage.len()];
        self.put_sets(stage, &mut outcomes);
        self.change_members(MemberEdit::Add, stage, &mut outcomes);
        self.change_members(MemberEdit::Delete, stage, &mut outcomes);
        self.destroy_sets(stage, &mut outcomes);
        finished(outcomes, "sets")
    }
}

//! The lane of sets and their members.
//!
//! Decided here: that a stage is one transaction, in which members are added before others are removed; that prefixes
//! lying in one another are held by the widest ([`super::cover`]). Limits of a set's size are remembered for the
//! reader's sake and not imposed: nftables' sets grow, and imposing one would give a set its whole table at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::cover::{Cover, Difference, is_prefix_of};
use super::kernel;
use super::names::{Names, checked};
use super::shape::{self, Shape};
use super::transaction::{Outcomes, Owner, Transaction};
use super::{Link, sweep};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink::{Error, OwnPorts, Requests};
use crate::row::{Family, Key, Member, Row, SetHeader, SetKey, SetKind};

/// The size shown for a set that nobody here made yet, as after a restart.
const UNLIMITED: u32 = u32::MAX;

/// Sets and members in nftables, of one network namespace.
#[derive(Debug)]
pub struct SetsLane {
    names: Names,
    link: Link,
    /// Headers as they were asked for.
    headers: HashMap<SetKey, SetHeader>,
    /// Sets there, as far as known.
    there: BTreeSet<SetKey>,
    /// Members of sets of prefixes.
    covers: HashMap<SetKey, Cover>,
}

impl SetsLane {
    /// Opens nothing yet; the socket is opened at first use, on the lane's own thread.
    pub fn new(names: Names) -> SetsLane {
        SetsLane {
            names,
            link: Link::default(),
            headers: HashMap::new(),
            there: BTreeSet::new(),
            covers: HashMap::new(),
        }
    }

    /// Adds the socket's port to these before anything is written through it.
    pub fn with_ports(mut self, ports: OwnPorts) -> SetsLane {
        self.link.ports = ports;
        self
    }

    fn read_family(&mut self, family: Family, rows: &mut Vec<(Key, Row)>) -> Result<(), Error> {
        let table = self.names.table(family).clone();
        for found in kernel::sets(self.link.open()?, family, &table)? {
            let Some(Shape::Set(kind)) = found.shape else { continue };
            let key = Arc::new(SetKey { family, name: found.name.as_str().into() });
            let members = self.members(&key, kind)?;
            let fresh = SetHeader { kind, max_members: UNLIMITED, timeout: None };
            let header = self.headers.get(&*key).filter(|asked| asked.kind == kind).copied().unwrap_or(fresh);
            rows.reserve(members.len() + 1);
            rows.push((Key::Set((*key).clone()), Row::Set(header)));
            rows.extend(members.into_iter().map(|member| (Key::Member(key.clone(), member), Row::Member)));
            self.there.insert((*key).clone());
        }
        Ok(())
    }

    /// Members in the kernel, with those they cover; what is no member of ours is left out.
    fn members(&mut self, key: &SetKey, kind: SetKind) -> Result<Vec<Member>, Error> {
        let family = key.family;
        let set = kernel::set_address(family, self.names.table(family), &key.name);
        let elements = kernel::elements(self.link.open()?, &set)?;
        let there: Vec<Member> = match kind {
            SetKind::HashNet => {
                shape::nets(elements.into_iter().map(|element| (element.key, element.ends)).collect())
            }
            SetKind::HashNetPort => elements
                .iter()
                .filter_map(|element| {
                    let last = element.key_end.as_ref().unwrap_or(&element.key);
                    shape::net_port(family, &element.key, last)
                })
                .collect(),
            _ => {
                return Ok(elements
                    .iter()
                    .filter_map(|element| shape::member(kind, family, &element.key))
                    .collect());
            }
        };
        let cover = Cover::new(there, self.covers.get(key).unwrap_or(&Cover::default()));
        let members = cover.members().collect();
        self.covers.insert(key.clone(), cover);
        Ok(members)
    }

    /// Creates sets, and replaces those of another kind.
    fn put_sets(&mut self, stage: &[Change], to: &mut Transaction, outcomes: &mut Outcomes) {
        let mut tables = BTreeSet::new();
        for (index, change) in stage.iter().enumerate() {
            let (Key::Set(key), Some(Row::Set(header))) = (&change.key, &change.to) else { continue };
            if let Err(reason) = checked(&key.name) {
                answer(outcomes, index, Err(Refusal::new(reason)));
                continue;
            }
            let (family, name, owner) = (key.family, &key.name, Owner::One(index));
            let table = self.names.table(family);
            if tables.insert(family) {
                to.put(Owner::Everyone, "creating the table", kernel::new_table(family, table));
            }
            if matches!(&change.from, Some(Row::Set(from)) if from.kind != header.kind) {
                let doing = "replacing a set of another type";
                to.remove(owner.clone(), doing, kernel::delete_set(family, table, name));
                self.covers.remove(key);
            }
            let id = to.new_set();
            let set = kernel::new_set(family, table, name, Shape::Set(header.kind), id);
            to.put(owner, "creating the set", set);
        }
    }

    /// Adds and removes members, set by set. Of a set of prefixes what the kernel must lose goes first, or the new ones
    /// would overlap it; no packet sees a state in between.
    fn change_members(&mut self, stage: &[Change], to: &mut Transaction, outcomes: &mut Outcomes) {
        let mut by_set: BTreeMap<&SetKey, Vec<(usize, Member, bool)>> = BTreeMap::new();
        for (index, change) in stage.iter().enumerate() {
            let Key::Member(set, member) = &change.key else { continue };
            if is_member_of(member, set.family) {
                by_set.entry(set).or_default().push((index, *member, change.to.is_some()));
            } else {
                let reason = format!("{member:?} is no member of this family, or not in normal form");
                answer(outcomes, index, Err(Refusal::new(reason)));
            }
        }
        for (key, changes) in by_set {
            let prefixes = changes.iter().any(|(_, member, _)| Shape::Set(kind_of(member)).has_intervals());
            let changes = match prefixes {
                false => changes,
                true => match self.widest(key, &changes) {
                    Ok(changes) => changes,
                    Err(error) => {
                        let reason = format!("reading the set: {error}");
                        let refused = |(index, ..): &(usize, _, _)| {
                            answer(outcomes, *index, Err(Refusal::new(reason.clone())));
                        };
                        changes.iter().for_each(refused);
                        continue;
                    }
                },
            };
            let element = |(index, member, _): (usize, Member, bool)| {
                let keys = shape::keys(kind_of(&member), &member)?;
                Some((index, kernel::element(&keys, None)))
            };
            let (put, gone): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(.., put)| *put);
            let (put, gone) = (put.into_iter().filter_map(element), gone.into_iter().filter_map(element));
            let set = kernel::set_address(key.family, self.names.table(key.family), &key.name);
            if prefixes {
                to.remove_elements(set.clone(), gone.collect());
                to.put_elements(set, put.collect());
            } else {
                to.put_elements(set.clone(), put.collect());
                to.remove_elements(set, gone.collect());
            }
        }
    }

    /// What these changes of a set of prefixes mean for the widest ones. A change that brings others about owns theirs.
    fn widest(
        &mut self,
        key: &SetKey,
        changes: &[(usize, Member, bool)],
    ) -> Result<Vec<(usize, Member, bool)>, Error> {
        if !self.covers.contains_key(key) {
            let kind = changes.first().map_or(SetKind::HashNet, |(_, member, _)| kind_of(member));
            self.members(key, kind)?;
        }
        let cover = self.covers.entry(key.clone()).or_default();
        let mut whole: BTreeMap<Member, (usize, bool)> = BTreeMap::new();
        for (index, member, put) in changes {
            let mut difference = Difference::new();
            if *put {
                cover.add(*member, &mut difference);
            } else {
                cover.remove(*member, &mut difference);
            }
            for (member, put) in difference {
                // What is brought about and undone again within the stage changes nothing.
                if whole.get(&member).is_some_and(|(_, before)| *before != put) {
                    whole.remove(&member);
                } else {
                    whole.insert(member, (*index, put));
                }
            }
        }
        Ok(whole.into_iter().map(|(member, (index, put))| (index, member, put)).collect())
    }

    fn remove_sets(&self, stage: &[Change], to: &mut Transaction) {
        for (index, change) in stage.iter().enumerate() {
            let (Key::Set(key), None) = (&change.key, &change.to) else { continue };
            let table = self.names.table(key.family);
            let request = kernel::delete_set(key.family, table, &key.name);
            to.remove(Owner::One(index), "removing the set", request);
        }
    }

    /// Remembers what was done. What is known of a set of prefixes is forgotten where something was refused.
    fn remember(&mut self, stage: &[Change], outcomes: &Outcomes) {
        for (change, outcome) in stage.iter().zip(outcomes) {
            let done = !matches!(outcome, Some(Err(_)));
            match (&change.key, &change.to) {
                (Key::Set(key), Some(Row::Set(header))) if done => {
                    self.headers.insert(key.clone(), *header);
                    self.there.insert(key.clone());
                }
                (Key::Set(key), None) if done => {
                    self.headers.remove(key);
                    self.there.remove(key);
                    self.covers.remove(key);
                }
                (Key::Member(key, _), _) if !done => drop(self.covers.remove(&**key)),
                _ => {}
            }
        }
    }
}

impl Lane for SetsLane {
    fn requests(&self) -> Option<Arc<Requests>> {
        Some(Arc::clone(&self.link.requests))
    }

    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows = Vec::new();
        self.there.clear();
        for family in Family::ALL {
            self.read_family(family, &mut rows)
                .map_err(|source| ReadError { table: "nftables sets", source: source.into() })?;
        }
        Ok(rows)
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes: Outcomes = vec![None; stage.len()];
        let mut transaction = Transaction::default();
        self.put_sets(stage, &mut transaction, &mut outcomes);
        self.change_members(stage, &mut transaction, &mut outcomes);
        self.remove_sets(stage, &mut transaction);
        for (index, change) in stage.iter().enumerate() {
            if !matches!(change.key, Key::Set(_) | Key::Member(..)) {
                answer(&mut outcomes, index, Err(Refusal::new("not a row of the lane of sets")));
            }
        }
        self.link.commit(transaction, &mut outcomes);
        self.remember(stage, &outcomes);
        for family in Family::ALL {
            let removed = |change: &Change| matches!(&change.key, Key::Set(key) if key.family == family && change.to.is_none());
            if stage.iter().any(removed) && !self.there.iter().any(|set| set.family == family) {
                sweep(&mut self.link, family, self.names.table(family));
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(()))).collect()
    }
}

fn answer(outcomes: &mut Outcomes, index: usize, outcome: Result<(), Refusal>) {
    if let Some(slot) = outcomes.get_mut(index) {
        *slot = Some(outcome);
    }
}

/// The only kind of set a member can be of.
fn kind_of(member: &Member) -> SetKind {
    match member {
        Member::Ip(_) => SetKind::HashIp,
        Member::Net(_) => SetKind::HashNet,
        Member::IpPort(..) => SetKind::HashIpPort,
        Member::IpPortIp(..) => SetKind::HashIpPortIp,
        Member::NetPort(..) => SetKind::HashNetPort,
    }
}

fn is_member_of(member: &Member, family: Family) -> bool {
    match member {
        Member::Ip(ip) | Member::IpPort(ip, ..) => Family::of(ip) == family,
        Member::IpPortIp(ip, _, _, second) => Family::of(ip) == family && Family::of(second) == family,
        Member::Net(_) | Member::NetPort(..) => is_prefix_of(member, family),
    }
}

//! Carries out policies.
//!
//! Compiling resolves the names of sets to numbers. Which sets a neighbour is in is worked out when it comes up
//! ([`Compiled::membership`]), so a path costs look-ups of its own prefix and next hop only.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;

use super::{
    Actions, CommunityAction, Conditions, MedAction, NextHopAction, PathSource, Policy, PrefixSet, SetName,
    Verdict,
};
use crate::attributes::Attributes;

/// Number of a set, for the life of the process.
pub(crate) type SetId = usize;

/// All sets, by number. A set that is gone keeps its number and is empty.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    numbers: HashMap<SetName, SetId>,
    sets: Vec<PrefixSet>,
}

impl Sets {
    /// The set's number, given on first use.
    pub(crate) fn id(&mut self, name: &SetName) -> SetId {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        self.sets.push(PrefixSet::default());
        self.numbers.insert(name.clone(), self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// Names and numbers of all sets ever used.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&SetName, SetId)> {
        self.numbers.iter().map(|(name, id)| (name, *id))
    }

    /// The set.
    pub(crate) fn get(&self, id: SetId) -> Option<&PrefixSet> {
        self.sets.get(id)
    }

    /// The set, to be changed.
    pub(crate) fn get_mut(&mut self, id: SetId) -> Option<&mut PrefixSet> {
        self.sets.get_mut(id)
    }
}

/// A policy whose sets are known by number.
#[derive(Debug)]
pub(crate) struct Compiled {
    statements: Vec<CompiledStatement>,
    default: Verdict,
}

#[derive(Debug)]
struct CompiledStatement {
    prefixes: Option<SetId>,
    neighbours: Option<SetId>,
    next_hops: Option<SetId>,
    /// Conditions beyond sets.
    when: Conditions,
    then: Actions,
    verdict: Option<Verdict>,
}

/// What a policy is asked about, the attributes apart.
pub(crate) struct Subject<'a> {
    pub(crate) prefix: &'a IpNet,
    /// Sets of neighbours that the neighbour is in.
    pub(crate) neighbour: &'a FixedBitSet,
    /// Before any action.
    pub(crate) next_hop: IpAddr,
    pub(crate) from: PathSource,
    /// For [`super::Prepend`] without a number.
    pub(crate) own_asn: u32,
    /// For [`NextHopAction::Ours`]; the next hop stays where we have no address that would do.
    pub(crate) own_address: Option<IpAddr>,
}

impl Compiled {
    /// Resolves names to numbers.
    pub(crate) fn new(policy: &Policy, sets: &mut Sets) -> Self {
        let mut id = |name: &Option<SetName>| name.as_ref().map(|name| sets.id(name));
        let statements = policy.statements.iter().map(|statement| CompiledStatement {
            prefixes: id(&statement.when.prefixes),
            neighbours: id(&statement.when.neighbours),
            next_hops: id(&statement.when.next_hops),
            when: statement.when.clone(),
            then: statement.then.clone(),
            verdict: statement.verdict,
        });
        Compiled { statements: statements.collect(), default: policy.default }
    }

    /// Sets of destinations it names.
    pub(crate) fn names_prefixes(&self, set: SetId) -> bool {
        self.statements.iter().any(|statement| statement.prefixes == Some(set))
    }

    /// Whether it asks whether neighbours are in the set.
    pub(crate) fn names_neighbours(&self, set: SetId) -> bool {
        self.statements.iter().any(|statement| statement.neighbours == Some(set))
    }

    /// Whether it asks whether next hops are in the set.
    pub(crate) fn names_next_hops(&self, set: SetId) -> bool {
        self.statements.iter().any(|statement| statement.next_hops == Some(set))
    }

    /// Which of the neighbour sets it names the address is in. O(statements).
    pub(crate) fn membership(&self, sets: &Sets, neighbour: IpAddr) -> FixedBitSet {
        let mut membership = FixedBitSet::new();
        for set in self.statements.iter().filter_map(|statement| statement.neighbours) {
            if sets.get(set).is_some_and(|set| set.contains_address(neighbour)) {
                membership.grow_and_insert(set);
            }
        }
        membership
    }

    /// The path as the policy leaves it, borrowed if unchanged; `None` if rejected. O(statements).
    pub(crate) fn apply<'a>(
        &self,
        sets: &Sets,
        subject: &Subject<'_>,
        attributes: &'a Arc<Attributes>,
    ) -> Option<Cow<'a, Arc<Attributes>>> {
        let mut attributes = Cow::Borrowed(attributes);
        let mut verdict = self.default;
        for statement in &self.statements {
            if !statement.matches(sets, subject, &attributes) {
                continue;
            }
            if statement.verdict == Some(Verdict::Reject) {
                return None;
            }
            statement.then.apply(subject, &mut attributes);
            if let Some(decided) = statement.verdict {
                verdict = decided;
                break;
            }
        }
        (verdict == Verdict::Accept).then_some(attributes)
    }
}

impl CompiledStatement {
    /// Whether all conditions hold, the cheapest first.
    fn matches(&self, sets: &Sets, subject: &Subject<'_>, attributes: &Attributes) -> bool {
        let within = |set: Option<SetId>, test: &dyn Fn(&PrefixSet) -> bool| {
            set.is_none_or(|set| sets.get(set).is_some_and(test))
        };
        let communities =
            || self.when.communities.as_ref().is_none_or(|asked| asked.holds(&attributes.communities));
        let large = || {
            let asked = self.when.large_communities.as_ref();
            asked.is_none_or(|asked| asked.holds(&attributes.large_communities))
        };
        self.when.from.is_none_or(|from| from == subject.from)
            && self.neighbours.is_none_or(|set| subject.neighbour.contains(set))
            && within(self.prefixes, &|set| set.contains(subject.prefix))
            && within(self.next_hops, &|set| set.contains_address(subject.next_hop))
            && communities()
            && large()
    }
}

impl Actions {
    fn apply(&self, subject: &Subject<'_>, attributes: &mut Cow<'_, Arc<Attributes>>) {
        if *self == Actions::default() {
            return;
        }
        let changed = Arc::make_mut(attributes.to_mut());
        if let Some(preference) = self.local_pref {
            changed.local_pref = Some(preference);
        }
        match self.med {
            Some(MedAction::Set(med)) => changed.med = Some(med),
            Some(MedAction::Remove) => changed.med = None,
            None => {}
        }
        apply_all(&self.communities, &mut changed.communities);
        apply_all(&self.large_communities, &mut changed.large_communities);
        if let Some(prepend) = self.prepend {
            let asn = prepend.asn.unwrap_or(subject.own_asn);
            changed.as_path = changed.as_path.prepended(asn, prepend.times.into());
        }
        let next_hop = match self.next_hop {
            Some(NextHopAction::Ours) => subject.own_address,
            Some(NextHopAction::Address(address)) => Some(address),
            None => None,
        };
        if let Some(address) = next_hop {
            changed.next_hop = address.into();
        }
    }
}

fn apply_all<T: Ord + Copy>(actions: &[CommunityAction<T>], list: &mut Vec<T>) {
    for action in actions {
        action.apply(list);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

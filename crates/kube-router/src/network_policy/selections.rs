//! Selections: pods by namespace and label, as policies name them.
//!
//! Everything that names the same pair of namespace (or namespace selector) and pod selector names one selection: as the
//! target of policies, as a peer, with the ports its pods give names to. What is asked of it by policies in force on this
//! node decides which kernel sets there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use linux::row::{Family, Name, Protocol, SetKey};
use slab::Slab;

use super::hash::Hash;
use super::matcher::SelectorNumber;
use crate::kube::model::Selector;
use crate::names::set;

/// Number of a selection.
pub(super) type SelectionNumber = usize;
/// Number of a policy.
pub(super) type PolicyNumber = usize;
/// Number of a group of pods.
pub(super) type GroupNumber = usize;

/// Where a selection looks for pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// In this namespace.
    Namespace(Name),
    /// In the namespaces this selector of the namespace matcher selects.
    Selected(SelectorNumber),
    /// Wherever they are, even before anything is known of their namespace.
    Everywhere,
}

/// What a kernel set of a selection holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SetKind {
    /// The addresses of its pods.
    Addresses,
    /// Address, protocol and number of each port of this name.
    Ports {
        name: Name,
        protocol: Protocol,
        /// Only pods of this node: the target of an ingress rule, where no other pod's port is asked for.
        here: bool,
    },
}

/// A kernel set, by what it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetOf {
    pub(super) selection: SelectionNumber,
    pub(super) kind: SetKind,
}

/// A selection.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) scope: Scope,
    pub(super) pods: SelectorNumber,
    /// Hash over what it says, which its sets are named after.
    identity: Box<str>,
    /// Policies that name it, each as often as it does.
    references: u32,
    /// Groups of pods in it.
    pub(super) groups: BTreeSet<GroupNumber>,
    /// How many of the groups have pods on this node.
    pub(super) groups_here: u32,
    /// Policies whose target it is.
    pub(super) target_of: BTreeSet<PolicyNumber>,
    /// Policies in force here that ask for ports of its pods by name.
    pub(super) names_asked_by: BTreeSet<PolicyNumber>,
    /// Kernel sets that policies in force here need.
    pub(super) sets: BTreeMap<SetKind, Needed>,
}

/// A kernel set that somebody needs, in both families.
#[derive(Debug)]
pub(super) struct Needed {
    /// By how many.
    needs: u32,
    v4: Arc<SetKey>,
    v6: Arc<SetKey>,
}

impl Needed {
    fn new(name: Name) -> Needed {
        let key = |family| Arc::new(SetKey { family, name: name.clone() });
        Needed { needs: 1, v4: key(Family::V4), v6: key(Family::V6) }
    }

    /// Its key in a family, one copy for all members.
    pub(super) fn key(&self, family: Family) -> &Arc<SetKey> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// All selections that are named by some policy.
#[derive(Debug, Default)]
pub(super) struct Selections {
    all: Slab<Selection>,
    numbers: HashMap<(Scope, SelectorNumber), SelectionNumber>,
}

impl Selections {
    /// The selection of this scope and selector, if it has a number.
    pub(super) fn find(&self, scope: &Scope, pods: SelectorNumber) -> Option<SelectionNumber> {
        self.numbers.get(&(scope.clone(), pods)).copied()
    }

    /// Counts one more reference, to a new selection if need be; the caller then fills in its groups.
    pub(super) fn refer(
        &mut self,
        scope: Scope,
        pods: SelectorNumber,
        identity: impl FnOnce() -> Hash,
    ) -> (SelectionNumber, bool) {
        if let Some(number) = self.find(&scope, pods) {
            if let Some(selection) = self.all.get_mut(number) {
                selection.references += 1;
            }
            return (number, false);
        }
        let selection = Selection {
            scope: scope.clone(),
            pods,
            identity: identity().finish().into(),
            references: 1,
            groups: BTreeSet::new(),
            groups_here: 0,
            target_of: BTreeSet::new(),
            names_asked_by: BTreeSet::new(),
            sets: BTreeMap::new(),
        };
        let number = self.all.insert(selection);
        self.numbers.insert((scope, pods), number);
        (number, true)
    }

    /// Takes back one reference; returns the selection when it was the last.
    pub(super) fn release(&mut self, number: SelectionNumber) -> Option<Selection> {
        let selection = self.all.get_mut(number)?;
        selection.references -= 1;
        if selection.references > 0 {
            return None;
        }
        let gone = self.all.remove(number);
        self.numbers.remove(&(gone.scope.clone(), gone.pods));
        Some(gone)
    }

    pub(super) fn get(&self, number: SelectionNumber) -> Option<&Selection> {
        self.all.get(number)
    }

    pub(super) fn get_mut(&mut self, number: SelectionNumber) -> Option<&mut Selection> {
        self.all.get_mut(number)
    }

    /// Whether none is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.numbers.is_empty()
    }
}

impl Selection {
    /// Counts one more need of a set; says whether it was the first.
    pub(super) fn need(&mut self, kind: &SetKind) -> bool {
        if let Some(needed) = self.sets.get_mut(kind) {
            needed.needs += 1;
            return false;
        }
        let name = self.set_name(kind);
        self.sets.insert(kind.clone(), Needed::new(name));
        true
    }

    /// Takes back one need of a set; says whether it was the last.
    pub(super) fn need_no_more(&mut self, kind: &SetKind) -> bool {
        let Some(needed) = self.sets.get_mut(kind) else { return false };
        needed.needs -= 1;
        let last = needed.needs == 0;
        if last {
            self.sets.remove(kind);
        }
        last
    }

    /// The name of a set by what it holds: the same after a restart, on every node, and for every policy.
    pub(super) fn set_name(&self, kind: &SetKind) -> Name {
        let identity = Hash::new().field(&self.identity);
        match kind {
            SetKind::Addresses => format!("{}{}", set::SOURCE_PREFIX, identity.finish()),
            SetKind::Ports { name, protocol, here } => {
                let which = if *here { "here" } else { "everywhere" };
                let hash = identity.field(which).field(name).field(protocol.as_str()).finish();
                format!("{}{hash}", set::DESTINATION_PREFIX)
            }
        }
        .into()
    }
}

/// Adds a selector to a hash.
pub(super) fn hash_selector(hash: Hash, selector: &Selector) -> Hash {
    let requirements = selector.requirements();
    let mut hash = hash.field(&requirements.len().to_string());
    for requirement in requirements {
        use crate::kube::model::Operator;
        let (operator, values): (&str, &[Name]) = match &requirement.operator {
            Operator::In(values) => ("In", values),
            Operator::NotIn(values) => ("NotIn", values),
            Operator::Exists => ("Exists", &[]),
            Operator::DoesNotExist => ("DoesNotExist", &[]),
        };
        hash = hash.field(&requirement.key).field(operator).fields(values.iter().map(|value| &**value));
    }
    hash
}

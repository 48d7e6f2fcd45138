//! Groups of pods and the selections they are in, as groups, labels of namespaces and selections come and go.

use std::collections::BTreeSet;

use linux::row::Name;

use super::{Group, GroupKey, Index};
use crate::kube::model::Namespace;
use crate::network_policy::selections::{GroupNumber, Scope, SelectionNumber};
use crate::network_policy::touched::Touched;

impl Index {
    pub(super) fn group(&mut self, key: GroupKey, touched: &mut Touched) -> GroupNumber {
        if let Some(number) = self.group_numbers.get(&key) {
            return *number;
        }
        let labels = self.pod_labels.add_labels(&key.labels);
        let number = self.groups.insert(Group {
            key: key.clone(),
            labels,
            pods: BTreeSet::new(),
            pods_here: BTreeSet::new(),
            selections: BTreeSet::new(),
        });
        self.groups_by_labels.entry(labels).or_default().insert(number);
        self.namespaces.entry(key.namespace.clone()).or_default().groups.insert(number);
        self.group_numbers.insert(key, number);
        self.select_group(number, touched);
        number
    }

    pub(super) fn drop_group(&mut self, number: GroupNumber, touched: &mut Touched) {
        let selections = self.groups.get(number).map(|group| group.selections.clone()).unwrap_or_default();
        for selection in selections {
            self.group_moves(number, selection, false, touched);
        }
        let group = self.groups.remove(number);
        if let Some(groups) = self.groups_by_labels.get_mut(&group.labels) {
            groups.remove(&number);
            if groups.is_empty() {
                self.groups_by_labels.remove(&group.labels);
            }
        }
        self.pod_labels.drop_labels(group.labels);
        if let Some(namespace) = self.namespaces.get_mut(&group.key.namespace) {
            namespace.groups.remove(&number);
            if namespace.groups.is_empty() && namespace.labels.is_none() {
                self.namespaces.remove(&group.key.namespace);
            }
        }
        self.group_numbers.remove(&group.key);
    }

    /// Finds the selections of a group anew. O(selectors that match its labels × those that match its namespace's).
    pub(super) fn select_group(&mut self, number: GroupNumber, touched: &mut Touched) {
        let Some(group) = self.groups.get(number) else { return };
        let labels = self.namespaces.get(&group.key.namespace).and_then(|namespace| namespace.labels);
        let scopes: Vec<Scope> = labels
            .into_iter()
            .flat_map(|labels| self.namespace_labels.matching(labels))
            .map(Scope::Selected)
            .chain([Scope::Namespace(group.key.namespace.clone()), Scope::Everywhere])
            .collect();
        let selectors = self.pod_labels.matching(group.labels);
        let found: BTreeSet<SelectionNumber> = selectors
            .flat_map(|pods| scopes.iter().map(move |scope| (scope, pods)))
            .filter_map(|(scope, pods)| self.selections.find(scope, pods))
            .collect();
        let (left, entered): (Vec<_>, Vec<_>) = (
            group.selections.difference(&found).copied().collect(),
            found.difference(&group.selections).copied().collect(),
        );
        for selection in left {
            self.group_moves(number, selection, false, touched);
        }
        for selection in entered {
            self.group_moves(number, selection, true, touched);
        }
    }

    /// A group enters or leaves a selection.
    pub(super) fn group_moves(
        &mut self,
        number: GroupNumber,
        into: SelectionNumber,
        enters: bool,
        touched: &mut Touched,
    ) {
        let (Some(group), Some(selection)) = (self.groups.get_mut(number), self.selections.get_mut(into))
        else {
            return;
        };
        if enters {
            group.selections.insert(into);
            selection.groups.insert(number);
        } else {
            group.selections.remove(&into);
            selection.groups.remove(&number);
        }
        // Whether anybody has a port of some name may look different now.
        let asking = selection.names_asked_by.iter().filter_map(|number| self.policies.get(*number));
        touched.policies.extend(asking.map(|policy| policy.compiled.id.clone()));
        if !selection.sets.is_empty() {
            for pod in group.pods.iter().filter_map(|pod| self.pods.get(*pod as usize)) {
                touched.members.insert(pod.id().clone());
                touched.flows.extend(pod.ips().iter());
            }
        }
        if !group.pods_here.is_empty() {
            self.selection_is_here(into, enters, touched);
        }
    }

    /// A group has its first pod on this node, or lost its last.
    pub(super) fn group_is_here(&mut self, number: GroupNumber, here: bool, touched: &mut Touched) {
        let selections = self.groups.get(number).map(|group| group.selections.clone()).unwrap_or_default();
        for selection in selections {
            self.selection_is_here(selection, here, touched);
        }
    }

    pub(super) fn selection_is_here(&mut self, number: SelectionNumber, more: bool, touched: &mut Touched) {
        let Some(selection) = self.selections.get_mut(number) else { return };
        if more {
            selection.groups_here += 1;
        } else {
            selection.groups_here -= 1;
        }
        let changed = selection.groups_here == u32::from(more);
        if changed {
            for policy in selection.target_of.clone() {
                self.put_in_force(policy, more, touched);
            }
        }
    }

    /// Takes in a namespace as it is now.
    pub fn namespace_changed(&mut self, name: &Name, object: Option<&Namespace>, touched: &mut Touched) {
        let labels = object.map(|namespace| self.namespace_labels.add_labels(&namespace.labels));
        let known = self.namespaces.entry(name.clone()).or_default();
        if let Some(before) = std::mem::replace(&mut known.labels, labels) {
            self.namespace_labels.drop_labels(before);
        }
        let groups = known.groups.clone();
        if groups.is_empty() && labels.is_none() {
            self.namespaces.remove(name);
        }
        for group in groups {
            self.select_group(group, touched);
        }
    }
}

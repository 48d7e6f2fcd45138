//! Policies come, go and change; they come into force with the first pod of this node they select.

use std::collections::BTreeSet;

use linux::row::Family;

use super::{Index, KnownNamespace, KnownPolicy};
use crate::kube::model::{NetworkPolicy, ObjectName, Peer, Selector};
use crate::network_policy::compile::{self, Compiled};
use crate::network_policy::hash::Hash;
use crate::network_policy::matcher::SelectorNumber;
use crate::network_policy::selections::{
    GroupNumber, PolicyNumber, Scope, Selection, SelectionNumber, SetKind, hash_selector,
};
use crate::network_policy::touched::Touched;

impl Index {
    /// Takes in a policy as it is now.
    pub fn policy_changed(&mut self, id: &ObjectName, policy: Option<&NetworkPolicy>, touched: &mut Touched) {
        let before = self.policy_numbers.remove(id);
        // The new one first: what both name need not be built anew.
        if let Some(policy) = policy {
            let number = self.add_policy(policy, touched);
            self.policy_numbers.insert(id.clone(), number);
        }
        if let Some(number) = before {
            self.remove_policy(number, touched);
        }
    }

    fn add_policy(&mut self, policy: &NetworkPolicy, touched: &mut Touched) -> PolicyNumber {
        let mut selectors = Selectors::default();
        let own = Scope::Namespace(policy.id.namespace.clone());
        let target = self.select(own.clone(), &policy.target, &mut selectors, touched);
        let [ipv4, ipv6] = self.enforced;
        let enforced = |family| match family {
            Family::V4 => ipv4,
            Family::V6 => ipv6,
        };
        let mut select = |peer: &Peer| {
            let Peer::Pods { namespaces, pods } = peer else { return None };
            let scope = match namespaces {
                None => own.clone(),
                Some(namespaces) => self.scope(namespaces, &mut selectors),
            };
            Some(self.select(scope, pods, &mut selectors, touched))
        };
        let ingress = policy.ingress.as_ref().map(|rules| compile::permits(rules, &enforced, &mut select));
        let egress = policy.egress.as_ref().map(|rules| compile::permits(rules, &enforced, &mut select));
        let everyone = compile::asks_everyone(policy)
            .then(|| self.select(Scope::Everywhere, &Selector::default(), &mut selectors, touched));
        let off = compile::blocks_off(policy, &enforced);
        let compiled = Compiled { id: policy.id.clone(), target, ingress, egress, everyone, off };
        let sets = compiled.sets();
        let Selectors { pods: pod_selectors, namespaces: namespace_selectors } = selectors;
        let number = self.policies.insert(KnownPolicy {
            compiled,
            sets,
            pod_selectors,
            namespace_selectors,
            in_force: false,
        });
        if let Some(selection) = self.selections.get_mut(target) {
            selection.target_of.insert(number);
            if selection.groups_here > 0 {
                self.put_in_force(number, true, touched);
            }
        }
        number
    }

    fn remove_policy(&mut self, number: PolicyNumber, touched: &mut Touched) {
        self.put_in_force(number, false, touched);
        let policy = self.policies.remove(number);
        if let Some(selection) = self.selections.get_mut(policy.compiled.target) {
            selection.target_of.remove(&number);
        }
        for selection in policy.compiled.selections() {
            if let Some(gone) = self.selections.release(selection) {
                self.forget_selection(selection, &gone);
            }
        }
        policy.pod_selectors.into_iter().for_each(|number| self.pod_labels.drop_selector(number));
        policy.namespace_selectors.into_iter().for_each(|number| self.namespace_labels.drop_selector(number));
    }

    /// A policy comes into force with the first pod it selects here, and goes with the last.
    pub(super) fn put_in_force(&mut self, number: PolicyNumber, in_force: bool, touched: &mut Touched) {
        let Some(policy) = self.policies.get_mut(number) else { return };
        if std::mem::replace(&mut policy.in_force, in_force) == in_force {
            return;
        }
        let id = policy.compiled.id.clone();
        let target = policy.compiled.target;
        for set in policy.sets.clone() {
            let Some(selection) = self.selections.get_mut(set.selection) else { continue };
            if set.kind != SetKind::Addresses {
                if in_force {
                    selection.names_asked_by.insert(number);
                } else {
                    selection.names_asked_by.remove(&number);
                }
            }
            let changed =
                if in_force { selection.need(&set.kind) } else { selection.need_no_more(&set.kind) };
            if changed {
                let groups = selection.groups.clone();
                self.touch_members(groups, touched);
            }
        }
        touched.policies.insert(id);
        for pod in self.pods_here_in(target) {
            touched.pods.insert(pod.id().clone());
            touched.flows.extend(pod.ips().iter());
        }
    }

    fn touch_members(&self, groups: BTreeSet<GroupNumber>, touched: &mut Touched) {
        for group in groups.iter().filter_map(|group| self.groups.get(*group)) {
            let pods = group.pods.iter().filter_map(|pod| self.pods.get(*pod as usize));
            touched.members.extend(pods.map(|pod| pod.id().clone()));
        }
    }

    fn scope(&mut self, namespaces: &Selector, selectors: &mut Selectors) -> Scope {
        let number = self.namespace_labels.add_selector(namespaces);
        selectors.namespaces.push(number);
        Scope::Selected(number)
    }

    /// The number of a selection, with its groups if it is new. O(groups it may have).
    fn select(
        &mut self,
        scope: Scope,
        pods: &Selector,
        selectors: &mut Selectors,
        touched: &mut Touched,
    ) -> SelectionNumber {
        let selector = self.pod_labels.add_selector(pods);
        selectors.pods.push(selector);
        let namespaces = &self.namespace_labels;
        let identity = || match &scope {
            Scope::Namespace(name) => hash_selector(Hash::new().field("namespace").field(name), pods),
            Scope::Selected(number) => {
                let all = Selector::default();
                let hash = Hash::new().field("selected namespaces");
                hash_selector(hash_selector(hash, namespaces.selector(*number).unwrap_or(&all)), pods)
            }
            Scope::Everywhere => hash_selector(Hash::new().field("everywhere"), pods),
        };
        let (number, new) = self.selections.refer(scope.clone(), selector, identity);
        if new {
            for group in self.groups_in(&scope, selector) {
                self.group_moves(group, number, true, touched);
            }
        }
        number
    }

    fn groups_in(&self, scope: &Scope, pods: SelectorNumber) -> Vec<GroupNumber> {
        let of_namespace = |namespace: &KnownNamespace| -> Vec<GroupNumber> {
            let groups =
                namespace.groups.iter().filter_map(|number| Some((*number, self.groups.get(*number)?)));
            groups
                .filter(|(_, group)| self.pod_labels.matches(pods, group.labels))
                .map(|(number, _)| number)
                .collect()
        };
        let with_labels = || {
            let groups =
                self.pod_labels.matched(pods).filter_map(|labels| self.groups_by_labels.get(&labels));
            groups.flatten()
        };
        match scope {
            Scope::Namespace(name) => self.namespaces.get(name).map(of_namespace).unwrap_or_default(),
            Scope::Everywhere => with_labels().copied().collect(),
            Scope::Selected(namespaces) => {
                let selected = |number: &&GroupNumber| {
                    let group = self.groups.get(**number);
                    let namespace = group.and_then(|group| self.namespaces.get(&group.key.namespace));
                    let labels = namespace.and_then(|namespace| namespace.labels);
                    labels.is_some_and(|labels| self.namespace_labels.matches(*namespaces, labels))
                };
                with_labels().filter(selected).copied().collect()
            }
        }
    }

    fn forget_selection(&mut self, number: SelectionNumber, gone: &Selection) {
        for group in &gone.groups {
            if let Some(group) = self.groups.get_mut(*group) {
                group.selections.remove(&number);
            }
        }
    }
}

/// Selectors a policy being compiled counts as a user of.
#[derive(Debug, Default)]
struct Selectors {
    pods: Vec<SelectorNumber>,
    namespaces: Vec<SelectorNumber>,
}

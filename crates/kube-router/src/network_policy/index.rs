//! The cluster as policies see it: pods in groups, policies in force, and who is selected by what.
//!
//! Pods of one namespace with the same labels and named ports are a **group**: they are selected alike, always. The index
//! knows the selections of every group and the groups of every selection, so an event finds what it touches:
//!
//! | event | cost |
//! |---|---|
//! | a pod of a known group comes or goes | O(log pods), then its own set members |
//! | a pod with labels nobody else has | O(selectors that insist on one of its labels) |
//! | a policy | O(its peers), and the pods of peers no other policy named |
//! | a namespace's labels | O(groups in it) |
//!
//! A policy is **in force** here while it selects a pod of this node. Only then it has chains, and its peers sets.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use linux::row::{Family, Name};
use slab::Slab;

use super::compile::{self, Compiled};
use super::hash::Hash;
use super::matcher::{LabelsNumber, Matcher, SelectorNumber};
use super::selections::{
    GroupNumber, PolicyNumber, Scope, Selection, SelectionNumber, Selections, SetKind, SetOf, hash_selector,
};
use super::touched::Touched;
use crate::kube::model::{Labels, NamedPort, Namespace, NetworkPolicy, ObjectName, Peer, Pod, Selector};

type PodNumber = u32;

/// See the module.
#[derive(Debug)]
pub struct Index {
    here: Name,
    enforced: [bool; 2],
    pods: Slab<KnownPod>,
    numbers: HashMap<ObjectName, PodNumber>,
    by_ip: HashMap<IpAddr, PodNumber>,
    /// Addresses that several pods have: one comes before the other is known to be gone.
    more_by_ip: HashMap<IpAddr, Vec<PodNumber>>,
    groups: Slab<Group>,
    group_numbers: HashMap<GroupKey, GroupNumber>,
    groups_by_labels: HashMap<LabelsNumber, BTreeSet<GroupNumber>>,
    namespaces: HashMap<Name, KnownNamespace>,
    pod_labels: Matcher,
    namespace_labels: Matcher,
    pub(super) selections: Selections,
    policies: Slab<KnownPolicy>,
    policy_numbers: HashMap<ObjectName, PolicyNumber>,
}

/// A pod that has addresses of its own and is not finished.
#[derive(Debug)]
pub(super) struct KnownPod {
    pub(super) id: ObjectName,
    pub(super) ips: Box<[IpAddr]>,
    group: GroupNumber,
    pub(super) here: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    namespace: Name,
    labels: Labels,
    ports: Arc<[NamedPort]>,
}

/// Pods that are selected alike.
#[derive(Debug)]
pub(super) struct Group {
    key: GroupKey,
    labels: LabelsNumber,
    pods: BTreeSet<PodNumber>,
    pods_here: BTreeSet<PodNumber>,
    pub(super) selections: BTreeSet<SelectionNumber>,
}

#[derive(Debug, Default)]
struct KnownNamespace {
    /// Number of its labels; `None` as long as there is no such object, and no selector selects it.
    labels: Option<LabelsNumber>,
    groups: BTreeSet<GroupNumber>,
}

#[derive(Debug)]
struct KnownPolicy {
    compiled: Compiled,
    /// What it needs of selections while it is in force.
    sets: BTreeSet<SetOf>,
    /// The numbered selectors it counts as a user of: of pods, and of namespaces.
    pod_selectors: Vec<SelectorNumber>,
    namespace_selectors: Vec<SelectorNumber>,
    in_force: bool,
}

impl Index {
    /// An empty one, of the node `here` that enforces these families.
    pub fn new(here: Name, ipv4: bool, ipv6: bool) -> Index {
        Index {
            here,
            enforced: [ipv4, ipv6],
            pods: Slab::new(),
            numbers: HashMap::new(),
            by_ip: HashMap::new(),
            more_by_ip: HashMap::new(),
            groups: Slab::new(),
            group_numbers: HashMap::new(),
            groups_by_labels: HashMap::new(),
            namespaces: HashMap::new(),
            pod_labels: Matcher::default(),
            namespace_labels: Matcher::default(),
            selections: Selections::default(),
            policies: Slab::new(),
            policy_numbers: HashMap::new(),
        }
    }

    /// Whether policies are enforced in a family.
    pub fn enforces(&self, family: Family) -> bool {
        let [ipv4, ipv6] = self.enforced;
        match family {
            Family::V4 => ipv4,
            Family::V6 => ipv6,
        }
    }

    // --- pods ---

    /// Takes in a pod as it is now.
    pub fn pod_changed(&mut self, id: &ObjectName, pod: Option<&Pod>, touched: &mut Touched) {
        let pod = pod.filter(|pod| !pod.host_network && !pod.finished && !pod.ips.is_empty());
        let before = self.numbers.get(id).copied();
        let Some(pod) = pod else {
            if let Some(number) = before {
                self.remove_pod(number, touched);
                self.numbers.remove(id);
            }
            return;
        };
        let here = pod.node.as_ref() == Some(&self.here);
        let key = GroupKey {
            namespace: pod.id.namespace.clone(),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
        };
        let known = before.and_then(|number| self.pods.get(number as usize));
        if known.is_some_and(|known| {
            *known.ips == *pod.ips && known.here == here && self.group_numbers.get(&key) == Some(&known.group)
        }) {
            return;
        }
        // The new place is taken before the old one is left: what both need is not given up in between.
        let group = self.group(key, touched);
        let entry = KnownPod { id: id.clone(), ips: pod.ips.clone().into(), group, here };
        let number = self.pods.insert(entry) as PodNumber;
        self.join(number, touched);
        if let Some(before) = before {
            let stays = self.pods.get(before as usize).is_some_and(|old| *old.ips == *pod.ips);
            // Its flows are the same pod's; whether they are permitted may have changed.
            if stays && (here || self.is_in_a_set(before) || self.is_in_a_set(number)) {
                touched.flows.extend(pod.ips.iter());
            }
            self.remove_pod(before, touched);
        }
        self.numbers.insert(id.clone(), number);
    }

    /// Whether some policy in force here names a pod as a peer.
    fn is_in_a_set(&self, number: PodNumber) -> bool {
        let group = self.pods.get(number as usize).and_then(|pod| self.groups.get(pod.group));
        let mut selections = group.into_iter().flat_map(|group| &group.selections);
        selections.any(|number| self.selections.get(*number).is_some_and(|selection| !selection.sets.is_empty()))
    }

    fn join(&mut self, number: PodNumber, touched: &mut Touched) {
        let Some(pod) = self.pods.get(number as usize) else { return };
        touched.members.insert(pod.id.clone());
        for ip in &pod.ips {
            match self.by_ip.entry(*ip) {
                Entry::Vacant(place) => {
                    place.insert(number);
                }
                Entry::Occupied(_) => self.more_by_ip.entry(*ip).or_default().push(number),
            }
        }
        let here = pod.here;
        if here {
            touched.pods.insert(pod.id.clone());
            touched.pods_here = true;
        }
        let group = pod.group;
        let Some(place) = self.groups.get_mut(group) else { return };
        place.pods.insert(number);
        if here && place.pods_here.insert(number) && place.pods_here.len() == 1 {
            self.group_is_here(group, true, touched);
        }
    }

    fn remove_pod(&mut self, number: PodNumber, touched: &mut Touched) {
        let Some(pod) = self.pods.try_remove(number as usize) else { return };
        for ip in &pod.ips {
            self.forget_ip(*ip, number);
        }
        if pod.here {
            touched.pods.insert(pod.id.clone());
            touched.pods_here = true;
        }
        touched.members.insert(pod.id);
        let Some(group) = self.groups.get_mut(pod.group) else { return };
        group.pods.remove(&number);
        let was_here = group.pods_here.remove(&number);
        let (empty, gone_here) = (group.pods.is_empty(), was_here && group.pods_here.is_empty());
        if gone_here {
            self.group_is_here(pod.group, false, touched);
        }
        if empty {
            self.drop_group(pod.group, touched);
        }
    }

    fn forget_ip(&mut self, ip: IpAddr, number: PodNumber) {
        if let Some(others) = self.more_by_ip.get_mut(&ip) {
            if self.by_ip.get(&ip) == Some(&number) {
                self.by_ip.extend(others.pop().map(|other| (ip, other)));
            } else {
                others.retain(|other| *other != number);
            }
            if others.is_empty() {
                self.more_by_ip.remove(&ip);
            }
        } else {
            self.by_ip.remove(&ip);
        }
    }

    // --- groups ---

    fn group(&mut self, key: GroupKey, touched: &mut Touched) -> GroupNumber {
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

    fn drop_group(&mut self, number: GroupNumber, touched: &mut Touched) {
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
    fn select_group(&mut self, number: GroupNumber, touched: &mut Touched) {
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
    fn group_moves(&mut self, number: GroupNumber, into: SelectionNumber, enters: bool, touched: &mut Touched) {
        let (Some(group), Some(selection)) = (self.groups.get_mut(number), self.selections.get_mut(into)) else {
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
                touched.members.insert(pod.id.clone());
                touched.flows.extend(pod.ips.iter());
            }
        }
        if !group.pods_here.is_empty() {
            self.selection_is_here(into, enters, touched);
        }
    }

    /// A group has its first pod on this node, or lost its last.
    fn group_is_here(&mut self, number: GroupNumber, here: bool, touched: &mut Touched) {
        let selections = self.groups.get(number).map(|group| group.selections.clone()).unwrap_or_default();
        for selection in selections {
            self.selection_is_here(selection, here, touched);
        }
    }

    fn selection_is_here(&mut self, number: SelectionNumber, more: bool, touched: &mut Touched) {
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

    // --- namespaces ---

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

    // --- policies ---

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
    fn put_in_force(&mut self, number: PolicyNumber, in_force: bool, touched: &mut Touched) {
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
            touched.pods.insert(pod.id.clone());
            touched.flows.extend(pod.ips.iter());
        }
    }

    fn touch_members(&self, groups: BTreeSet<GroupNumber>, touched: &mut Touched) {
        for group in groups.iter().filter_map(|group| self.groups.get(*group)) {
            let pods = group.pods.iter().filter_map(|pod| self.pods.get(*pod as usize));
            touched.members.extend(pods.map(|pod| pod.id.clone()));
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
            let groups = namespace.groups.iter().filter_map(|number| Some((*number, self.groups.get(*number)?)));
            groups.filter(|(_, group)| self.pod_labels.matches(pods, group.labels)).map(|(number, _)| number).collect()
        };
        let with_labels = || {
            let groups = self.pod_labels.matched(pods).filter_map(|labels| self.groups_by_labels.get(&labels));
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

    // --- what is there ---

    /// A pod by its name.
    pub(super) fn pod(&self, id: &ObjectName) -> Option<(&KnownPod, &Group)> {
        let pod = self.pods.get(*self.numbers.get(id)? as usize)?;
        Some((pod, self.groups.get(pod.group)?))
    }

    /// Pods with an address: nearly always one or none.
    pub(super) fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = (&KnownPod, &Group)> {
        let more = self.more_by_ip.get(&ip).into_iter().flatten();
        self.by_ip.get(&ip).into_iter().chain(more).filter_map(|number| {
            let pod = self.pods.get(*number as usize)?;
            Some((pod, self.groups.get(pod.group)?))
        })
    }

    /// Pods of this node in a selection. O(groups of it).
    pub(super) fn pods_here_in(&self, selection: SelectionNumber) -> impl Iterator<Item = &KnownPod> {
        let groups = self.selections.get(selection).into_iter().flat_map(|selection| &selection.groups);
        let groups = groups.filter_map(|number| self.groups.get(*number));
        groups.flat_map(|group| &group.pods_here).filter_map(|number| self.pods.get(*number as usize))
    }

    /// Pods of this node, by name.
    pub(super) fn pods_here(&self) -> Vec<&KnownPod> {
        let mut pods: Vec<&KnownPod> =
            self.pods.iter().map(|(_, pod)| pod).filter(|pod| pod.here).collect();
        pods.sort_by(|one, other| one.id.cmp(&other.id));
        pods
    }

    /// A policy in force here.
    pub(super) fn in_force(&self, id: &ObjectName) -> Option<&Compiled> {
        let policy = self.policies.get(*self.policy_numbers.get(id)?)?;
        policy.in_force.then_some(&policy.compiled)
    }

    /// Policies that select a group, by name.
    pub(super) fn policies_of(&self, group: &Group) -> Vec<&Compiled> {
        let selections = group.selections.iter().filter_map(|number| self.selections.get(*number));
        let policies = selections.flat_map(|selection| &selection.target_of);
        let mut policies: Vec<&Compiled> =
            policies.filter_map(|number| self.policies.get(*number)).map(|policy| &policy.compiled).collect();
        policies.sort_by(|one, other| one.id.cmp(&other.id));
        policies
    }

    /// Whether some pod of a selection has such a port. O(groups of it).
    pub(super) fn has_port(&self, selection: SelectionNumber, name: &str, protocol: linux::row::Protocol) -> bool {
        let groups = self.selections.get(selection).into_iter().flat_map(|selection| &selection.groups);
        groups.filter_map(|number| self.groups.get(*number)).any(|group| group.port(name, protocol).is_some())
    }

    /// Whether nothing is held for anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.by_ip.is_empty()
            && self.more_by_ip.is_empty()
            && self.groups.is_empty()
            && self.groups_by_labels.is_empty()
            && self.namespaces.is_empty()
            && self.pod_labels.len() + self.namespace_labels.len() == 0
            && self.selections.is_empty()
            && self.policies.is_empty()
    }
}

impl KnownPod {
    /// Its address of a family.
    pub(super) fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| Family::of(ip) == family)
    }
}

impl Group {
    /// The number its pods give to a port name.
    pub(super) fn port(&self, name: &str, protocol: linux::row::Protocol) -> Option<u16> {
        let is_it = |port: &&NamedPort| *port.name == *name && port.protocol == protocol;
        self.key.ports.iter().find(is_it).map(|port| port.port)
    }
}

/// Selectors a policy being compiled counts as a user of.
#[derive(Debug, Default)]
struct Selectors {
    pods: Vec<SelectorNumber>,
    namespaces: Vec<SelectorNumber>,
}

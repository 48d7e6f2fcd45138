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

mod groups;
mod pods;
mod policies;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use linux::numbers::Numbers;
use linux::row::{Family, Name};
use slab::Slab;

use super::compile::Compiled;
use super::matcher::{LabelsNumber, Matcher, SelectorNumber};
use super::selections::{GroupNumber, PolicyNumber, SelectionNumber, Selections, SetOf};
use crate::kube::model::{Labels, NamedPort, ObjectName, Pod};

type PodNumber = u32;

/// See the module.
#[derive(Debug)]
pub struct Index {
    here: Name,
    enforced: [bool; 2],
    pods: Slab<KnownPod>,
    /// By name.
    numbers: Numbers<PodNumber>,
    by_ip: HashMap<IpAddr, PodNumber>,
    /// Addresses that several pods have: one comes before the other is known to be gone.
    more_by_ip: HashMap<IpAddr, Vec<PodNumber>>,
    /// Pods that have yielded their addresses to another. They are in no group.
    yielded: BTreeMap<ObjectName, Arc<Pod>>,
    groups: Slab<Group>,
    group_numbers: HashMap<GroupKey, GroupNumber>,
    groups_by_labels: HashMap<LabelsNumber, BTreeSet<GroupNumber>>,
    namespaces: HashMap<Name, KnownNamespace>,
    pod_labels: Matcher,
    namespace_labels: Matcher,
    pub(in crate::network_policy) selections: Selections,
    policies: Slab<KnownPolicy>,
    policy_numbers: HashMap<ObjectName, PolicyNumber>,
}

/// A pod that has addresses of its own and is not finished.
#[derive(Debug)]
pub(in crate::network_policy) struct KnownPod {
    /// The store's own: of pods there are too many to copy.
    pod: Arc<Pod>,
    group: GroupNumber,
    pub(in crate::network_policy) here: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    namespace: Name,
    labels: Labels,
    ports: Arc<[NamedPort]>,
}

/// Pods that are selected alike.
#[derive(Debug)]
pub(in crate::network_policy) struct Group {
    key: GroupKey,
    labels: LabelsNumber,
    pods: BTreeSet<PodNumber>,
    pods_here: BTreeSet<PodNumber>,
    pub(in crate::network_policy) selections: BTreeSet<SelectionNumber>,
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
            numbers: Numbers::default(),
            by_ip: HashMap::new(),
            more_by_ip: HashMap::new(),
            yielded: BTreeMap::new(),
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

    /// A pod by its name.
    pub(in crate::network_policy) fn pod(&self, id: &ObjectName) -> Option<(&KnownPod, &Group)> {
        let pod = self.pods.get(self.number(id)? as usize)?;
        Some((pod, self.groups.get(pod.group)?))
    }

    /// Pods with an address: nearly always one or none.
    pub(in crate::network_policy) fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = (&KnownPod, &Group)> {
        let more = self.more_by_ip.get(&ip).into_iter().flatten();
        self.by_ip.get(&ip).into_iter().chain(more).filter_map(|number| {
            let pod = self.pods.get(*number as usize)?;
            Some((pod, self.groups.get(pod.group)?))
        })
    }

    /// Pods of this node in a selection. O(groups of it).
    pub(in crate::network_policy) fn pods_here_in(
        &self,
        selection: SelectionNumber,
    ) -> impl Iterator<Item = &KnownPod> {
        let groups = self.selections.get(selection).into_iter().flat_map(|selection| &selection.groups);
        let groups = groups.filter_map(|number| self.groups.get(*number));
        groups.flat_map(|group| &group.pods_here).filter_map(|number| self.pods.get(*number as usize))
    }

    /// Pods of this node, by name.
    pub(in crate::network_policy) fn pods_here(&self) -> Vec<&KnownPod> {
        let mut pods: Vec<&KnownPod> = self.pods.iter().map(|(_, pod)| pod).filter(|pod| pod.here).collect();
        pods.sort_by(|one, other| one.id().cmp(other.id()));
        pods
    }

    /// A policy in force here.
    pub(in crate::network_policy) fn in_force(&self, id: &ObjectName) -> Option<&Compiled> {
        let policy = self.policies.get(*self.policy_numbers.get(id)?)?;
        policy.in_force.then_some(&policy.compiled)
    }

    /// Policies that select a group, by name.
    pub(in crate::network_policy) fn policies_of(&self, group: &Group) -> Vec<&Compiled> {
        let selections = group.selections.iter().filter_map(|number| self.selections.get(*number));
        let policies = selections.flat_map(|selection| &selection.target_of);
        let mut policies: Vec<&Compiled> =
            policies.filter_map(|number| self.policies.get(*number)).map(|policy| &policy.compiled).collect();
        policies.sort_by(|one, other| one.id.cmp(&other.id));
        policies
    }

    /// Whether some pod of a selection has such a port. O(groups of it).
    pub(in crate::network_policy) fn has_port(
        &self,
        selection: SelectionNumber,
        name: &str,
        protocol: linux::row::Protocol,
    ) -> bool {
        let groups = self.selections.get(selection).into_iter().flat_map(|selection| &selection.groups);
        groups.filter_map(|number| self.groups.get(*number)).any(|group| group.port(name, protocol).is_some())
    }

    /// Whether nothing is held for anybody.
    #[cfg(test)]
    pub(in crate::network_policy) fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.by_ip.is_empty()
            && self.more_by_ip.is_empty()
            && self.yielded.is_empty()
            && self.groups.is_empty()
            && self.groups_by_labels.is_empty()
            && self.namespaces.is_empty()
            && self.pod_labels.len() + self.namespace_labels.len() == 0
            && self.selections.is_empty()
            && self.policies.is_empty()
    }
}

impl KnownPod {
    /// Its name.
    pub(in crate::network_policy) fn id(&self) -> &ObjectName {
        &self.pod.id
    }

    /// Its addresses.
    pub(in crate::network_policy) fn ips(&self) -> &[IpAddr] {
        &self.pod.ips
    }

    /// Its address of a family.
    pub(in crate::network_policy) fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips().iter().copied().find(|ip| Family::of(ip) == family)
    }
}

impl Group {
    /// The number its pods give to a port name.
    pub(in crate::network_policy) fn port(&self, name: &str, protocol: linux::row::Protocol) -> Option<u16> {
        let is_it = |port: &&NamedPort| *port.name == *name && port.protocol == protocol;
        self.key.ports.iter().find(is_it).map(|port| port.port)
    }
}

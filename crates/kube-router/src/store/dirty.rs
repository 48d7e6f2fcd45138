//! What an event concerns.

use std::collections::BTreeSet;

use linux::row::Name;

use crate::kube::model::{Kind, ObjectName};
use crate::objection::Objection;

/// Keys whose inputs changed, in the terms plans are keyed by. Keys are added, never taken away, so several events
/// are one by [`Dirty::merge`] whatever their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services that changed, or whose endpoints did.
    pub services: BTreeSet<ObjectName>,
    /// Nodes that changed; ours too.
    pub nodes: BTreeSet<Name>,
    /// Our own node changed.
    pub own_node: bool,
    /// Pods that changed.
    pub pods: BTreeSet<ObjectName>,
    /// Namespaces that changed.
    pub namespaces: BTreeSet<Name>,
    /// Network policies that changed.
    pub policies: BTreeSet<ObjectName>,
    /// Kinds whose first list is now complete.
    pub synced: BTreeSet<Kind>,
    /// Objections that were not there before, to be logged. All that stand are in [`super::Store::objections`].
    pub objections: Vec<Objection>,
}

impl Dirty {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Dirty::default()
    }

    /// Adds what another event concerns.
    pub fn merge(&mut self, other: Dirty) {
        let Dirty { services, nodes, own_node, pods, namespaces, policies, synced, objections } = other;
        self.services.extend(services);
        self.nodes.extend(nodes);
        self.own_node |= own_node;
        self.pods.extend(pods);
        self.namespaces.extend(namespaces);
        self.policies.extend(policies);
        self.synced.extend(synced);
        self.objections.extend(objections);
    }
}

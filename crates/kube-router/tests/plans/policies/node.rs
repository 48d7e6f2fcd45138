//! A node without a kernel: objects as JSON go through the store to the controller, and what it plans counts as done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kube_router::core::{Controller, Inputs};
use kube_router::kube::convert::Wire;
use kube_router::kube::interner::Interner;
use kube_router::kube::model::{Kind, ObjectName, WatchEvent};
use kube_router::kube::wire;
use kube_router::network_policy::NetworkPolicies;
use kube_router::node::{Facts, ThisNode};
use kube_router::objection::Objections;
use kube_router::options::Options;
use kube_router::owner::Owner;
use kube_router::store::{Announced, Dirty, Store};
use linux::reconciler::{Claim, Reconciler};
use linux::row::{Key, LaneName, Name, Row};
use serde_json::{Value, json};

use super::world::{Change, World};

/// Name of the node under test.
pub(crate) const HERE: &str = "here";
/// Its addresses.
pub(crate) const NODE_IPS: [&str; 2] = ["192.0.2.1", "fd00:192::1"];

/// Store, controller, and what it wants by now.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) policies: NetworkPolicies,
    pub(crate) wanted: BTreeMap<Owner, Vec<Claim>>,
    pub(crate) objections: Objections,
    node: ThisNode,
    options: Options,
    names: Interner,
    dirty: Dirty,
}

impl Node {
    /// A node that knows this world, and has planned it.
    pub(crate) fn of(world: &World, flags: &[&str], verdict_maps: bool) -> Node {
        let mut node = Node::without_lists(flags, verdict_maps);
        for (name, value) in &world.namespaces {
            node.change(&Change::Namespace(name.clone(), Some(value.clone())));
        }
        for ((namespace, name), value) in &world.pods {
            node.change(&Change::Pod(namespace.clone(), name.clone(), Some(value.clone())));
        }
        for ((namespace, name), value) in &world.policies {
            node.change(&Change::Policy(namespace.clone(), name.clone(), Some(value.clone())));
        }
        node.begin()
    }

    /// A node that heard all this before its lists were complete, each by itself, and has planned it.
    pub(crate) fn that_heard<'a>(
        changes: impl IntoIterator<Item = &'a Change>,
        flags: &[&str],
        verdict_maps: bool,
    ) -> Node {
        let mut node = Node::without_lists(flags, verdict_maps);
        for change in changes {
            node.change(change);
            let dirty = std::mem::take(&mut node.dirty);
            let inputs = Inputs { store: &node.store, node: &node.node, options: &node.options };
            node.policies.store_fills(&dirty, inputs);
        }
        node.begin()
    }

    fn without_lists(flags: &[&str], verdict_maps: bool) -> Node {
        let facts = Facts {
            addresses: NODE_IPS
                .map(|ip| (Name::from("eth0"), ip.parse::<std::net::IpAddr>().unwrap().into()))
                .to_vec(),
            verdict_maps,
            ..Facts::default()
        };
        let mut node = Node {
            store: Store::new(Name::from(HERE)),
            policies: NetworkPolicies::default(),
            wanted: BTreeMap::new(),
            objections: Objections::default(),
            node: ThisNode { name: Name::from(HERE), object: None, facts },
            options: Options::from_flags(flags).unwrap(),
            names: Interner::default(),
            dirty: Dirty::default(),
        };
        let this = json!({"metadata": {"name": HERE}, "spec": {"podCIDRs": ["10.0.0.0/24"]},
            "status": {"addresses": NODE_IPS.map(|ip| json!({"type": "InternalIP", "address": ip}))}});
        node.object::<wire::Node>(this);
        node.node.object = node.store.own_node().cloned();
        node
    }

    fn begin(mut self) -> Node {
        self.dirty = Dirty::default();
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        self.policies.begin(inputs);
        self.plan_all();
        self
    }

    /// Takes in a change; nothing follows before [`Self::plan`], as in a burst.
    pub(crate) fn change(&mut self, change: &Change) {
        let gone = |kind, namespace: &str, name: &str| {
            WatchEvent::Deleted(kind, ObjectName { namespace: namespace.into(), name: name.into() })
        };
        match change {
            Change::Namespace(_, Some(value)) => self.object::<wire::Namespace>(value.clone()),
            Change::Namespace(name, None) => self.apply(gone(Kind::Namespace, "", name)),
            Change::Pod(_, _, Some(value)) => self.object::<wire::Pod>(value.clone()),
            Change::Pod(namespace, name, None) => self.apply(gone(Kind::Pod, namespace, name)),
            Change::Policy(_, _, Some(value)) => self.object::<wire::NetworkPolicy>(value.clone()),
            Change::Policy(namespace, name, None) => self.apply(gone(Kind::NetworkPolicy, namespace, name)),
        }
    }

    fn object<W: Wire>(&mut self, value: Value) {
        let object: W = serde_json::from_value(value).unwrap();
        let event = object.convert(&mut self.names).into_event();
        self.apply(event);
    }

    fn apply(&mut self, event: WatchEvent) {
        self.dirty.merge(self.store.apply(event));
    }

    /// Follows all changes since the last call. Returns whose plans were made.
    pub(crate) fn plan(&mut self) -> Vec<Owner> {
        let dirty = std::mem::take(&mut self.dirty);
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        self.policies.store_changed(&dirty, inputs);
        self.plan_all()
    }

    fn plan_all(&mut self) -> Vec<Owner> {
        let mut owners = Vec::new();
        loop {
            let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
            let planned = self.policies.plan(inputs, Instant::now(), &|_| Vec::new());
            owners.extend(planned.iter().map(|(owner, _)| owner.clone()));
            let last = planned.is_empty() && !self.policies.goes_on();
            let mut members = Vec::new();
            for (owner, claims) in planned {
                members.extend(claims.iter().filter(|claim| matches!(claim.key, Key::Member(..))).cloned());
                if claims.is_empty() {
                    self.wanted.remove(&owner);
                } else {
                    self.wanted.insert(owner, claims);
                }
            }
            self.have_sets(&members);
            for (object, found) in self.policies.take_found() {
                self.objections.replace(&object, found);
            }
            if last {
                return owners;
            }
        }
    }

    /// What is planned may be written before the rest is planned, so members never come before their sets.
    fn have_sets(&self, members: &[Claim]) {
        let sets: BTreeSet<&Key> = self
            .wanted
            .values()
            .flatten()
            .map(|claim| &claim.key)
            .filter(|key| matches!(key, Key::Set(_)))
            .collect();
        for member in members {
            let set = member.key.container().unwrap();
            assert!(sets.contains(&set), "{set:?} is not planned, but a member of it");
        }
    }

    /// Takes in what the CNI plugin says, as [`Self::change`].
    pub(crate) fn announce(&mut self, told: Announced) {
        self.dirty.merge(self.store.announce(told));
    }

    /// Whether a pod may be let go, with a kernel that holds what is wanted but for these rows.
    pub(crate) fn guards(&self, id: &ObjectName, missing: impl Fn(&Key) -> bool) -> bool {
        let mut reconciler: Reconciler<Owner> = Reconciler::new();
        for (owner, claims) in &self.wanted {
            reconciler.set(owner, claims.clone());
        }
        for lane in LaneName::ALL {
            let there = self.rows().into_iter().filter(|(key, _)| key.lane() == lane && !missing(key));
            reconciler.was_read(lane, there.collect(), |_, _| true);
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        self.store.pod(id).is_some_and(|pod| self.policies.guards(pod, inputs, &reconciler))
    }

    /// Every owner's claims; their order means nothing.
    pub(crate) fn claims_by_owner(&self) -> BTreeMap<&Owner, BTreeMap<&Key, &Claim>> {
        let claims = self.wanted.iter();
        claims
            .map(|(owner, claims)| (owner, claims.iter().map(|claim| (&claim.key, claim)).collect()))
            .collect()
    }

    /// Every row wanted.
    ///
    /// # Panics
    /// When two owners, or two claims of one, want different rows under one key.
    pub(crate) fn rows(&self) -> BTreeMap<Key, Row> {
        self.rows_of(|_| true)
    }

    /// Every row wanted by owners for which `shown` holds. Panics as [`Self::rows`].
    pub(crate) fn rows_of(&self, shown: impl Fn(&Owner) -> bool) -> BTreeMap<Key, Row> {
        crate::files::rows(&self.wanted, shown)
    }
}

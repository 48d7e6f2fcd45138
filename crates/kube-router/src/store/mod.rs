//! The present state of the cluster, and of this node, in memory.
//!
//! One thread owns the store. Watches tell it what they saw ([`Store::apply`]), it answers which keys of plans that
//! concerns ([`Dirty`]) and plans read it by reference. It keeps no history and decides nothing: the same objects
//! make the same store, whatever the order and number of the events that brought them.
//!
//! A list only ever adds until it is complete. What it did not name is then gone, at once; as long as it is not
//! complete, and between lists, what was known stays true.

mod announced;
mod by_name;
mod dirty;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use linux::row::Name;

pub use announced::Announced;
use announced::Announcements;
use by_name::PodByName;
pub use dirty::Dirty;

use crate::kube::model::{
    Endpoint, EndpointSlice, Kind, Namespace, NetworkPolicy, Node, Object, ObjectName, Pod, Service,
    WatchEvent,
};
use crate::objection::{Objection, Objections};

/// State of the cluster. Look-ups are O(log n).
#[derive(Debug)]
pub struct Store {
    own_node: Name,
    services: BTreeMap<ObjectName, Service>,
    /// Slices by their Service, in order of their own name; both in the same namespace. Nearly always one, for which a
    /// map inside would cost room for eleven.
    slices: BTreeMap<ObjectName, Vec<EndpointSlice>>,
    /// The Service of each slice, to find it by its own name.
    slice_service: BTreeMap<ObjectName, Name>,
    nodes: BTreeMap<Name, Node>,
    pods: BTreeSet<PodByName>,
    announcements: Announcements,
    namespaces: BTreeMap<Name, Namespace>,
    policies: BTreeMap<ObjectName, NetworkPolicy>,
    watches: BTreeMap<Kind, Watch>,
    objections: Objections,
}

/// What is known of a kind as a whole.
#[derive(Debug, Default)]
struct Watch {
    /// A complete list has been seen.
    synced: bool,
    /// While a list runs: objects known before it that it has not named yet. They include ignored ones with
    /// objections.
    unnamed: Option<BTreeSet<ObjectName>>,
    /// Why it does not work, while it does not.
    broken: Option<String>,
}

impl Store {
    /// An empty store of the agent on `own_node`.
    pub fn new(own_node: Name) -> Store {
        Store {
            own_node,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_service: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeSet::new(),
            announcements: Announcements::default(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            watches: BTreeMap::new(),
            objections: Objections::default(),
        }
    }

    /// Takes in what a watch saw. An object equal to what is known dirties nothing. O(log n) but for the two ends of
    /// a list: O(objects of the kind), and O(1) for the first list.
    pub fn apply(&mut self, event: WatchEvent) -> Dirty {
        let mut dirty = Dirty::default();
        self.take_in(event, &mut dirty);
        dirty
    }

    /// As [`Self::apply`], of one event of many.
    pub fn take_in(&mut self, event: WatchEvent, dirty: &mut Dirty) {
        match event {
            WatchEvent::ListBegins(kind) => {
                let known = self.known(kind);
                let watch = self.watches.entry(kind).or_default();
                watch.unnamed = Some(known);
                watch.broken = None;
            }
            WatchEvent::Applied(object, objections) => {
                let (kind, id) = (object.kind(), object.id());
                self.named(kind, &id);
                self.object_to(kind, &id, objections, dirty);
                self.insert(object, dirty);
            }
            WatchEvent::Ignored(kind, id, objections) => {
                self.named(kind, &id);
                self.remove(kind, &id, dirty);
                self.object_to(kind, &id, objections, dirty);
            }
            WatchEvent::Deleted(kind, id) => {
                self.named(kind, &id);
                self.remove(kind, &id, dirty);
                self.object_to(kind, &id, Vec::new(), dirty);
            }
            WatchEvent::ListEnds(kind) => {
                let watch = self.watches.entry(kind).or_default();
                let gone = watch.unnamed.take().unwrap_or_default();
                if !std::mem::replace(&mut watch.synced, true) {
                    dirty.synced.insert(kind);
                }
                for id in gone {
                    self.remove(kind, &id, dirty);
                    self.object_to(kind, &id, Vec::new(), dirty);
                }
            }
            WatchEvent::Broken(kind, why) => self.watches.entry(kind).or_default().broken = Some(why),
            WatchEvent::Mended(kind) => self.watches.entry(kind).or_default().broken = None,
        }
    }

    /// Takes in what the CNI plugin says of a pod it wires. O(log n).
    pub fn announce(&mut self, told: Announced) -> Dirty {
        let (id, before) = (told.id.clone(), self.pod(&told.id).cloned());
        self.announcements.add(told, self.pods.get(&id).map(|pod| &**pod.pod()), &self.own_node);
        self.pod_after(id, before)
    }

    /// Takes in that the runtime has removed a sandbox of a pod. O(log n).
    pub fn sandbox_removed(&mut self, id: &ObjectName, container: &str) -> Dirty {
        let before = self.pod(id).cloned();
        self.announcements.remove(id, container);
        self.pod_after(id.clone(), before)
    }

    fn pod_after(&self, id: ObjectName, before: Option<Arc<Pod>>) -> Dirty {
        let mut dirty = Dirty::default();
        if self.pod(&id) != before.as_ref() {
            dirty.pods.insert(id);
        }
        dirty
    }

    /// The pod that was announced, if it is known as a pod of this node with the announced addresses, whoever said so.
    pub fn wired(&self, told: &Announced) -> Option<&Pod> {
        let here = |pod: &&Pod| pod.node.as_ref() == Some(&self.own_node);
        self.pod(&told.id)
            .map(Arc::as_ref)
            .filter(here)
            .filter(|pod| told.is_about(pod) && told.has_addresses_of(pod))
    }

    /// Pods that are wired and that the API server does not show with their addresses yet; whether it shows them at all.
    pub fn announced(&self) -> impl Iterator<Item = (&Announced, bool)> {
        self.announcements.all()
    }

    /// Whether a complete list of the kind has ever been seen. Before that, absence means nothing.
    pub fn synced(&self, kind: Kind) -> bool {
        self.watches.get(&kind).is_some_and(|watch| watch.synced)
    }

    /// Why the watch of a kind does not work at present, if it does not.
    pub fn broken(&self, kind: Kind) -> Option<&str> {
        self.watches.get(&kind)?.broken.as_deref()
    }

    /// Name of this node.
    pub fn own_node_name(&self) -> &Name {
        &self.own_node
    }

    /// This node.
    pub fn own_node(&self) -> Option<&Node> {
        self.node(&self.own_node)
    }

    /// A Service by name.
    pub fn service(&self, id: &ObjectName) -> Option<&Service> {
        self.services.get(id)
    }

    /// Every Service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a Service, by name, whether the Service is known or not.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.get(service).into_iter().flatten()
    }

    /// The endpoints of a Service, with the slice that tells their ports.
    pub fn endpoints(&self, service: &ObjectName) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
        self.slices(service).flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)))
    }

    /// A Node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every Node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A Pod by name. Whoever keeps it shares it: of pods there are too many to copy.
    pub fn pod(&self, id: &ObjectName) -> Option<&Arc<Pod>> {
        self.announcements.pod(id).or_else(|| self.pods.get(id).map(PodByName::pod))
    }

    /// Every Pod watched, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let shown = self.pods.iter().map(PodByName::pod);
        shown.map(|pod| self.announcements.pod(&pod.id).unwrap_or(pod))
    }

    /// A Namespace by name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Every Namespace, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// A NetworkPolicy by name.
    pub fn policy(&self, id: &ObjectName) -> Option<&NetworkPolicy> {
        self.policies.get(id)
    }

    /// Every NetworkPolicy, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values()
    }

    /// What is wrong with objects at present.
    pub fn objections(&self) -> &Objections {
        &self.objections
    }

    fn insert(&mut self, object: Object, dirty: &mut Dirty) {
        match object {
            Object::Service(service) => {
                if self.services.get(&service.id) != Some(&service) {
                    dirty.services.insert(service.id.clone());
                    self.services.insert(service.id.clone(), service);
                }
            }
            Object::EndpointSlice(slice) => self.insert_slice(slice, dirty),
            Object::Node(node) => {
                if self.nodes.get(&node.name) != Some(&node) {
                    self.node_changed(&node.name, dirty);
                    self.nodes.insert(node.name.clone(), node);
                }
            }
            Object::Pod(pod) => {
                if self.pods.get(&pod.id).is_none_or(|known| **known.pod() != pod) {
                    dirty.pods.insert(pod.id.clone());
                    self.announcements.object_is(&pod.id, Some(&pod), &self.own_node);
                    self.pods.replace(PodByName::new(pod));
                }
            }
            Object::Namespace(namespace) => {
                if self.namespaces.get(&namespace.name) != Some(&namespace) {
                    dirty.namespaces.insert(namespace.name.clone());
                    self.namespaces.insert(namespace.name.clone(), namespace);
                }
            }
            Object::NetworkPolicy(policy) => {
                if self.policies.get(&policy.id) != Some(&policy) {
                    dirty.policies.insert(policy.id.clone());
                    self.policies.insert(policy.id.clone(), policy);
                }
            }
        }
    }

    /// A slice may change its Service, by its label; both are dirty then.
    fn insert_slice(&mut self, slice: EndpointSlice, dirty: &mut Dirty) {
        if self.slice_service.get(&slice.id).is_some_and(|service| *service != slice.service) {
            self.remove_slice(&slice.id, dirty);
        }
        let service = slice.service_id();
        let siblings = self.slices.entry(service.clone()).or_default();
        let place = siblings.binary_search_by(|sibling| sibling.id.name.cmp(&slice.id.name));
        let known = place.ok().and_then(|at| siblings.get_mut(at));
        let changed = !known
            .as_ref()
            .is_some_and(|known| known.ports == slice.ports && known.endpoints == slice.endpoints);
        match known {
            // kept even if only the trigger time is new
            Some(known) => *known = slice,
            None => {
                self.slice_service.insert(slice.id.clone(), slice.service.clone());
                siblings.reserve_exact(1);
                siblings.insert(place.unwrap_or_else(|at| at), slice);
            }
        }
        if changed {
            self.endpoints_changed(service, dirty);
        }
    }

    fn remove(&mut self, kind: Kind, id: &ObjectName, dirty: &mut Dirty) {
        match kind {
            Kind::Service => {
                if self.services.remove(id).is_some() {
                    dirty.services.insert(id.clone());
                }
            }
            Kind::EndpointSlice => self.remove_slice(id, dirty),
            Kind::Node => {
                if self.nodes.remove(&id.name).is_some() {
                    self.node_changed(&id.name, dirty);
                }
            }
            Kind::Pod => {
                if let Some(pod) = self.pods.take(id) {
                    self.announcements.object_gone(pod.pod());
                    dirty.pods.insert(id.clone());
                }
            }
            Kind::Namespace => {
                if self.namespaces.remove(&id.name).is_some() {
                    dirty.namespaces.insert(id.name.clone());
                }
            }
            Kind::NetworkPolicy => {
                if self.policies.remove(id).is_some() {
                    dirty.policies.insert(id.clone());
                }
            }
        }
    }

    fn remove_slice(&mut self, id: &ObjectName, dirty: &mut Dirty) {
        let Some(name) = self.slice_service.remove(id) else { return };
        let service = ObjectName { namespace: id.namespace.clone(), name };
        if let Some(siblings) = self.slices.get_mut(&service) {
            siblings.retain(|sibling| sibling.id.name != id.name);
            if siblings.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.endpoints_changed(service, dirty);
    }

    /// Endpoints of a Service that is not here concern no plan; when it comes, it is dirty by itself.
    fn endpoints_changed(&self, service: ObjectName, dirty: &mut Dirty) {
        if self.services.contains_key(&service) {
            dirty.services.insert(service);
        }
    }

    fn node_changed(&self, name: &Name, dirty: &mut Dirty) {
        dirty.own_node |= *name == self.own_node;
        dirty.nodes.insert(name.clone());
    }

    fn object_to(&mut self, kind: Kind, id: &ObjectName, objections: Vec<Objection>, dirty: &mut Dirty) {
        // nearly every event: nothing wrong, with nothing, ever
        if !objections.is_empty() || !self.objections.is_empty() {
            dirty.objections.extend(self.objections.replace(&id.of_kind(kind), objections));
        }
    }

    fn named(&mut self, kind: Kind, id: &ObjectName) {
        if let Some(unnamed) = self.watches.get_mut(&kind).and_then(|watch| watch.unnamed.as_mut()) {
            unnamed.remove(id);
        }
    }

    /// Everything known by name of a kind: objects, and ignored ones with objections.
    fn known(&self, kind: Kind) -> BTreeSet<ObjectName> {
        let objected = self.objections.iter().map(|objection| &objection.object);
        let objected = objected.filter(|object| object.kind == kind.as_str()).map(|object| ObjectName {
            namespace: object.namespace.as_str().into(),
            name: object.name.as_str().into(),
        });
        let mut known: BTreeSet<ObjectName> = objected.collect();
        match kind {
            Kind::Service => known.extend(self.services.keys().cloned()),
            Kind::EndpointSlice => known.extend(self.slice_service.keys().cloned()),
            Kind::Node => known.extend(self.nodes.keys().cloned().map(ObjectName::cluster_wide)),
            Kind::Pod => known.extend(self.pods.iter().map(|pod| pod.pod().id.clone())),
            Kind::Namespace => known.extend(self.namespaces.keys().cloned().map(ObjectName::cluster_wide)),
            Kind::NetworkPolicy => known.extend(self.policies.keys().cloned()),
        }
        known
    }
}

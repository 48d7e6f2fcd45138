//! Keeps EndpointSlices and Endpoints at their plans. A pod event costs the services that select it, a service
//! event that service; nothing scans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::endpoints::{self, MANAGED_BY};
use super::label_index::{LabelIndex, pairs};
use crate::api_server::object::{at, name, namespace, text};
use crate::api_server::{ApiError, EventKind, Handle, Resource, WatchEvent};

type Key = (String, String);

struct Controller {
    handle: Handle,
    services: BTreeMap<Key, Arc<Value>>,
    pods: BTreeMap<Key, Arc<Value>>,
    pods_by_label: LabelIndex,
    /// Services by every pair of their selector.
    services_by_selector: LabelIndex,
    /// The slices written for each service, by name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<Value>>>,
    dirty: BTreeSet<Key>,
}

/// Works until the server ends.
pub(super) async fn run(handle: Handle) {
    let (services, mut service_events) = handle.watch(Resource::Services);
    let (pods, mut pod_events) = handle.watch(Resource::Pods);
    let (slices, mut slice_events) = handle.watch(Resource::EndpointSlices);
    let mut controller = Controller {
        handle,
        services: BTreeMap::new(),
        pods: BTreeMap::new(),
        pods_by_label: LabelIndex::default(),
        services_by_selector: LabelIndex::default(),
        slices: BTreeMap::new(),
        dirty: BTreeSet::new(),
    };
    let added = |object| WatchEvent { kind: EventKind::Added, object };
    slices.into_iter().for_each(|slice| controller.slice(&added(slice)));
    services.into_iter().for_each(|service| controller.service(&added(service)));
    pods.into_iter().for_each(|pod| controller.pod(&added(pod)));
    loop {
        for key in std::mem::take(&mut controller.dirty) {
            controller.sync(&key);
        }
        tokio::select! {
            Some(event) = service_events.recv() => controller.service(&event),
            Some(event) = pod_events.recv() => controller.pod(&event),
            Some(event) = slice_events.recv() => controller.slice(&event),
            else => return,
        }
        // What has piled up is planned once.
        while let Ok(event) = service_events.try_recv() {
            controller.service(&event);
        }
        while let Ok(event) = pod_events.try_recv() {
            controller.pod(&event);
        }
    }
}

fn key_of(object: &Value) -> Key {
    (namespace(object).to_owned(), name(object).to_owned())
}

impl Controller {
    fn service(&mut self, event: &WatchEvent) {
        let service = &event.object;
        let key = key_of(service);
        if let Some(before) = self.services.remove(&key) {
            self.services_by_selector.remove(&key.0, pairs(at(&before, &["spec", "selector"])), &key.1);
        }
        if event.kind != EventKind::Deleted {
            self.services_by_selector.insert(&key.0, pairs(at(service, &["spec", "selector"])), &key.1);
            self.services.insert(key.clone(), service.clone());
        }
        self.dirty.insert(key);
    }

    fn pod(&mut self, event: &WatchEvent) {
        let key = key_of(&event.object);
        if let Some(before) = self.pods.remove(&key) {
            self.pods_by_label.remove(&key.0, pairs(at(&before, &["metadata", "labels"])), &key.1);
            self.mark_services_of(&before);
        }
        if event.kind != EventKind::Deleted {
            let labels = at(&event.object, &["metadata", "labels"]);
            self.pods_by_label.insert(&key.0, pairs(labels), &key.1);
            self.mark_services_of(&event.object);
            self.pods.insert(key, event.object.clone());
        }
    }

    /// Marks the services whose whole selector the pod carries.
    fn mark_services_of(&mut self, pod: &Value) {
        let (space, labels) = (namespace(pod), at(pod, &["metadata", "labels"]));
        for (label, value) in pairs(labels) {
            for service in self.services_by_selector.carriers(space, label, value).into_iter().flatten() {
                let key = (space.to_owned(), service.clone());
                let selector = self.services.get(&key).and_then(|service| at(service, &["spec", "selector"]));
                let carries =
                    |(label, value)| labels.and_then(|l| l.get(label)).and_then(Value::as_str) == Some(value);
                if pairs(selector).all(carries) {
                    self.dirty.insert(key);
                }
            }
        }
    }

    /// A slice of ours that somebody else changed or removed has its service planned again.
    fn slice(&mut self, event: &WatchEvent) {
        let slice = &event.object;
        if text(slice, &["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]) != MANAGED_BY {
            return;
        }
        let service = text(slice, &["metadata", "labels", "kubernetes.io/service-name"]);
        let key = (namespace(slice).to_owned(), service.to_owned());
        // The store has the present state; an event may be of one we have since replaced ourselves.
        let present = self.handle.get(Resource::EndpointSlices, Some(&key.0), name(slice));
        let known = self.slices.get(&key).and_then(|slices| slices.get(name(slice)));
        if known.map(|known| version(known)) == present.as_ref().map(|present| version(present)) {
            return;
        }
        let slices = self.slices.entry(key.clone()).or_default();
        match present {
            Some(present) => drop(slices.insert(name(slice).to_owned(), present)),
            None => drop(slices.remove(name(slice))),
        }
        self.dirty.insert(key);
    }

    fn sync(&mut self, key: &Key) {
        let present = self.slices.remove(key).unwrap_or_default();
        let service = self.services.get(key).filter(|service| endpoints::is_planned(service)).cloned();
        let Some(service) = service else {
            self.delete_all(key, &present);
            return;
        };
        let names = self.pods_by_label.carriers_of_all(&key.0, at(&service, &["spec", "selector"]));
        let pods = names.into_iter().filter_map(|name| self.pods.get(&(key.0.clone(), name.clone())));
        let pods: Vec<&Value> = pods.map(Arc::as_ref).collect();
        let slices: Vec<&Value> = present.values().map(Arc::as_ref).collect();
        let plan = endpoints::slices(&service, &pods, &slices);
        let endpoints = endpoints::endpoints(&service, &pods);
        let kept = self.carry_out(key, present, plan);
        self.slices.insert(key.clone(), kept);
        if let Err(error) = self.write_endpoints(key, endpoints) {
            self.report(key, &error);
        }
    }

    /// Writes a plan and returns the slices as they now are.
    fn carry_out(
        &mut self,
        key: &Key,
        mut slices: BTreeMap<String, Arc<Value>>,
        plan: endpoints::Plan,
    ) -> BTreeMap<String, Arc<Value>> {
        let mut results = Vec::new();
        for slice in plan.create {
            results.push(self.handle.create(Resource::EndpointSlices, slice));
        }
        for slice in plan.update {
            results.push(self.handle.update(Resource::EndpointSlices, slice));
        }
        for result in results {
            match result {
                Ok(slice) => drop(slices.insert(name(&slice).to_owned(), slice)),
                // Its own event, already queued, brings the slice's present state and another plan.
                Err(error) => self.report(key, &error),
            }
        }
        for slice in plan.delete {
            slices.remove(&slice);
            self.delete(Resource::EndpointSlices, &key.0, &slice);
        }
        slices
    }

    fn write_endpoints(&self, key: &Key, wanted: Value) -> Result<(), ApiError> {
        match self.handle.get(Resource::Endpoints, Some(&key.0), &key.1) {
            None => self.handle.create(Resource::Endpoints, wanted).map(drop),
            Some(present) if present.get("subsets") == wanted.get("subsets") => Ok(()),
            Some(_) => self.handle.update(Resource::Endpoints, wanted).map(drop),
        }
    }

    /// A service that is gone takes everything under its name along; one that only lost its selector keeps the
    /// Endpoints its user may have put there.
    fn delete_all(&self, key: &Key, slices: &BTreeMap<String, Arc<Value>>) {
        for slice in slices.keys() {
            self.delete(Resource::EndpointSlices, &key.0, slice);
        }
        if !self.services.contains_key(key) {
            self.delete(Resource::Endpoints, &key.0, &key.1);
        }
    }

    fn delete(&self, resource: Resource, space: &str, name: &str) {
        match self.handle.delete(resource, Some(space), name, None) {
            Ok(()) | Err(ApiError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, space, name, "not deleted"),
        }
    }

    /// A namespace being ended refuses new objects; anything else is worth a line.
    fn report(&self, key: &Key, error: &ApiError) {
        match error {
            ApiError::Forbidden(_) | ApiError::NotFound { .. } | ApiError::Conflict { .. } => {
                tracing::debug!(%error, namespace = key.0, service = key.1, "endpoints not written");
            }
            _ => tracing::warn!(%error, namespace = key.0, service = key.1, "endpoints not written"),
        }
    }
}

fn version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

//! The in-process client: what lab code calls instead of HTTP. Same admission, same store, no faults.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::object;
use super::patch::Patch;
use super::rules::{DeleteOptions, Part, Place};
use super::shared::Shared;
use super::{ApiError, Resource};

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone; the event carries its last state.
    Deleted,
}

/// One change, in the order of the global resource version.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change (before it, when deleted).
    pub object: Arc<Value>,
}

/// A client inside the process. Cheap to clone; every call takes effect before it returns.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// One object, or `None`. O(log n).
    pub fn get(&self, resource: Resource, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let place = Place::new(resource, namespace, name);
        self.shared.registry().get(place).ok().map(|object| object.value.clone())
    }

    /// Every object of a kind, of one namespace or (`None`) of all, by namespace and name. O(matching).
    pub fn list(&self, resource: Resource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let namespace = namespace.filter(|_| resource.definition().namespaced);
        let registry = self.shared.registry();
        registry.store.list(resource, namespace).map(|object| object.value.clone()).collect()
    }

    /// Creates an object, with admission. Its namespace must exist; `metadata.namespace` defaults to `default`.
    /// Unlike through HTTP, a `status` given is kept.
    pub fn create(&self, resource: Resource, object: Value) -> Result<Arc<Value>, ApiError> {
        let created = self.shared.registry().create(resource, None, object, false)?;
        Ok(created.value.clone())
    }

    /// Creates the object, or merges it into the one there (lists by their merge key, as `kubectl apply` would),
    /// by `apiVersion` and `kind`. The `status` of an existing object stays.
    pub fn apply(&self, object: Value) -> Result<Arc<Value>, ApiError> {
        let (version, kind) = (object::text(&object, &["apiVersion"]), object::text(&object, &["kind"]));
        let resource = Resource::from_type(version, kind)
            .ok_or_else(|| ApiError::BadRequest(format!("no kind {kind:?} in version {version:?}")))?;
        let namespace = Some(object::namespace(&object)).filter(|namespace| !namespace.is_empty());
        let (namespace, name) = (namespace.map(str::to_owned), object::name(&object).to_owned());
        let place = Place::new(resource, namespace.as_deref(), &name);
        let applied = self.shared.registry().patch(place, &Patch::Apply(object), Part::Main, false)?;
        Ok(applied.value.clone())
    }

    /// Replaces an object but for its status; a `metadata.resourceVersion` that is not current is a conflict.
    pub fn update(&self, resource: Resource, object: Value) -> Result<Arc<Value>, ApiError> {
        let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let namespace = Some(namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let place = Place::new(resource, namespace, &name);
        let updated = self.shared.registry().replace(place, object, Part::Main, false)?;
        Ok(updated.value.clone())
    }

    /// Merges `patch` (RFC 7386) into the object; its status stays.
    pub fn patch(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Arc<Value>, ApiError> {
        let place = Place::new(resource, namespace, name);
        let patched = self.shared.registry().patch(place, &Patch::Merge(patch.clone()), Part::Main, false)?;
        Ok(patched.value.clone())
    }

    /// Merges `status` (RFC 7386) into the object's `status`; nothing else of the object changes.
    pub fn patch_status(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        status: &Value,
    ) -> Result<Arc<Value>, ApiError> {
        let place = Place::new(resource, namespace, name);
        let patch = Patch::Merge(json!({ "status": status }));
        let patched = self.shared.registry().patch(place, &patch, Part::Status, false)?;
        Ok(patched.value.clone())
    }

    /// Deletes an object. `grace` in seconds; `None` takes the pod's own `terminationGracePeriodSeconds`.
    /// A scheduled pod with grace left stays, with a deletionTimestamp, until deleted with `Some(0)`.
    pub fn delete(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        grace: Option<i64>,
    ) -> Result<(), ApiError> {
        let options = DeleteOptions { grace, ..DeleteOptions::default() };
        let place = Place::new(resource, namespace, name);
        self.shared.registry().delete(place, &options).map(drop)
    }

    /// Takes the last hold off a namespace being deleted, once its content is gone.
    pub fn finalize_namespace(&self, name: &str) -> Result<(), ApiError> {
        self.shared.registry().finalize_namespace(name).map(drop)
    }

    /// The present objects and, from there on, every change: nothing between the two is lost, and nothing
    /// later (the queue is unbounded). Dropping the receiver ends the watch.
    pub fn watch(&self, resource: Resource) -> (Vec<Arc<Value>>, mpsc::UnboundedReceiver<WatchEvent>) {
        self.shared.registry().store.subscribe(resource)
    }
}

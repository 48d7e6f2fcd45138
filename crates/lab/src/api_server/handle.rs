//! The in-process client: what lab code calls instead of HTTP. Same admission, same store, no faults.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

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
pub struct Handle {}

impl Handle {
    /// One object, or `None`. O(log n).
    pub fn get(&self, _resource: Resource, _namespace: Option<&str>, _name: &str) -> Option<Arc<Value>> {
        unimplemented!()
    }

    /// Every object of a kind, of one namespace or (`None`) of all, by namespace and name. O(matching).
    pub fn list(&self, _resource: Resource, _namespace: Option<&str>) -> Vec<Arc<Value>> {
        unimplemented!()
    }

    /// Creates an object, with admission. Its namespace must exist; `metadata.namespace` defaults to `default`.
    pub fn create(&self, _resource: Resource, _object: Value) -> Result<Arc<Value>, ApiError> {
        unimplemented!()
    }

    /// Creates the object, or merges it into the one there (as `kubectl apply` would), by `apiVersion` and `kind`.
    pub fn apply(&self, _object: Value) -> Result<Arc<Value>, ApiError> {
        unimplemented!()
    }

    /// Replaces an object but for its status; a `metadata.resourceVersion` that is not current is a conflict.
    pub fn update(&self, _resource: Resource, _object: Value) -> Result<Arc<Value>, ApiError> {
        unimplemented!()
    }

    /// Merges `patch` (RFC 7386) into the object.
    pub fn patch(
        &self,
        _resource: Resource,
        _namespace: Option<&str>,
        _name: &str,
        _patch: &Value,
    ) -> Result<Arc<Value>, ApiError> {
        unimplemented!()
    }

    /// Merges `status` (RFC 7386) into the object's `status`; nothing else of the object changes.
    pub fn patch_status(
        &self,
        _resource: Resource,
        _namespace: Option<&str>,
        _name: &str,
        _status: &Value,
    ) -> Result<Arc<Value>, ApiError> {
        unimplemented!()
    }

    /// Deletes an object. `grace` in seconds; `None` takes the pod's own `terminationGracePeriodSeconds`.
    /// A scheduled pod with grace left stays, with a deletionTimestamp, until deleted with `Some(0)`.
    pub fn delete(
        &self,
        _resource: Resource,
        _namespace: Option<&str>,
        _name: &str,
        _grace: Option<i64>,
    ) -> Result<(), ApiError> {
        unimplemented!()
    }

    /// The present objects and, from there on, every change: nothing between the two is lost, and nothing
    /// later (the queue is unbounded). Dropping the receiver ends the watch.
    pub fn watch(&self, _resource: Resource) -> (Vec<Arc<Value>>, mpsc::UnboundedReceiver<WatchEvent>) {
        unimplemented!()
    }
}

//! What a write does to an object: identity, versions and conflicts, generation, graceful deletion, finalizers.
//!
//! These rules hold for every kind; what is particular to a kind is [`Admission`]'s.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{
    self, Object, after_seconds, at, fields, is_deleting, items, name_suffix, new_uid, now, random,
    set_metadata, text,
};
use super::patch::Patch;
use super::store::Store;
use super::{ApiError, Resource};

/// Completes and checks objects before they are stored, and hears of their end.
pub(crate) trait Admission: Send {
    /// Fills in defaults and allocations of a new object. On an error nothing stays allocated.
    fn create(&mut self, resource: Resource, object: &mut Value) -> Result<(), ApiError>;
    /// The same for a change.
    fn update(&mut self, resource: Resource, old: &Value, new: &mut Value) -> Result<(), ApiError>;
    /// Releases what the object held.
    fn removed(&mut self, resource: Resource, object: &Value);
}

/// Takes objects as they come.
pub(crate) struct AdmitAll;

impl Admission for AdmitAll {
    fn create(&mut self, _: Resource, _: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }
    fn update(&mut self, _: Resource, _: &Value, _: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }
    fn removed(&mut self, _: Resource, _: &Value) {}
}

/// Which endpoint a write came through: each leaves the other's part alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The object itself: `status` stays.
    Main,
    /// `/status`: only `status` changes.
    Status,
}

/// Where an object is; `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) resource: Resource,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Place<'a> {
    /// The place, with the namespace dropped for cluster-scoped kinds and defaulted for others.
    pub(crate) fn new(resource: Resource, namespace: Option<&'a str>, name: &'a str) -> Self {
        let namespaced = resource.definition().namespaced;
        Self { resource, namespace: if namespaced { namespace.unwrap_or("default") } else { "" }, name }
    }

    fn not_found(&self) -> ApiError {
        ApiError::NotFound { resource: self.resource, name: self.name.to_owned() }
    }

    fn conflict(&self, message: &str) -> ApiError {
        let name = self.name.to_owned();
        ApiError::Conflict { resource: self.resource, name, message: message.to_owned() }
    }
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Default, Debug)]
pub(crate) struct DeleteOptions {
    /// Seconds; `None` takes the kind's default.
    pub(crate) grace: Option<i64>,
    /// Delete only this incarnation.
    pub(crate) uid: Option<String>,
    /// Delete only this state.
    pub(crate) version: Option<String>,
    /// Leave dependents behind, without their owner.
    pub(crate) orphan: bool,
    /// Change nothing.
    pub(crate) dry_run: bool,
}

/// What a delete did.
#[derive(Debug)]
pub(crate) enum Deletion {
    /// The object stays until its grace period or finalizers end.
    Begun(Arc<Object>),
    /// It is gone.
    Done(Arc<Object>),
}

/// The store behind its rules.
pub(crate) struct Registry {
    pub(crate) store: Store,
    admission: Box<dyn Admission>,
}

const CHANGED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Registry {
    pub(crate) fn new(store: Store, admission: Box<dyn Admission>) -> Self {
        Self { store, admission }
    }

    /// The object at a place, or 404.
    pub(crate) fn get(&self, place: Place<'_>) -> Result<Arc<Object>, ApiError> {
        let found = self.store.get(place.resource, place.namespace, place.name);
        found.cloned().ok_or_else(|| place.not_found())
    }

    /// Stores a new object. Its name may come from `generateName`; its namespace must exist.
    pub(crate) fn create(
        &mut self,
        resource: Resource,
        namespace: Option<&str>,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        identify(resource, namespace, &mut object)?;
        let name = object::name(&object).to_owned();
        let namespace = object::namespace(&object).to_owned();
        self.check_namespace(&namespace)?;
        if self.store.get(resource, &namespace, &name).is_some() {
            return Err(ApiError::AlreadyExists { resource, name });
        }
        begin(resource, &mut object);
        if dry_run {
            return Ok(Arc::new(Object::new(object, 0)));
        }
        self.admission.create(resource, &mut object)?;
        Ok(self.store.put(resource, object))
    }

    fn check_namespace(&self, namespace: &str) -> Result<(), ApiError> {
        if namespace.is_empty() {
            return Ok(());
        }
        let object = self.get(Place::new(Resource::Namespaces, None, namespace))?;
        if is_deleting(&object.value) {
            let message = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(ApiError::Forbidden(message));
        }
        Ok(())
    }

    /// Replaces one part of an object. A write that changes nothing makes no new version.
    pub(crate) fn replace(
        &mut self,
        place: Place<'_>,
        new: Value,
        part: Part,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let old = self.get(place)?;
        let mut new = inherit(place, &old.value, new, part)?;
        if part == Part::Main && !dry_run && new != *old.value {
            self.admission.update(place.resource, &old.value, &mut new)?;
            count_generation(&old.value, &mut new);
        }
        if new == *old.value {
            return Ok(old);
        }
        if dry_run {
            return Ok(Arc::new(Object::new(new, old.version)));
        }
        if is_deleting(&new) && deletion_is_due(&new) {
            return self.remove(place);
        }
        Ok(self.store.put(place.resource, new))
    }

    /// Patches one part of an object; server-side apply creates it if need be.
    pub(crate) fn patch(
        &mut self,
        place: Place<'_>,
        patch: &Patch,
        part: Part,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let old = match (self.get(place), patch) {
            (Err(ApiError::NotFound { .. }), Patch::Apply(object)) => {
                let mut object = object.clone();
                set_metadata(&mut object, "name", json!(place.name));
                return self.create(place.resource, Some(place.namespace), object, dry_run);
            }
            (found, _) => found?,
        };
        let new = patch.apply(place.resource, &old.value)?;
        self.replace(place, new, part, dry_run)
    }

    /// Begins or completes a deletion.
    pub(crate) fn delete(&mut self, place: Place<'_>, options: &DeleteOptions) -> Result<Deletion, ApiError> {
        let old = self.get(place)?;
        let uid = object::uid(&old.value);
        if options.uid.as_deref().is_some_and(|expected| expected != uid) {
            return Err(place.conflict("Precondition failed: UID in precondition differs from UID in object"));
        }
        if options.version.as_deref().is_some_and(|expected| expected != old.version.to_string()) {
            return Err(place.conflict("Precondition failed: resourceVersion differs"));
        }
        if options.dry_run {
            return Ok(Deletion::Done(old));
        }
        if options.orphan {
            self.orphan_dependents(place.namespace, uid);
        }
        let marked = mark_deleting(place.resource, &old.value, options.grace);
        if deletion_is_due(&marked) {
            return self.remove(place).map(Deletion::Done);
        }
        if marked == *old.value {
            return Ok(Deletion::Begun(old));
        }
        Ok(Deletion::Begun(self.store.put(place.resource, marked)))
    }

    /// Takes the last hold off a namespace whose content is gone.
    pub(crate) fn finalize_namespace(&mut self, name: &str) -> Result<Arc<Object>, ApiError> {
        let place = Place::new(Resource::Namespaces, None, name);
        let mut new = (*self.get(place)?.value).clone();
        fields(object::child(&mut new, "spec")).remove("finalizers");
        if is_deleting(&new) && deletion_is_due(&new) {
            return self.remove(place);
        }
        Ok(self.store.put(place.resource, new))
    }

    fn remove(&mut self, place: Place<'_>) -> Result<Arc<Object>, ApiError> {
        let removed = self.store.remove(place.resource, place.namespace, place.name);
        let removed = removed.ok_or_else(|| place.not_found())?;
        self.admission.removed(place.resource, &removed.value);
        Ok(removed)
    }

    /// Takes the owner reference off the pods of an owner about to go. O(pods of the namespace).
    fn orphan_dependents(&mut self, namespace: &str, owner: &str) {
        let owned = |object: &&Arc<Object>| is_owned_by(&object.value, owner);
        let pods: Vec<_> = self.store.list(Resource::Pods, Some(namespace)).filter(owned).cloned().collect();
        for pod in pods {
            let mut pod = (*pod.value).clone();
            if let Some(Value::Array(owners)) = pod.pointer_mut("/metadata/ownerReferences") {
                owners.retain(|reference| text(reference, &["uid"]) != owner);
            }
            self.store.put(Resource::Pods, pod);
        }
    }
}

/// Whether an owner reference names this uid.
pub(crate) fn is_owned_by(object: &Value, owner: &str) -> bool {
    items(object, &["metadata", "ownerReferences"]).iter().any(|reference| text(reference, &["uid"]) == owner)
}

/// Checks and sets type, namespace and name of a new object.
fn identify(resource: Resource, namespace: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    let row = resource.definition();
    let version = resource.api_version();
    for (key, expected) in [("kind", row.kind), ("apiVersion", version.as_str())] {
        let given = text(object, &[key]);
        if !given.is_empty() && given != expected {
            let message = format!("{key} in the data ({given}) does not match the expected {expected}");
            return Err(ApiError::BadRequest(message));
        }
        fields(object).insert(key.to_owned(), json!(expected));
    }
    if row.namespaced {
        let given = object::namespace(object).to_owned();
        match namespace {
            Some(expected) if !given.is_empty() && given != expected => {
                let message =
                    "the namespace of the provided object does not match the namespace sent on the request";
                return Err(ApiError::BadRequest(message.to_owned()));
            }
            Some(expected) => set_metadata(object, "namespace", json!(expected)),
            None if given.is_empty() => set_metadata(object, "namespace", json!("default")),
            None => {}
        }
    } else {
        fields(object::child(object, "metadata")).remove("namespace");
    }
    let prefix = text(object, &["metadata", "generateName"]);
    if object::name(object).is_empty() && !prefix.is_empty() {
        let name = format!("{prefix}{}", name_suffix(random(), 5));
        set_metadata(object, "name", json!(name));
    }
    check_name(resource, object::name(object))
}

/// Names are DNS subdomains (RFC 1123), but for RBAC, whose names only have to be path segments.
fn check_name(resource: Resource, name: &str) -> Result<(), ApiError> {
    let row = resource.definition();
    let invalid = |message: &str| {
        let (name, field) = (name.to_owned(), "metadata.name".to_owned());
        Err(ApiError::Invalid { kind: row.kind, name, field, message: message.to_owned() })
    };
    if name.is_empty() {
        return invalid("Required value: name or generateName is required");
    }
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_dns = name.len() <= 253 && name.chars().all(dns) && name.starts_with(edge) && name.ends_with(edge);
    let is_segment = !name.contains(['/', '%']) && name != "." && name != "..";
    let rbac = row.group == "rbac.authorization.k8s.io";
    if (rbac && is_segment) || is_dns {
        Ok(())
    } else {
        invalid("Invalid value: not a lowercase RFC 1123 subdomain")
    }
}

/// Sets what the server alone sets on a new object.
fn begin(resource: Resource, object: &mut Value) {
    set_metadata(object, "uid", json!(new_uid()));
    set_metadata(object, "creationTimestamp", json!(now()));
    let counts = matches!(
        resource,
        Resource::Deployments
            | Resource::DaemonSets
            | Resource::ReplicaSets
            | Resource::NetworkPolicies
            | Resource::EndpointSlices
    );
    if counts {
        set_metadata(object, "generation", json!(1));
    }
    let metadata = fields(object::child(object, "metadata"));
    for key in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"] {
        metadata.remove(key);
    }
}

/// The new state with everything the request may not change taken from the old.
fn inherit(place: Place<'_>, old: &Value, mut new: Value, part: Part) -> Result<Value, ApiError> {
    let given = text(&new, &["metadata", "resourceVersion"]);
    if !given.is_empty() && given != text(old, &["metadata", "resourceVersion"]) {
        return Err(place.conflict(CHANGED));
    }
    let given = object::uid(&new);
    if !given.is_empty() && given != object::uid(old) {
        return Err(place.conflict("Precondition failed: UID differs"));
    }
    let given = object::name(&new);
    if !given.is_empty() && given != place.name {
        let message =
            format!("the name of the object ({given}) does not match the name on the URL ({})", place.name);
        return Err(ApiError::BadRequest(message));
    }
    if part == Part::Status {
        let status = fields(&mut new).remove("status");
        let mut whole = old.clone();
        set_or_remove(&mut whole, "status", status);
        return Ok(whole);
    }
    for key in ["kind", "apiVersion"] {
        set_or_remove(&mut new, key, old.get(key).cloned());
    }
    if place.resource.definition().subresources.contains(&"status") {
        set_or_remove(&mut new, "status", old.get("status").cloned());
    }
    let metadata = object::child(&mut new, "metadata");
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set_or_remove(metadata, key, at(old, &["metadata", key]).cloned());
    }
    fields(metadata).remove("managedFields");
    Ok(new)
}

fn set_or_remove(object: &mut Value, key: &str, value: Option<Value>) {
    match value {
        Some(value) => fields(object).insert(key.to_owned(), value),
        None => fields(object).remove(key),
    };
}

/// `metadata.generation` counts changes of anything but metadata and status.
fn count_generation(old: &Value, new: &mut Value) {
    let Some(generation) = at(old, &["metadata", "generation"]).and_then(Value::as_i64) else { return };
    let desired = |object: &Value| {
        let fields = object.as_object().into_iter().flatten();
        fields
            .filter(|(key, _)| *key != "metadata" && *key != "status")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let (before, after): (Vec<_>, Vec<_>) = (desired(old), desired(new));
    if before != after {
        set_metadata(new, "generation", json!(generation + 1));
    }
}

/// The object with its deletion asked for. A second request can shorten the grace period, not lengthen it.
fn mark_deleting(resource: Resource, old: &Value, grace: Option<i64>) -> Value {
    let mut new = old.clone();
    let grace = if resource == Resource::Pods { pod_grace(old, grace) } else { 0 };
    let present = at(old, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    if !is_deleting(old) || present.is_some_and(|present| grace < present) {
        set_metadata(&mut new, "deletionTimestamp", json!(after_seconds(grace)));
        set_metadata(&mut new, "deletionGracePeriodSeconds", json!(grace));
    }
    if resource == Resource::Namespaces {
        fields(object::child(&mut new, "status")).insert("phase".to_owned(), json!("Terminating"));
    }
    new
}

/// A pod that no kubelet runs has nothing to wind down.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
    if ended || text(pod, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    let own = at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    asked.or(own).unwrap_or(30).max(0)
}

/// Whether nothing holds an object marked for deletion any more.
fn deletion_is_due(object: &Value) -> bool {
    let grace = at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    grace.unwrap_or(0) == 0
        && items(object, &["metadata", "finalizers"]).is_empty()
        && items(object, &["spec", "finalizers"]).is_empty()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

//! Everything that changes objects: create, update, patch, delete and their subresources.

use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::read::{Filter, snapshot};
use super::request::Objects;
use super::{Call, json_response, scale};
use crate::api_server::object::{self, at, fields, text};
use crate::api_server::patch::Patch;
use crate::api_server::rules::{DeleteOptions, Deletion, Part, Place};
use crate::api_server::shared::Shared;
use crate::api_server::{ApiError, Resource};

/// POST on a collection, or a pod's binding or eviction.
pub(super) fn create(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let mut object = call.json()?;
    match objects.subresource.as_deref() {
        Some("binding") => return bind(shared, objects, &object),
        Some("eviction") => return delete(shared, objects, call),
        _ => {}
    }
    // A node reports its own status from the start; other kinds' status is the controllers' to write.
    let has_status = objects.resource.definition().subresources.contains(&"status");
    if has_status && objects.resource != Resource::Nodes {
        fields(&mut object).remove("status");
    }
    let namespace = objects.namespace.as_deref();
    let created = shared.registry().create(objects.resource, namespace, object, call.parameters.dry_run)?;
    Ok(call.render(objects.resource, &created, StatusCode::CREATED))
}

fn bind(shared: &Shared, objects: &Objects, binding: &Value) -> Result<Response, ApiError> {
    let node = text(binding, &["target", "name"]);
    let patch = Patch::Merge(json!({"spec": {"nodeName": node}}));
    shared.registry().patch(objects.place(), &patch, Part::Main, false)?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(json_response(StatusCode::CREATED, status.to_string()))
}

fn part(objects: &Objects) -> Part {
    if objects.subresource.as_deref() == Some("status") { Part::Status } else { Part::Main }
}

/// PUT.
pub(super) fn update(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let body = call.json()?;
    let (place, dry_run) = (objects.place(), call.parameters.dry_run);
    let mut registry = shared.registry();
    match objects.subresource.as_deref() {
        Some("finalize") => {
            let done = registry.finalize_namespace(place.name)?;
            Ok(call.render(objects.resource, &done, StatusCode::OK))
        }
        Some("scale") => {
            let scaled = scale::onto(&registry.get(place)?.value, &body);
            let done = registry.replace(place, scaled, Part::Main, dry_run)?;
            Ok(json_response(StatusCode::OK, scale::of(&done.value).to_string()))
        }
        _ => {
            check_type(objects.resource, &body)?;
            let done = registry.replace(place, body, part(objects), dry_run)?;
            Ok(call.render(objects.resource, &done, StatusCode::OK))
        }
    }
}

fn check_type(resource: Resource, object: &Value) -> Result<(), ApiError> {
    let kind = text(object, &["kind"]);
    if kind.is_empty() || kind == resource.definition().kind {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!("kind in the data ({kind}) is not that of the path")))
}

/// PATCH.
pub(super) fn patch(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let patch = Patch::parse(call.header(header::CONTENT_TYPE), &call.body)?;
    let (place, dry_run) = (objects.place(), call.parameters.dry_run);
    let mut registry = shared.registry();
    if objects.subresource.as_deref() == Some("scale") {
        let workload = registry.get(place)?;
        let scale = patch.apply(objects.resource, &scale::of(&workload.value))?;
        let done = registry.replace(place, scale::onto(&workload.value, &scale), Part::Main, dry_run)?;
        return Ok(json_response(StatusCode::OK, scale::of(&done.value).to_string()));
    }
    let is_new = registry.get(place).is_err();
    let done = registry.patch(place, &patch, part(objects), dry_run)?;
    let code = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(call.render(objects.resource, &done, code))
}

/// `DeleteOptions` from the body (an Eviction carries them inside), completed from the query.
fn delete_options(call: &Call) -> Result<DeleteOptions, ApiError> {
    let body = if call.body.is_empty() { json!({}) } else { call.json()? };
    let body = body.get("deleteOptions").unwrap_or(&body);
    let own = |path: &[&str]| Some(text(body, path).to_owned()).filter(|text| !text.is_empty());
    let propagation = own(&["propagationPolicy"]).unwrap_or_else(|| call.parameters.propagation.clone());
    let orphan = at(body, &["orphanDependents"]).and_then(Value::as_bool).unwrap_or_default();
    Ok(DeleteOptions {
        grace: at(body, &["gracePeriodSeconds"]).and_then(Value::as_i64).or(call.parameters.grace),
        uid: own(&["preconditions", "uid"]),
        version: own(&["preconditions", "resourceVersion"]),
        orphan: orphan || propagation == "Orphan",
        dry_run: call.parameters.dry_run || !object::items(body, &["dryRun"]).is_empty(),
    })
}

/// DELETE of one object: the object while it winds down, else a `Status`.
pub(super) fn delete(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let options = delete_options(call)?;
    match shared.registry().delete(objects.place(), &options)? {
        Deletion::Begun(object) => Ok(call.render(objects.resource, &object, StatusCode::OK)),
        Deletion::Done(object) => {
            let row = objects.resource.definition();
            let details = json!({"name": objects.name(), "group": row.group, "kind": row.plural,
                                 "uid": object::uid(&object.value)});
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                                "details": details});
            Ok(json_response(StatusCode::OK, status.to_string()))
        }
    }
}

/// DELETE of a collection: every object the selectors match.
pub(super) fn delete_collection(
    shared: &Shared,
    objects: &Objects,
    call: &Call,
) -> Result<Response, ApiError> {
    let options = delete_options(call)?;
    let filter = Filter::of(objects, &call.parameters)?;
    let (matching, version) = snapshot(shared, objects.resource, &filter, &Default::default())?;
    for object in &matching {
        let (namespace, name) = (object::namespace(&object.value), object::name(&object.value));
        let place = Place::new(objects.resource, Some(namespace), name);
        match shared.registry().delete(place, &options) {
            Ok(_) | Err(ApiError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = json!({"resourceVersion": version.to_string()});
    Ok(json_response(StatusCode::OK, call.view().list(objects.resource, metadata, &matching)))
}

//! GET of one object and of a collection.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::request::{Objects, Parameters, VersionMatch};
use super::view::View;
use super::{Call, json_response, scale};
use crate::api_server::object::{Object, set};
use crate::api_server::paging::Page;
use crate::api_server::rules::Place;
use crate::api_server::selector::{FieldSelector, LabelSelector};
use crate::api_server::shared::Shared;
use crate::api_server::{ApiError, Resource};

/// Which objects of a kind a collection request means.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// The scope and selectors of a request.
    pub(super) fn of(objects: &Objects, parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self {
            namespace: objects.namespace.clone(),
            labels: LabelSelector::parse(&parameters.label_selector)?,
            fields: FieldSelector::parse(objects.resource, &parameters.field_selector)?,
        })
    }

    /// Whether the object is among those meant.
    pub(super) fn matches(&self, value: &Value) -> bool {
        let space = self.namespace.as_deref();
        space.is_none_or(|space| crate::api_server::object::namespace(value) == space)
            && self.labels.matches(value)
            && self.fields.matches(value)
    }

    fn selects(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }
}

/// The object, or its scale.
pub(super) fn get(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let object = shared.registry().get(objects.place())?;
    if objects.subresource.as_deref() == Some("scale") {
        return Ok(json_response(StatusCode::OK, scale::of(&object.value).to_string()));
    }
    Ok(call.render(objects.resource, &object, StatusCode::OK))
}

/// A page of a collection, all pages at one resource version.
pub(super) fn list(shared: &Shared, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let filter = Filter::of(objects, &call.parameters)?;
    let page = if call.parameters.next.is_empty() {
        let (all, version) = snapshot(shared, objects.resource, &filter, &call.parameters)?;
        shared.snapshots().first(all, version, call.parameters.limit)
    } else {
        shared.snapshots().next(&call.parameters.next, call.parameters.limit)?
    };
    let body = call.view().list(objects.resource, list_metadata(&page, &filter), &page.objects);
    Ok(json_response(StatusCode::OK, body))
}

fn list_metadata(page: &Page, filter: &Filter) -> Value {
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some((token, rest)) = &page.next {
        set(&mut metadata, "continue", json!(token));
        if !filter.selects() {
            set(&mut metadata, "remainingItemCount", json!(rest));
        }
    }
    metadata
}

/// The matching objects at the version asked for: the present one, unless an exact version is wanted.
pub(super) fn snapshot(
    shared: &Shared,
    resource: Resource,
    filter: &Filter,
    parameters: &Parameters,
) -> Result<(Vec<Arc<Object>>, u64), ApiError> {
    let registry = shared.registry();
    let current = registry.store.version();
    let asked = parameters.version.unwrap_or(0);
    if asked > current {
        return Err(ApiError::TooLargeResourceVersion { asked, current });
    }
    let namespace = filter.namespace.as_deref();
    // A limit with a version and no match rule means exactly that version (the API's rule for old clients).
    let exact = match parameters.version_match {
        Some(rule) => rule == VersionMatch::Exact,
        None => parameters.limit > 0 && asked > 0,
    };
    let matching = |object: &&Arc<Object>| filter.matches(&object.value);
    if exact && asked != current {
        let all = registry.store.list_at(resource, namespace, asked)?;
        return Ok((all.iter().filter(matching).cloned().collect(), asked));
    }
    Ok((registry.store.list(resource, namespace).filter(matching).cloned().collect(), current))
}

impl Objects {
    /// Where the named object is.
    pub(super) fn place(&self) -> Place<'_> {
        Place::new(self.resource, self.namespace.as_deref(), self.name())
    }
}

impl Call {
    /// The form the client wants.
    pub(super) fn view(&self) -> View {
        View::negotiate(self.header(header::ACCEPT), &self.parameters.include_object)
    }

    /// One object in that form.
    pub(super) fn render(&self, resource: Resource, object: &Object, code: StatusCode) -> Response {
        json_response(code, self.view().object(resource, object, true))
    }
}

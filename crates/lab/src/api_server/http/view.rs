//! In which form the client wants objects: as they are, as a Table, or metadata only.
//!
//! Negotiated by `Accept` parameters (`as=Table;v=v1;g=meta.k8s.io`), first known form wins.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::table;
use crate::api_server::Resource;
use crate::api_server::object::{self, Object};

const META: &str = "meta.k8s.io/v1";

/// What goes with each row of a Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// The form of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    Json,
    Table(Include),
    Metadata,
}

impl View {
    /// Picks the form from the `Accept` header and `includeObject=`.
    pub(super) fn negotiate(accept: &str, include: &str) -> Self {
        for offer in accept.split(',') {
            let has = |parameter: &str| offer.split(';').any(|part| part.trim() == parameter);
            if !offer.trim().starts_with("application/json") {
                continue;
            }
            if has("as=Table") && has("v=v1") {
                return Self::Table(match include {
                    "None" => Include::Nothing,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                });
            }
            if (has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList")) && has("v=v1") {
                return Self::Metadata;
            }
            if !offer.contains("as=") {
                return Self::Json;
            }
        }
        Self::Json
    }

    /// One object. `first` says whether a Table has to bring its column definitions.
    pub(super) fn object(self, resource: Resource, object: &Object, first: bool) -> Bytes {
        match self {
            Self::Json => object.json(),
            Self::Metadata => Bytes::from(metadata_only(&object.value).to_string()),
            Self::Table(include) => {
                let version = object.version.to_string();
                let rows = vec![table::row(resource, &object.value, include)];
                let columns = first.then(|| table::columns(resource));
                let metadata = json!({ "resourceVersion": version });
                Bytes::from(table::table(metadata, columns, rows).to_string())
            }
        }
    }

    /// A list with the given list metadata. JSON bodies are joined from the objects' stored text.
    pub(super) fn list(
        self,
        resource: Resource,
        metadata: Value,
        objects: &[std::sync::Arc<Object>],
    ) -> Vec<u8> {
        let row = resource.definition();
        let (version, kind) = match self {
            Self::Table(include) => {
                let rows =
                    objects.iter().map(|object| table::row(resource, &object.value, include)).collect();
                let table = table::table(metadata, Some(table::columns(resource)), rows);
                return table.to_string().into_bytes();
            }
            Self::Json => (resource.api_version(), format!("{}List", row.kind)),
            Self::Metadata => (META.to_owned(), "PartialObjectMetadataList".to_owned()),
        };
        let items: Vec<Bytes> = objects.iter().map(|object| self.object(resource, object, false)).collect();
        let size: usize = items.iter().map(|item| item.len() + 1).sum();
        let mut body =
            format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#)
                .into_bytes();
        body.reserve(size + 2);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(item);
        }
        body.extend_from_slice(b"]}\n");
        body
    }

    /// The empty object of a bookmark: only type and metadata.
    pub(super) fn bookmark(self, resource: Resource, metadata: Value) -> Value {
        let (version, kind) = match self {
            Self::Json => (resource.api_version(), resource.definition().kind),
            Self::Metadata => (META.to_owned(), "PartialObjectMetadata"),
            Self::Table(_) => return table::table(metadata, None, Vec::new()),
        };
        json!({"kind": kind, "apiVersion": version, "metadata": metadata})
    }
}

/// `PartialObjectMetadata` of an object.
pub(super) fn metadata_only(value: &Value) -> Value {
    let metadata = object::at(value, &["metadata"]).cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(View::negotiate(kubectl, ""), View::Table(Include::Metadata));
        assert_eq!(View::negotiate(kubectl, "Object"), View::Table(Include::Object));
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(View::negotiate(partial, ""), View::Metadata);
        assert_eq!(View::negotiate("application/vnd.kubernetes.protobuf, application/json", ""), View::Json);
        assert_eq!(View::negotiate("", ""), View::Json);
    }

    #[test]
    fn a_joined_list_is_json() {
        let objects = [1, 2].map(|version| std::sync::Arc::new(Object::new(json!({"a": version}), version)));
        let body = View::Json.list(Resource::Pods, json!({"resourceVersion": "9"}), &objects);
        let list: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list["kind"], "PodList");
        assert_eq!(list["items"][1]["metadata"]["resourceVersion"], "2");
    }
}

//! The patch types of the Kubernetes API, chosen by content type. Pure: object and patch in, object out.

mod json_patch;
mod merge;
mod strategic;

use serde_json::Value;

use super::{ApiError, Resource};

pub(crate) use merge::merge;

/// A parsed patch body.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own: lists merge by key, with `$` directives.
    Strategic(Value),
    /// Server-side apply, taken as a merge by key that creates what is missing. Ownership is not tracked.
    Apply(Value),
}

impl Patch {
    /// Parses a body by its content type. Apply bodies are read as JSON, a subset of YAML and what clients send.
    pub(crate) fn parse(content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let kind: fn(Value) -> Self = match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            other => return Err(ApiError::UnsupportedMediaType(other.to_owned())),
        };
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::BadRequest(format!("patch body is not JSON: {error}")))?;
        Ok(kind(value))
    }

    /// The object with the patch applied.
    pub(crate) fn apply(&self, resource: Resource, object: &Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(operations) => json_patch::apply(object, operations),
            Self::Merge(patch) => {
                let mut patched = object.clone();
                merge(&mut patched, patch);
                Ok(patched)
            }
            Self::Strategic(patch) | Self::Apply(patch) => strategic::apply(resource, object, patch),
        }
    }
}

//! Refusals as Kubernetes words them: a `Status` object with a reason and an HTTP code.
//!
//! Reasons and codes: `metav1.StatusReason` in k8s.io/apimachinery.

use serde_json::{Value, json};

use super::resource::Resource;

/// Why a request was refused. Each variant is one `metav1.StatusReason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 404: the object does not exist.
    #[error("{} \"{name}\" not found", resource.qualified())]
    NotFound {
        /// The kind asked for.
        resource: Resource,
        /// The name asked for.
        name: String,
    },
    /// 404: the server serves no such path.
    #[error("the server could not find the requested resource")]
    UnknownPath,
    /// 409: an object of this name exists.
    #[error("{} \"{name}\" already exists", resource.qualified())]
    AlreadyExists {
        /// The kind.
        resource: Resource,
        /// The name taken.
        name: String,
    },
    /// 409: the object changed since it was read.
    #[error("Operation cannot be fulfilled on {} \"{name}\": {message}", resource.qualified())]
    Conflict {
        /// The kind.
        resource: Resource,
        /// The object's name.
        name: String,
        /// What collided.
        message: String,
    },
    /// 422: the object breaks a rule of its kind.
    #[error("{kind} \"{name}\" is invalid: {field}: {message}")]
    Invalid {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Path of the field at fault.
        field: String,
        /// The rule.
        message: String,
    },
    /// 400: the request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// 401: nobody the server knows.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403: understood and refused.
    #[error("{0}")]
    Forbidden(String),
    /// 405: the path exists, the verb does not.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 410: the resource version asked for is no longer known.
    #[error("{0}")]
    Expired(String),
    /// 415: a body type the server does not read.
    #[error("the body of the request was in an unknown format: {0}")]
    UnsupportedMediaType(String),
    /// 504: a resource version from the future.
    #[error("Timeout: Too large resource version: {asked}, current: {current}")]
    TooLargeResourceVersion {
        /// What the client asked for.
        asked: u64,
        /// What the server is at.
        current: u64,
    },
    /// A failure ordered by [`super::Faults`].
    #[error("failure ordered by the test")]
    Ordered(u16),
}

impl ApiError {
    /// HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::NotFound { .. } | Self::UnknownPath => 404,
            Self::AlreadyExists { .. } | Self::Conflict { .. } => 409,
            Self::Invalid { .. } => 422,
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::MethodNotAllowed => 405,
            Self::Expired(_) => 410,
            Self::UnsupportedMediaType(_) => 415,
            Self::TooLargeResourceVersion { .. } => 504,
            Self::Ordered(code) => *code,
        }
    }

    /// `metav1.StatusReason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::UnknownPath => "NotFound",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } => "Conflict",
            Self::Invalid { .. } => "Invalid",
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::Expired(_) => "Expired",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::TooLargeResourceVersion { .. } => "Timeout",
            Self::Ordered(429) => "TooManyRequests",
            Self::Ordered(_) => "InternalError",
        }
    }

    /// The `Status` object sent as the body, or inside an `ERROR` watch event.
    pub fn status(&self) -> Value {
        let mut details = match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. } => {
                json!({"name": name, "group": resource.definition().group, "kind": resource.definition().plural})
            }
            Self::Invalid { kind, name, field, message } => json!({
                "name": name, "kind": kind,
                "causes": [{"reason": "FieldValueInvalid", "message": message, "field": field}],
            }),
            Self::TooLargeResourceVersion { .. } => json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }),
            _ => json!({}),
        };
        if let Some(map) = details.as_object_mut() {
            map.retain(|_, value| value != "");
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": self.reason(), "details": details, "code": self.code(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_names_its_kind_and_group() {
        let error = ApiError::NotFound { resource: Resource::Deployments, name: "web".into() };
        let status = error.status();
        assert_eq!(status["message"], "deployments.apps \"web\" not found");
        assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
        assert_eq!(status["code"], 404);
    }
}

//! What a request asks for: its path, verb and query, parsed and checked. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;

use crate::api_server::{ApiError, Resource};

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Discovery, version, health, OpenAPI: by path segments.
    Document(Vec<String>),
    /// A collection or an object.
    Objects(Objects),
}

/// A collection, an object or a subresource.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Objects {
    pub(super) resource: Resource,
    /// `None`: cluster-scoped, or all namespaces.
    pub(super) namespace: Option<String>,
    /// `None`: the collection.
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    /// Takes a request path apart; an unknown group, version, kind or subresource is 404.
    pub(super) fn parse(path: &str) -> Result<Self, ApiError> {
        let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(Self::Document(segments)),
        };
        let find = |plural: &str| Resource::from_path(group, version, plural);
        let objects = |resource, namespace: Option<&str>, rest: &[&str]| {
            let owned = |text: &&str| (*text).to_owned();
            let (namespace, name) = (namespace.map(str::to_owned), rest.first().map(owned));
            Objects { resource, namespace, name, subresource: rest.get(1).map(owned) }
        };
        let found = match rest {
            ["namespaces", namespace, plural, rest @ ..] if find(plural).is_some() => {
                find(plural).map(|resource| objects(resource, Some(namespace), rest))
            }
            [plural, rest @ ..] => find(plural).map(|resource| objects(resource, None, rest)),
            [] => None,
        };
        found.filter(|objects| objects.is_served(rest.len())).map(Self::Objects).ok_or(ApiError::UnknownPath)
    }
}

impl Objects {
    fn is_served(&self, segments: usize) -> bool {
        let row = self.resource.definition();
        let scope = row.namespaced || self.namespace.is_none();
        let object = row.namespaced == self.namespace.is_some() || self.name.is_none();
        let length = segments <= if self.namespace.is_some() { 5 } else { 3 };
        let subresource = self.subresource.as_deref().is_none_or(|name| row.subresources.contains(&name));
        scope && object && length && subresource
    }

    /// The object's name; empty for a collection.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// Percent-decoding (RFC 3986 §2.1); what does not decode stays as it is.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let (b'%', [high, low, after @ ..]) = (*first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(high * 16 + low);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kubernetes' request verbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The verb of a method on a target.
    pub(super) fn of(method: &Method, objects: &Objects, parameters: &Parameters) -> Result<Self, ApiError> {
        let named = objects.name.is_some();
        let subresource = objects.subresource.as_deref();
        match (method.as_str(), named) {
            ("GET", true) => Ok(Self::Get),
            ("GET", false) if parameters.watch => Ok(Self::Watch),
            ("GET", false) => Ok(Self::List),
            ("POST", false) => Ok(Self::Create),
            ("POST", true) if matches!(subresource, Some("binding" | "eviction")) => Ok(Self::Create),
            ("PUT", true) => Ok(Self::Update),
            ("PATCH", true) => Ok(Self::Patch),
            ("DELETE", true) if subresource.is_none() => Ok(Self::Delete),
            ("DELETE", false) => Ok(Self::DeleteCollection),
            _ => Err(ApiError::MethodNotAllowed),
        }
    }

    /// As audit logs and RBAC name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// How exact `resourceVersion` is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// The query parameters the server reads; others are ignored, as by the real one.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub(super) watch: bool,
    pub(super) allow_bookmarks: bool,
    pub(super) send_initial_events: Option<bool>,
    /// `None`: not given. `Some(0)`: any version will do.
    pub(super) version: Option<u64>,
    pub(super) version_match: Option<VersionMatch>,
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    /// 0: no limit.
    pub(super) limit: usize,
    pub(super) next: String,
    pub(super) timeout: Option<Duration>,
    pub(super) dry_run: bool,
    pub(super) include_object: String,
    pub(super) grace: Option<i64>,
    pub(super) propagation: String,
}

impl Parameters {
    /// Parses a query string; a value of the wrong type is 400.
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let uri = format!("/?{query}").parse().map_err(|_| ApiError::BadRequest("bad query".to_owned()))?;
        let query: axum::extract::Query<BTreeMap<String, String>> = axum::extract::Query::try_from_uri(&uri)
            .map_err(|error| ApiError::BadRequest(format!("bad query: {error}")))?;
        let mut parameters = Self::default();
        for (key, value) in query.0.into_iter().filter(|(_, value)| !value.is_empty()) {
            parameters.set(&key, value)?;
        }
        Ok(parameters)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), ApiError> {
        let boolean = || matches!(value.as_str(), "true" | "1");
        match key {
            "watch" => self.watch = boolean(),
            "allowWatchBookmarks" => self.allow_bookmarks = boolean(),
            "sendInitialEvents" => self.send_initial_events = Some(boolean()),
            "resourceVersion" => self.version = Some(number(key, &value)?),
            "resourceVersionMatch" => {
                self.version_match = Some(match value.as_str() {
                    "Exact" => VersionMatch::Exact,
                    "NotOlderThan" => VersionMatch::NotOlderThan,
                    _ => return Err(ApiError::BadRequest(format!("invalid {key}: {value}"))),
                });
            }
            "labelSelector" => self.label_selector = value,
            "fieldSelector" => self.field_selector = value,
            "limit" => self.limit = number(key, &value)?,
            "continue" => self.next = value,
            "timeoutSeconds" => self.timeout = Some(Duration::from_secs(number(key, &value)?)),
            "dryRun" => self.dry_run = true,
            "includeObject" => self.include_object = value,
            "gracePeriodSeconds" => self.grace = Some(number(key, &value)?),
            "propagationPolicy" => self.propagation = value,
            _ => {}
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| ApiError::BadRequest(format!("invalid {key}: {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Resource, Option<String>, Option<String>, Option<String>);

    fn objects(path: &str) -> Option<Parts> {
        match Target::parse(path) {
            Ok(Target::Objects(o)) => Some((o.resource, o.namespace, o.name, o.subresource)),
            _ => None,
        }
    }

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let text = |text: &str| Some(text.to_owned());
        for (path, expected) in [
            ("/api/v1/services", (Resource::Services, None, None, None)),
            ("/api/v1/namespaces", (Resource::Namespaces, None, None, None)),
            ("/api/v1/namespaces/a", (Resource::Namespaces, None, text("a"), None)),
            ("/api/v1/namespaces/a/finalize", (Resource::Namespaces, None, text("a"), text("finalize"))),
            ("/api/v1/namespaces/a/pods", (Resource::Pods, text("a"), None, None)),
            ("/api/v1/namespaces/a/pods/b/status", (Resource::Pods, text("a"), text("b"), text("status"))),
            ("/apis/apps/v1/deployments/", (Resource::Deployments, None, None, None)),
            ("/api/v1/nodes/n%2d1", (Resource::Nodes, None, text("n-1"), None)),
        ] {
            assert_eq!(objects(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_not_served_is_not_found() {
        for path in [
            "/api/v1/widgets",
            "/api/v2/pods",
            "/apis/apps/v1beta1/deployments",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/exec",
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/pods/b/status/c",
        ] {
            assert_eq!(Target::parse(path), Err(ApiError::UnknownPath), "{path}");
        }
    }

    #[test]
    fn queries_are_typed() {
        let parsed =
            Parameters::parse("watch=1&labelSelector=a%3Db%2Cc&limit=500&resourceVersion=&x=y").unwrap();
        assert!(parsed.watch);
        assert_eq!(parsed.label_selector, "a=b,c");
        assert_eq!((parsed.limit, parsed.version), (500, None));
        for bad in ["resourceVersion=x", "limit=-1", "resourceVersionMatch=Perhaps"] {
            assert!(Parameters::parse(bad).is_err(), "{bad}");
        }
    }
}

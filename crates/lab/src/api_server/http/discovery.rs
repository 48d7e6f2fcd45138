//! The documents clients read before they ask for objects: groups, kinds, version, health, OpenAPI.
//!
//! Aggregated discovery (one document) is not served; clients fall back to these.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::openapi;
use crate::api_server::object::set;
use crate::api_server::{ApiError, Resource};

/// The version clients negotiate behaviour from.
const VERSION: (&str, &str, &str) = ("1", "32", "v1.32.0");

/// Content type and body of a non-object path.
pub(super) fn document(path: &[String], accept: &str) -> Result<(String, Vec<u8>), ApiError> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let json = |value: Value| Ok(("application/json".to_owned(), value.to_string().into_bytes()));
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(("text/plain".to_owned(), b"ok".to_vec())),
        ["version"] => json(version()),
        ["api"] => json(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => json(json!({"kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups().into_iter().map(|(name, version)| group(name, version)).collect::<Vec<_>>()})),
        ["apis", name] => match groups().get(*name) {
            Some(version) => {
                let mut document = group(name, version);
                set(&mut document, "kind", json!("APIGroup"));
                set(&mut document, "apiVersion", json!("v1"));
                json(document)
            }
            None => Err(ApiError::UnknownPath),
        },
        ["api", "v1"] => json(resources("", "v1")),
        ["apis", group, version] if groups().get(group) == Some(version) => json(resources(group, version)),
        ["openapi", "v2"] => Ok(openapi::v2(accept)),
        ["openapi", "v3"] => json(openapi::v3_index()),
        ["openapi", "v3", "api", "v1"] => json(openapi::v3("", "v1")),
        ["openapi", "v3", "apis", group, version] if groups().get(group) == Some(version) => {
            json(openapi::v3(group, version))
        }
        [] => json(json!({"paths": ["/api", "/apis", "/healthz", "/openapi/v2", "/openapi/v3", "/version"]})),
        _ => Err(ApiError::UnknownPath),
    }
}

/// The named groups with their one version.
pub(super) fn groups() -> BTreeMap<&'static str, &'static str> {
    let rows = Resource::ALL.into_iter().map(Resource::definition).filter(|row| !row.group.is_empty());
    rows.map(|row| (row.group, row.version)).collect()
}

fn version() -> Value {
    let (major, minor, release) = VERSION;
    json!({"major": major, "minor": minor, "gitVersion": release, "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64"})
}

fn group(name: &str, version: &str) -> Value {
    let served = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [served], "preferredVersion": served})
}

fn resources(group: &str, version: &str) -> Value {
    let rows = Resource::ALL.into_iter().map(Resource::definition).filter(|row| row.group == group);
    let mut list = Vec::new();
    for row in rows {
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let mut entry = json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
                               "kind": row.kind, "verbs": verbs, "shortNames": row.short});
        if row.in_all {
            set(&mut entry, "categories", json!(["all"]));
        }
        list.push(entry);
        for subresource in row.subresources {
            list.push(subresource_entry(row.plural, subresource, row.namespaced, row.kind));
        }
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}

fn subresource_entry(plural: &str, subresource: &str, namespaced: bool, kind: &str) -> Value {
    let mut entry = json!({"name": format!("{plural}/{subresource}"), "singularName": "", "namespaced": namespaced,
                           "kind": kind, "verbs": ["get", "patch", "update"]});
    let (group, version, kind, verbs): (_, _, _, &[&str]) = match subresource {
        "scale" => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        "binding" => ("", "v1", "Binding", &["create"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        _ => return entry,
    };
    set(&mut entry, "kind", json!(kind));
    set(&mut entry, "verbs", json!(verbs));
    set(&mut entry, "group", json!(group));
    set(&mut entry, "version", json!(version));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Value {
        let path: Vec<_> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        serde_json::from_slice(&document(&path, "").unwrap().1).unwrap()
    }

    #[test]
    fn every_kind_is_announced_in_its_group() {
        for resource in Resource::ALL {
            let row = resource.definition();
            let prefix = if row.group.is_empty() { "/api/" } else { "/apis/" };
            let list = get(&format!("{prefix}{}", resource.api_version()));
            assert_eq!(list["groupVersion"], resource.api_version());
            let found = list["resources"].as_array().unwrap().iter().any(|entry| entry["name"] == row.plural);
            assert!(found, "{resource:?}");
        }
    }

    #[test]
    fn unknown_documents_are_not_found() {
        for path in [vec!["apis", "batch"], vec!["apis", "apps", "v2"], vec!["metrics"]] {
            let path: Vec<_> = path.into_iter().map(str::to_owned).collect();
            assert_eq!(document(&path, "").unwrap_err(), ApiError::UnknownPath);
        }
    }
}

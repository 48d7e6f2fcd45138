//! As much OpenAPI as kubectl needs to be content: that writes take `fieldValidation`, and no schemas.
//!
//! Without schemas kubectl validates nothing itself and takes merge keys from its built-in types.

use serde_json::{Map, Value, json};

use super::discovery::groups;
use crate::api_server::Resource;

/// The empty version 2 document: JSON, or the protobuf text field `swagger: "2.0"` for those who ask for it.
pub(super) fn v2(accept: &str) -> (String, Vec<u8>) {
    if accept.contains("com.github.proto-openapi.spec.v2") {
        let content_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return (content_type.to_owned(), b"\n\x032.0".to_vec());
    }
    let empty = json!({"swagger": "2.0", "info": {"title": "lab", "version": "v1"}, "paths": {}});
    ("application/json".to_owned(), empty.to_string().into_bytes())
}

/// Which version 3 documents there are.
pub(super) fn v3_index() -> Value {
    let named = groups().into_iter().map(|(group, version)| format!("apis/{group}/{version}"));
    let paths = named.chain(["api/v1".to_owned()]).map(|path| {
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash=0")});
        (path, url)
    });
    json!({"paths": paths.collect::<Map<_, _>>()})
}

/// The version 3 document of a group: each kind's create and patch operation.
pub(super) fn v3(group: &str, version: &str) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    let mut paths = Map::new();
    for row in Resource::ALL.into_iter().map(Resource::definition).filter(|row| row.group == group) {
        let prefix =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let space = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let kind = json!({"group": row.group, "version": row.version, "kind": row.kind});
        let operation = |action: &str| {
            json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind,
                   "parameters": parameters, "responses": {}})
        };
        paths.insert(format!("{prefix}{space}/{}", row.plural), json!({"post": operation("post")}));
        let object = json!({"patch": operation("patch"), "put": operation("put")});
        paths.insert(format!("{prefix}{space}/{}/{{name}}", row.plural), object);
    }
    json!({"openapi": "3.0.0", "info": {"title": "lab", "version": "v1"}, "paths": paths, "components": {"schemas": {}}})
}

//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. The columns themselves are in `columns`.

use serde_json::{Value, json};

use super::columns::{self, Column};
use super::view::{Include, metadata_only};
use crate::api_server::Resource;

/// The column definitions of a kind.
pub(super) fn columns(resource: Resource) -> Value {
    let define = |column: &Column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({"name": column.name, "type": column.kind, "format": format, "description": "",
               "priority": i32::from(column.wide)})
    };
    columns::of(resource).iter().map(define).collect()
}

/// The row of an object.
pub(super) fn row(resource: Resource, object: &Value, include: Include) -> Value {
    let cells: Vec<Value> = columns::of(resource).iter().map(|column| (column.cell)(object)).collect();
    match include {
        Include::Nothing => json!({ "cells": cells, "object": null }),
        Include::Metadata => json!({ "cells": cells, "object": metadata_only(object) }),
        Include::Object => json!({ "cells": cells, "object": object }),
    }
}

/// A Table; later events of a watch leave the definitions out.
pub(super) fn table(metadata: Value, columns: Option<Value>, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
           "columnDefinitions": columns.unwrap_or_else(|| json!([])), "rows": rows})
}

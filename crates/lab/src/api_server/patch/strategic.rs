//! Strategic merge patch, which `kubectl apply` sends for built-in kinds.
//!
//! Rules: "sig-api-machinery/strategic-merge-patch.md" in the Kubernetes community repository. How a list
//! merges is a `patchStrategy`/`patchMergeKey` tag on the Go field; [`list_rule`] holds those of the kinds served.

use serde_json::{Map, Value};

use crate::api_server::{ApiError, Resource};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// How a list field merges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ListRule {
    /// The patch's list replaces the object's.
    Replace,
    /// A set of plain values: the union.
    Primitives,
    /// Elements are maps known by this key.
    Keyed(&'static str),
}

/// The rule of the list at `path` (keys from the root; list positions leave no trace).
fn list_rule(resource: Resource, path: &[&str]) -> ListRule {
    let (parent, field) = match path {
        [.., parent, field] => (*parent, *field),
        [field] => ("", *field),
        [] => return ListRule::Replace,
    };
    let in_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match field {
        "ports" if in_container => ListRule::Keyed("containerPort"),
        "ports" if resource == Resource::Services && parent == "spec" => ListRule::Keyed("port"),
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates"
            if parent == "spec" =>
        {
            ListRule::Keyed("name")
        }
        "env" if in_container => ListRule::Keyed("name"),
        "volumeMounts" if in_container => ListRule::Keyed("mountPath"),
        "volumeDevices" if in_container => ListRule::Keyed("devicePath"),
        "hostAliases" if parent == "spec" => ListRule::Keyed("ip"),
        "topologySpreadConstraints" if parent == "spec" => ListRule::Keyed("topologyKey"),
        "podIPs" | "hostIPs" if parent == "status" => ListRule::Keyed("ip"),
        "conditions" | "addresses" if parent == "status" => ListRule::Keyed("type"),
        "secrets" | "imagePullSecrets" if resource == Resource::ServiceAccounts => ListRule::Keyed("name"),
        "ownerReferences" if parent == "metadata" => ListRule::Keyed("uid"),
        "finalizers" if parent == "metadata" => ListRule::Primitives,
        "podCIDRs" if resource == Resource::Nodes => ListRule::Primitives,
        _ => ListRule::Replace,
    }
}

/// The object with `patch` merged into it.
pub(crate) fn apply(resource: Resource, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(refused("a strategic merge patch is an object"));
    };
    let mut merged = object.clone();
    let mut path = Vec::new();
    Merge { resource }.map(&mut merged, patch, &mut path)?;
    Ok(Value::Object(merged))
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::BadRequest(message.into())
}

fn directive(patch: &Value) -> Option<&str> {
    patch.get(DIRECTIVE).and_then(Value::as_str)
}

struct Merge {
    resource: Resource,
}

impl Merge {
    fn map<'p>(
        &self,
        target: &mut Map<String, Value>,
        patch: &'p Map<String, Value>,
        path: &mut Vec<&'p str>,
    ) -> Result<(), ApiError> {
        match patch.get(DIRECTIVE).and_then(Value::as_str) {
            Some("replace") => {
                *target = plain(patch);
                return Ok(());
            }
            Some("delete") => {
                target.clear();
                return Ok(());
            }
            Some("merge") | None => {}
            Some(other) => return Err(refused(format!("unknown {DIRECTIVE}: {other}"))),
        }
        if let Some(Value::Array(keep)) = patch.get(RETAIN) {
            target.retain(|key, _| keep.iter().any(|kept| kept == key));
        }
        for (key, value) in patch {
            if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
                if let (Some(Value::Array(list)), Value::Array(gone)) = (target.get_mut(field), value) {
                    list.retain(|element| !gone.contains(element));
                }
            } else if !key.starts_with('$') {
                path.push(key);
                self.field(target, key, value, patch, path)?;
                path.pop();
            }
        }
        self.order_untouched(target, patch, path)
    }

    fn field<'p>(
        &self,
        target: &mut Map<String, Value>,
        key: &str,
        value: &'p Value,
        siblings: &'p Map<String, Value>,
        path: &mut Vec<&'p str>,
    ) -> Result<(), ApiError> {
        match value {
            Value::Null => drop(target.remove(key)),
            Value::Object(_) if directive(value) == Some("delete") => drop(target.remove(key)),
            Value::Object(patch) => {
                let mut child = match target.remove(key) {
                    Some(Value::Object(child)) => child,
                    _ => Map::new(),
                };
                self.map(&mut child, patch, path)?;
                target.insert(key.to_owned(), Value::Object(child));
            }
            Value::Array(patch) => {
                let present = match target.remove(key) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                };
                let order = siblings.get(&format!("{ORDER}{key}")).and_then(Value::as_array);
                let list = self.list(present, patch, order, path)?;
                target.insert(key.to_owned(), Value::Array(list));
            }
            plain => drop(target.insert(key.to_owned(), plain.clone())),
        }
        Ok(())
    }

    /// `$setElementOrder` may come alone, for a list of which only the order changes.
    fn order_untouched<'p>(
        &self,
        target: &mut Map<String, Value>,
        patch: &'p Map<String, Value>,
        path: &mut Vec<&'p str>,
    ) -> Result<(), ApiError> {
        for (key, value) in patch {
            let Some(field) = key.strip_prefix(ORDER) else { continue };
            if patch.contains_key(field) {
                continue;
            }
            if let (Some(Value::Array(list)), Value::Array(order)) = (target.get_mut(field), value) {
                path.push(field);
                let present = std::mem::take(list);
                *list = self.list(present, &[], Some(order), path)?;
                path.pop();
            }
        }
        Ok(())
    }

    fn list<'p>(
        &self,
        present: Vec<Value>,
        patch: &'p [Value],
        order: Option<&Vec<Value>>,
        path: &mut Vec<&'p str>,
    ) -> Result<Vec<Value>, ApiError> {
        let rule = list_rule(self.resource, path);
        let live = present.clone();
        let merged = match rule {
            ListRule::Replace if patch.is_empty() && order.is_some() => present,
            ListRule::Replace => patch.to_vec(),
            ListRule::Primitives => {
                let mut merged = present;
                merged.extend(patch.iter().filter(|element| !live.contains(element)).cloned());
                merged
            }
            ListRule::Keyed(key) => self.keyed(present, patch, key, path)?,
        };
        Ok(match order {
            Some(order) => reorder(merged, order, &live, rule),
            None => merged,
        })
    }

    fn keyed<'p>(
        &self,
        mut merged: Vec<Value>,
        patch: &'p [Value],
        key: &str,
        path: &mut Vec<&'p str>,
    ) -> Result<Vec<Value>, ApiError> {
        if patch.iter().any(|element| directive(element) == Some("replace") && element.get(key).is_none()) {
            return Ok(patch.iter().filter(|element| directive(element).is_none()).cloned().collect());
        }
        for element in patch {
            let Value::Object(fields) = element else {
                return Err(refused(format!("element of {} is not an object", path.join("."))));
            };
            let id = fields.get(key).ok_or_else(|| {
                refused(format!("element of {} without its merge key {key}", path.join(".")))
            })?;
            if directive(element) == Some("delete") {
                merged.retain(|present| present.get(key) != Some(id));
                continue;
            }
            match merged.iter_mut().find(|present| present.get(key) == Some(id)) {
                Some(Value::Object(present)) => self.map(present, fields, path)?,
                _ => merged.push(Value::Object(plain(fields))),
            }
        }
        Ok(merged)
    }
}

/// A patch as an object: without directives and nulls.
fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    let kept = patch.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    kept.map(|(key, value)| match value {
        Value::Object(child) => (key.clone(), Value::Object(plain(child))),
        other => (key.clone(), other.clone()),
    })
    .collect()
}

/// Puts the elements named by `order` in that order; the others keep their place among them as in `live`.
fn reorder(merged: Vec<Value>, order: &[Value], live: &[Value], rule: ListRule) -> Vec<Value> {
    let id = |element: &Value| match rule {
        ListRule::Keyed(key) => element.get(key).cloned().unwrap_or(Value::Null),
        _ => element.clone(),
    };
    let place = |element: &Value, list: &[Value]| list.iter().position(|other| id(other) == id(element));
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|element| place(element, order).is_some());
    named.sort_by_key(|element| place(element, order));
    others.sort_by_key(|element| place(element, live));
    let mut from = 0;
    for other in others {
        let mine = place(&other, live);
        let later = |element: &Value| place(element, live).is_some_and(|theirs| Some(theirs) > mine);
        let at = named.iter().skip(from).position(later).map_or(named.len(), |offset| from + offset);
        named.insert(at, other);
        from = at + 1;
    }
    named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(patch: Value) -> Value {
        let service = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}}, "spec": {"ports": [
            {"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080},
            {"name": "https", "port": 443, "nodePort": 30443},
        ]}});
        apply(Resource::Services, &service, &patch).unwrap()
    }

    #[test]
    fn service_ports_merge_by_port_and_keep_what_the_patch_leaves_out() {
        let merged = service(json!({"spec": {
            "$setElementOrder/ports": [{"port": 8443}, {"port": 80}],
            "ports": [{"port": 80, "targetPort": 9090}, {"port": 8443, "name": "alt"}, {"port": 443, "$patch": "delete"}],
        }}));
        assert_eq!(
            merged["spec"]["ports"],
            json!([{"port": 8443, "name": "alt"}, {"name": "http", "port": 80, "nodePort": 30080, "targetPort": 9090}])
        );
        assert!(merged["spec"].get("$setElementOrder/ports").is_none());
    }

    #[test]
    fn null_removes_a_key_and_a_new_element_carries_no_nulls() {
        let merged = service(
            json!({"metadata": {"labels": {"x": null}}, "spec": {"ports": [{"port": 1, "name": null}]}}),
        );
        assert_eq!(merged["metadata"]["labels"], json!({"y": "2"}));
        assert_eq!(merged["spec"]["ports"][2], json!({"port": 1}));
    }

    #[test]
    fn primitive_lists_are_unions_with_deletions() {
        let merged =
            service(json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}));
        assert_eq!(merged["metadata"]["finalizers"], json!(["b", "c"]));
    }

    #[test]
    fn replace_and_delete_directives_act_on_maps_and_lists() {
        let merged = service(json!({"metadata": {"labels": {"$patch": "replace", "z": "3"}}}));
        assert_eq!(merged["metadata"]["labels"], json!({"z": "3"}));
        let merged = service(json!({"spec": {"$patch": "delete"}}));
        assert!(merged.get("spec").is_none());
        let merged = service(json!({"spec": {"ports": [{"port": 1}, {"$patch": "replace"}]}}));
        assert_eq!(merged["spec"]["ports"], json!([{"port": 1}]));
    }

    #[test]
    fn retained_keys_drop_the_others() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}});
        let merged = apply(Resource::Pods, &pod, &patch).unwrap();
        assert_eq!(merged["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
    }

    #[test]
    fn containers_merge_by_name_down_to_env_and_ports() {
        let deployment = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "side", "image": "s"},
            {"name": "web", "image": "a", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]},
        ]}}}});
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "web"}],
            "containers": [{"name": "web", "image": "b", "env": [{"name": "B", "value": "2"}],
                            "ports": [{"containerPort": 80, "name": "http"}]}],
        }}}});
        let merged = apply(Resource::Deployments, &deployment, &patch).unwrap();
        assert_eq!(
            merged["spec"]["template"]["spec"]["containers"],
            json!([
                {"name": "side", "image": "s"},
                {"name": "web", "image": "b", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "http"}]},
            ])
        );
    }

    #[test]
    fn lists_without_a_merge_key_are_replaced() {
        let policy = json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}});
        let patch = json!({"spec": {"ingress": [{"ports": [{"port": 81}]}]}});
        let merged = apply(Resource::NetworkPolicies, &policy, &patch).unwrap();
        assert_eq!(merged, patch);
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let refused = apply(Resource::Services, &json!({}), &json!({"spec": {"ports": [{"name": "x"}]}}));
        assert!(matches!(refused, Err(ApiError::BadRequest(_))));
    }
}

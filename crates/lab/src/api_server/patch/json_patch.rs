//! JSON patch, RFC 6902.

use serde_json::Value;

use crate::api_server::ApiError;

/// The object after all operations, or the first that fails.
pub(crate) fn apply(object: &Value, operations: &Value) -> Result<Value, ApiError> {
    let operations = operations.as_array().ok_or_else(|| refused("a JSON patch is a list of operations"))?;
    let mut patched = object.clone();
    for operation in operations {
        step(&mut patched, operation)?;
    }
    Ok(patched)
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::BadRequest(message.into())
}

fn step(object: &mut Value, operation: &Value) -> Result<(), ApiError> {
    let member = |key: &str| {
        let pointer = operation.get(key).and_then(Value::as_str);
        pointer.ok_or_else(|| refused(format!("JSON patch operation without {key}")))
    };
    let value =
        || operation.get("value").cloned().ok_or_else(|| refused("JSON patch operation without value"));
    let path = member("path")?;
    match member("op")? {
        "add" => add(object, path, value()?),
        "remove" => remove(object, path).map(drop),
        "replace" => {
            let slot = object.pointer_mut(path).ok_or_else(|| missing(path))?;
            *slot = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(object, member("from")?)?;
            add(object, path, moved)
        }
        "copy" => {
            let from = member("from")?;
            let copied = object.pointer(from).cloned().ok_or_else(|| missing(from))?;
            add(object, path, copied)
        }
        "test" if object.pointer(path) == Some(&value()?) => Ok(()),
        "test" => Err(refused(format!("testing path {path} value failed"))),
        other => Err(refused(format!("unknown JSON patch operation {other}"))),
    }
}

fn missing(path: &str) -> ApiError {
    refused(format!("JSON patch path {path} does not exist"))
}

/// The container a pointer ends in, and the last key, unescaped (RFC 6901 §4).
fn parent<'a>(object: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), ApiError> {
    let (container, key) = path.rsplit_once('/').ok_or_else(|| missing(path))?;
    let container = object.pointer_mut(container).ok_or_else(|| missing(path))?;
    Ok((container, key.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), ApiError> {
    if path.is_empty() {
        *object = value;
        return Ok(());
    }
    match parent(object, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
            Ok(())
        }
        (Value::Array(list), key) => {
            let end = list.len();
            let index = if key == "-" { Some(end) } else { key.parse().ok().filter(|index| *index <= end) };
            list.insert(index.ok_or_else(|| missing(path))?, value);
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn remove(object: &mut Value, path: &str) -> Result<Value, ApiError> {
    let removed = match parent(object, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), key) => {
            let index = key.parse().ok().filter(|index| *index < list.len());
            index.map(|index: usize| list.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_operation_does_what_rfc_6902_says() {
        let object = json!({"a": {"b/c": 1}, "list": [1, 2]});
        for (operations, expected) in [
            (
                json!([{"op": "add", "path": "/a/d", "value": 2}]),
                json!({"a": {"b/c": 1, "d": 2}, "list": [1, 2]}),
            ),
            (
                json!([{"op": "add", "path": "/list/1", "value": 9}]),
                json!({"a": {"b/c": 1}, "list": [1, 9, 2]}),
            ),
            (
                json!([{"op": "add", "path": "/list/-", "value": 9}]),
                json!({"a": {"b/c": 1}, "list": [1, 2, 9]}),
            ),
            (json!([{"op": "remove", "path": "/a/b~1c"}]), json!({"a": {}, "list": [1, 2]})),
            (
                json!([{"op": "replace", "path": "/list/0", "value": 7}]),
                json!({"a": {"b/c": 1}, "list": [7, 2]}),
            ),
            (
                json!([{"op": "move", "from": "/list/0", "path": "/x"}]),
                json!({"a": {"b/c": 1}, "list": [2], "x": 1}),
            ),
            (json!([{"op": "copy", "from": "/list", "path": "/a"}]), json!({"a": [1, 2], "list": [1, 2]})),
            (json!([{"op": "test", "path": "/list/1", "value": 2}]), object.clone()),
        ] {
            assert_eq!(apply(&object, &operations).unwrap(), expected, "{operations}");
        }
    }

    #[test]
    fn a_failing_operation_fails_the_patch() {
        for operation in [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/b"}),
            json!({"op": "replace", "path": "/b", "value": 1}),
            json!({"op": "add", "path": "/list/9", "value": 1}),
            json!({"op": "add", "path": "/a"}),
            json!({"op": "paint", "path": "/a"}),
        ] {
            let refused = apply(&json!({"a": 1, "list": []}), &json!([operation]));
            assert!(matches!(refused, Err(ApiError::BadRequest(_))), "{operation}");
        }
    }
}

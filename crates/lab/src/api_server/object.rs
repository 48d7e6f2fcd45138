//! Reading and writing the few metadata fields every kind shares, on plain JSON.
//!
//! A wrong type reads as absent: validation is admission's, not this file's.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// One stored state of an object. Shared by the store, the history and all readers; never changed.
#[derive(Debug)]
pub(crate) struct Object {
    /// The object, with its resourceVersion inside.
    pub(crate) value: Arc<Value>,
    /// The resourceVersion as a number.
    pub(crate) version: u64,
    /// The JSON text, written when first asked for and then shared by every list and watch.
    json: OnceLock<Bytes>,
}

impl Object {
    /// Stamps `value` with `version`.
    pub(crate) fn new(mut value: Value, version: u64) -> Self {
        set_metadata(&mut value, "resourceVersion", json!(version.to_string()));
        Self { value: Arc::new(value), version, json: OnceLock::new() }
    }

    /// The object's JSON text.
    pub(crate) fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string())).clone()
    }
}

/// The string at a path of keys; empty when absent.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of keys.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The elements of the list at a path of keys; none when absent.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`; empty for cluster-scoped kinds.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, &["metadata", "deletionTimestamp"]).is_empty()
}

/// The object as a map, made one if it is not.
pub(crate) fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // The line above made it a map.
        _ => unreachable!(),
    }
}

/// The map under `key`, made if absent or null.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let slot = fields(value).entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// Sets `key`.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    fields(object).insert(key.to_owned(), value.into());
}

/// Sets `metadata.<key>`.
pub(crate) fn set_metadata(object: &mut Value, key: &str, value: Value) {
    fields(child(object, "metadata")).insert(key.to_owned(), value);
}

/// Sets `key` to `value` where it is absent or null.
pub(crate) fn default(object: &mut Value, key: &str, value: impl Into<Value>) {
    let slot = fields(object).entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// Now, as `metav1.Time` prints it: RFC 3339 in whole seconds.
pub(crate) fn now() -> String {
    after_seconds(0)
}

/// Now plus `seconds`, as `metav1.Time` prints it.
pub(crate) fn after_seconds(seconds: i64) -> String {
    let second = Timestamp::now().as_second().saturating_add(seconds);
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// A random version 4 UUID.
pub(crate) fn new_uid() -> String {
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

/// `length` characters of the alphabet Kubernetes uses for generated names (no vowels, no look-alikes).
pub(crate) fn name_suffix(seed: u64, length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = ALPHABET.len() as u64;
    let digits = std::iter::successors(Some(seed), |rest| Some(rest / base)).take(length);
    digits.filter_map(|rest| ALPHABET.get((rest % base) as usize)).map(|byte| char::from(*byte)).collect()
}

/// 64 random bits: every `RandomState` is keyed from the system's randomness and counts up.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_uuids_and_differ() {
        let (first, second) = (new_uid(), new_uid());
        assert_ne!(first, second);
        let lengths: Vec<_> = first.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn times_are_whole_seconds() {
        let now = now();
        assert_eq!(now.len(), "2026-01-01T00:00:00Z".len(), "{now}");
    }

    #[test]
    fn a_missing_path_reads_as_empty() {
        let object = json!({"metadata": {"name": 7}});
        assert_eq!(name(&object), "");
        assert!(items(&object, &["spec", "ports"]).is_empty());
    }
}

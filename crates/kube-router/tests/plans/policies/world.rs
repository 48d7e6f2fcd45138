//! A cluster as the API server would describe it: JSON, and nothing of ours.

use std::collections::BTreeMap;

use serde_json::Value;

/// Objects by namespace and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) namespaces: BTreeMap<String, Value>,
    pub(crate) pods: BTreeMap<(String, String), Value>,
    pub(crate) policies: BTreeMap<(String, String), Value>,
}

/// One object as it is from now on; none is gone.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Namespace(String, Option<Value>),
    Pod(String, String, Option<Value>),
    Policy(String, String, Option<Value>),
}

impl World {
    pub(crate) fn change(&mut self, change: &Change) {
        fn put<K: Ord>(map: &mut BTreeMap<K, Value>, key: K, value: Option<&Value>) {
            match value {
                Some(value) => drop(map.insert(key, value.clone())),
                None => drop(map.remove(&key)),
            }
        }
        match change {
            Change::Namespace(name, value) => put(&mut self.namespaces, name.clone(), value.as_ref()),
            Change::Pod(namespace, name, value) => {
                put(&mut self.pods, (namespace.clone(), name.clone()), value.as_ref());
            }
            Change::Policy(namespace, name, value) => {
                put(&mut self.policies, (namespace.clone(), name.clone()), value.as_ref());
            }
        }
    }
}

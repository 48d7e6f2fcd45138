//! From labels to the objects that carry them, per namespace: a service finds its pods, and a pod its services,
//! without a scan.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Namespace, label key, label value.
type Label = (String, String, String);

/// Object names by label.
#[derive(Default)]
pub(super) struct LabelIndex {
    names: BTreeMap<Label, BTreeSet<String>>,
}

/// The string pairs of a map.
pub(super) fn pairs(labels: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let map = labels.and_then(Value::as_object).into_iter().flatten();
    map.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

impl LabelIndex {
    pub(super) fn insert<'a>(
        &mut self,
        space: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        name: &str,
    ) {
        for (key, value) in labels {
            let label = (space.to_owned(), key.to_owned(), value.to_owned());
            self.names.entry(label).or_default().insert(name.to_owned());
        }
    }

    pub(super) fn remove<'a>(
        &mut self,
        space: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        name: &str,
    ) {
        for (key, value) in labels {
            let label = (space.to_owned(), key.to_owned(), value.to_owned());
            if let Some(names) = self.names.get_mut(&label) {
                names.remove(name);
                if names.is_empty() {
                    self.names.remove(&label);
                }
            }
        }
    }

    /// Who carries one label.
    pub(super) fn carriers(&self, space: &str, key: &str, value: &str) -> Option<&BTreeSet<String>> {
        self.names.get(&(space.to_owned(), key.to_owned(), value.to_owned()))
    }

    /// Who carries all of them: the carriers of the rarest, filtered. O(carriers of the rarest).
    pub(super) fn carriers_of_all(&self, space: &str, labels: Option<&Value>) -> Vec<&String> {
        let mut sets: Vec<_> = Vec::new();
        for (key, value) in pairs(labels) {
            match self.carriers(space, key, value) {
                Some(names) => sets.push(names),
                None => return Vec::new(),
            }
        }
        sets.sort_by_key(|names| names.len());
        let Some((rarest, others)) = sets.split_first() else { return Vec::new() };
        rarest.iter().filter(|name| others.iter().all(|names| names.contains(*name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_labels_must_be_carried_in_the_same_namespace() {
        let mut index = LabelIndex::default();
        let (both, one) = (json!({"a": "1", "b": "2"}), json!({"a": "1"}));
        index.insert("x", pairs(Some(&both)), "p");
        index.insert("x", pairs(Some(&one)), "q");
        index.insert("y", pairs(Some(&both)), "r");
        assert_eq!(index.carriers_of_all("x", Some(&one)), ["p", "q"]);
        assert_eq!(index.carriers_of_all("x", Some(&both)), ["p"]);
        index.remove("x", pairs(Some(&both)), "p");
        assert!(index.carriers_of_all("x", Some(&both)).is_empty());
        assert_eq!(index.carriers_of_all("x", Some(&one)), ["q"]);
        assert!(index.carriers_of_all("x", None).is_empty());
    }
}

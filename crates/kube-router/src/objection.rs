//! What is wrong with the objects of the cluster, said once.
//!
//! Plans and parsers return [`Objection`]s as values and go on with the rest of the object. The [`Objections`] ledger
//! keeps those that stand, so that each is logged once, counted in a metric and shown in the status, and forgotten
//! when its object becomes fine or disappears.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The Kubernetes kind, such as `Service`.
    pub kind: &'static str,
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ObjectRef {
    /// A service.
    pub fn service(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: "Service", namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Something in an object that cannot be used as it is. The rest of the object is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Where it is.
    pub object: ObjectRef,
    /// Which field, in the path notation of Kubernetes: `spec.externalIPs`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// Why it cannot be used.
    pub reason: String,
    /// What the object's owner can do about it.
    pub remedy: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, value, reason, remedy } = self;
        write!(f, "{object}: {field} {value:?} {reason}: {remedy}")
    }
}

/// The objections that stand, by object.
#[derive(Debug, Default)]
pub struct Objections {
    by_object: BTreeMap<ObjectRef, Vec<Objection>>,
    standing: usize,
}

impl Objections {
    /// Takes all that is wrong with `object` now (nothing, if it is fine or gone) and returns what was not known
    /// before. O(log objects + objections of this object squared); the latter are few.
    pub fn replace(&mut self, object: &ObjectRef, now: Vec<Objection>) -> Vec<Objection> {
        let known = match self.by_object.entry(object.clone()) {
            Entry::Vacant(_) if now.is_empty() => return Vec::new(),
            Entry::Occupied(entry) if now.is_empty() => {
                self.standing -= entry.remove().len();
                return Vec::new();
            }
            Entry::Vacant(entry) => {
                entry.insert(now.clone());
                Vec::new()
            }
            Entry::Occupied(mut entry) => entry.insert(now.clone()),
        };
        self.standing = self.standing + now.len() - known.len();
        now.into_iter().filter(|objection| !known.contains(objection)).collect()
    }

    /// [`Objections::replace`], with a warning in the log for each new objection. Returns how many were new.
    pub fn report(&mut self, object: &ObjectRef, now: Vec<Objection>) -> usize {
        let new = self.replace(object, now);
        for objection in &new {
            tracing::warn!("{objection}");
        }
        new.len()
    }

    /// All that stand, in the order of their objects.
    pub fn iter(&self) -> impl Iterator<Item = &Objection> {
        self.by_object.values().flatten()
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.standing
    }

    /// How many objects have one or more. This is the metric of rejected objects.
    pub fn objects(&self) -> usize {
        self.by_object.len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.standing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(value: &str) -> Objection {
        Objection {
            object: ObjectRef::service("default", "web"),
            field: "spec.externalIPs".into(),
            value: value.into(),
            reason: "is not an IP address".into(),
            remedy: "correct or remove it".into(),
        }
    }

    #[test]
    fn each_is_new_once_and_again_after_it_went() {
        let web = ObjectRef::service("default", "web");
        let mut ledger = Objections::default();
        assert_eq!(ledger.replace(&web, vec![objection("a")]), [objection("a")]);
        assert_eq!(ledger.replace(&web, vec![objection("a")]), []);
        assert_eq!(ledger.replace(&web, vec![objection("a"), objection("b")]), [objection("b")]);
        assert_eq!((ledger.len(), ledger.objects()), (2, 1));
        assert_eq!(ledger.replace(&web, vec![]), []);
        assert!(ledger.is_empty());
        assert_eq!(ledger.replace(&web, vec![objection("a")]), [objection("a")]);
        assert_eq!(ledger.iter().count(), ledger.len());
    }

    #[test]
    fn a_report_names_object_field_value_and_remedy() {
        assert_eq!(
            objection("10.0.0").to_string(),
            "Service default/web: spec.externalIPs \"10.0.0\" is not an IP address: correct or remove it"
        );
    }
}

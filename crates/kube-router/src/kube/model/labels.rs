//! Labels and what selects by them.
//!
//! Both are kept in one canonical form, so that equal ones are equal values and, interned, one value: a Deployment of a
//! thousand pods has one label set. Source: `metav1.LabelSelector` and `labels.Requirement` of apimachinery.

use std::fmt;
use std::sync::Arc;

use linux::row::Name;

/// The labels of an object, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Name, Name)]>);

impl Default for Labels {
    fn default() -> Labels {
        Labels(Arc::from([]))
    }
}

impl FromIterator<(Name, Name)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Name, Name)>>(pairs: I) -> Labels {
        let mut pairs: Vec<(Name, Name)> = pairs.into_iter().collect();
        pairs.sort();
        pairs.dedup_by(|later, first| later.0 == first.0);
        Labels(pairs.into())
    }
}

impl Labels {
    /// The value under a key. O(log labels).
    pub fn get(&self, key: &str) -> Option<&Name> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Whether somebody else holds the very same copy.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A label selector: all requirements must hold. Without any it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<[Requirement]>);

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Key of the label.
    pub key: Name,
    /// What must be true of it.
    pub operator: Operator,
}

/// What must be true of a label. Values are sorted and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// It is there with one of these values; `matchLabels` says the same with one.
    In(Box<[Name]>),
    /// It is not there, or has none of these values.
    NotIn(Box<[Name]>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Default for Selector {
    fn default() -> Selector {
        Selector(Arc::from([]))
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Selector {
        let mut requirements: Vec<Requirement> = requirements.into_iter().collect();
        requirements.sort();
        requirements.dedup();
        Selector(requirements.into())
    }
}

impl Selector {
    /// Whether it selects an object with these labels. O(requirements × log labels).
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// Its requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.binary_search(value).is_ok()),
            Operator::NotIn(values) => value.is_none_or(|value| values.binary_search(value).is_err()),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Operator {
    /// `In`, or `NotIn`, of values in any order.
    pub fn of_values(found: bool, values: impl IntoIterator<Item = Name>) -> Operator {
        let mut values: Vec<Name> = values.into_iter().collect();
        values.sort();
        values.dedup();
        if found { Operator::In(values.into()) } else { Operator::NotIn(values.into()) }
    }
}

/// As `kubectl` writes selectors: `app in (a,b),!legacy`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) => write!(f, "{comma}{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{comma}{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::DoesNotExist => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect()
    }

    fn one(key: &str, operator: Operator) -> Selector {
        [Requirement { key: key.into(), operator }].into_iter().collect()
    }

    #[test]
    fn operators_mean_what_the_api_says() {
        let (with, without) = (labels(&[("app", "web"), ("tier", "")]), labels(&[("tier", "")]));
        let values = |found| Operator::of_values(found, ["db".into(), "web".into()]);
        for (operator, holds_with, holds_without) in [
            (values(true), true, false),
            (values(false), false, true),
            (Operator::of_values(true, ["db".into()]), false, false),
            (Operator::of_values(false, ["db".into()]), true, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
        ] {
            let selector = one("app", operator);
            assert_eq!(selector.matches(&with), holds_with, "{selector}");
            assert_eq!(selector.matches(&without), holds_without, "{selector}");
        }
        assert!(
            one("tier", Operator::of_values(true, ["".into()])).matches(&with),
            "an empty value is a value"
        );
        assert!(Selector::default().matches(&Labels::default()), "an empty selector selects everything");
    }

    #[test]
    fn equal_meanings_are_equal_values() {
        let requirement = |key: &str| Requirement { key: key.into(), operator: Operator::Exists };
        let one: Selector = [requirement("b"), requirement("a"), requirement("a")].into_iter().collect();
        let other: Selector = [requirement("a"), requirement("b")].into_iter().collect();
        assert_eq!(one, other);
        assert_eq!(labels(&[("b", "1"), ("a", "2")]), labels(&[("a", "2"), ("b", "1")]));
        assert_eq!(one.to_string(), "a,b");
    }
}

//! Which selectors match which label sets, kept up as both come and go.
//!
//! A new label set is tested only against selectors that insist on a label it has, and against the few that insist on
//! none; a new selector only against label sets with a label it insists on. So a pod event never walks all selectors,
//! nor a policy event all pods.

use std::collections::{BTreeSet, HashMap};

use linux::row::Name;
use slab::Slab;

use crate::kube::model::{Labels, Operator, Selector};

/// Number of a selector in its [`Matcher`].
pub(super) type SelectorNumber = usize;
/// Number of a label set in its [`Matcher`].
pub(super) type LabelsNumber = usize;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    selectors: Slab<Selecting>,
    numbers_of_selectors: HashMap<Selector, SelectorNumber>,
    label_sets: Slab<Labelled>,
    numbers_of_labels: HashMap<Labels, LabelsNumber>,
    /// Selectors and label sets by a label both have.
    by_pair: HashMap<(Name, Name), Sides>,
    /// The same by the label's key, where any value will do.
    by_key: HashMap<Name, Sides>,
    /// Selectors that match without any label.
    undemanding: BTreeSet<SelectorNumber>,
}

#[derive(Debug, Default)]
struct Sides {
    selectors: BTreeSet<SelectorNumber>,
    label_sets: BTreeSet<LabelsNumber>,
}

impl Sides {
    fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.label_sets.is_empty()
    }
}

#[derive(Debug)]
struct Selecting {
    selector: Selector,
    uses: u32,
    matched: BTreeSet<LabelsNumber>,
}

#[derive(Debug)]
struct Labelled {
    labels: Labels,
    uses: u32,
    matching: BTreeSet<SelectorNumber>,
}

/// The label a selector insists on.
enum Demand<'a> {
    /// This key with one of these values.
    Pair(&'a Name, &'a [Name]),
    /// This key.
    Key(&'a Name),
    Nothing,
}

fn demand(selector: &Selector) -> Demand<'_> {
    let values = selector.requirements().iter().filter_map(|requirement| match &requirement.operator {
        Operator::In(values) => Some((&requirement.key, &**values)),
        _ => None,
    });
    if let Some((key, values)) = values.min_by_key(|(_, values)| values.len()) {
        return Demand::Pair(key, values);
    }
    let present = selector.requirements().iter().find(|requirement| requirement.operator == Operator::Exists);
    present.map_or(Demand::Nothing, |requirement| Demand::Key(&requirement.key))
}

impl Matcher {
    /// Takes in a selector once more. O(label sets that have its label) if it is new.
    pub(super) fn add_selector(&mut self, selector: &Selector) -> SelectorNumber {
        if let Some(number) = self.numbers_of_selectors.get(selector) {
            if let Some(known) = self.selectors.get_mut(*number) {
                known.uses += 1;
            }
            return *number;
        }
        let mut candidates: BTreeSet<LabelsNumber> = BTreeSet::new();
        match demand(selector) {
            Demand::Pair(key, values) => {
                for value in values {
                    let sides = self.by_pair.get(&(key.clone(), value.clone()));
                    candidates.extend(sides.into_iter().flat_map(|sides| &sides.label_sets));
                }
            }
            Demand::Key(key) => {
                candidates.extend(self.by_key.get(key).into_iter().flat_map(|sides| &sides.label_sets));
            }
            Demand::Nothing => candidates.extend(self.label_sets.iter().map(|(number, _)| number)),
        }
        candidates.retain(|number| {
            self.label_sets.get(*number).is_some_and(|labelled| selector.matches(&labelled.labels))
        });
        let entry = Selecting { selector: selector.clone(), uses: 1, matched: candidates.clone() };
        let number = self.selectors.insert(entry);
        for labels in candidates {
            if let Some(labelled) = self.label_sets.get_mut(labels) {
                labelled.matching.insert(number);
            }
        }
        self.numbers_of_selectors.insert(selector.clone(), number);
        self.enter(number, selector, true);
        number
    }

    /// Takes back one use of a selector.
    pub(super) fn drop_selector(&mut self, number: SelectorNumber) {
        let Some(entry) = self.selectors.get_mut(number) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let entry = self.selectors.remove(number);
        for labels in entry.matched {
            if let Some(labelled) = self.label_sets.get_mut(labels) {
                labelled.matching.remove(&number);
            }
        }
        self.numbers_of_selectors.remove(&entry.selector);
        self.enter(number, &entry.selector, false);
    }

    /// Puts a selector under the label it insists on, or takes it away.
    fn enter(&mut self, number: SelectorNumber, selector: &Selector, add: bool) {
        match demand(selector) {
            Demand::Pair(key, values) => {
                for value in values {
                    let pair = (key.clone(), value.clone());
                    keep(&mut self.by_pair, pair, |sides| change(&mut sides.selectors, number, add));
                }
            }
            Demand::Key(key) => {
                keep(&mut self.by_key, key.clone(), |sides| change(&mut sides.selectors, number, add));
            }
            Demand::Nothing => change(&mut self.undemanding, number, add),
        }
    }

    /// Takes in a label set once more. O(its labels + selectors that insist on one of them) if it is new.
    pub(super) fn add_labels(&mut self, labels: &Labels) -> LabelsNumber {
        if let Some(number) = self.numbers_of_labels.get(labels) {
            if let Some(known) = self.label_sets.get_mut(*number) {
                known.uses += 1;
            }
            return *number;
        }
        let mut matching = self.undemanding.clone();
        for (key, value) in labels.iter() {
            let pair = self.by_pair.get(&(key.clone(), value.clone()));
            let sides = pair.into_iter().chain(self.by_key.get(key));
            matching.extend(sides.flat_map(|sides| &sides.selectors));
        }
        matching
            .retain(|number| self.selectors.get(*number).is_some_and(|entry| entry.selector.matches(labels)));
        let entry = Labelled { labels: labels.clone(), uses: 1, matching: matching.clone() };
        let number = self.label_sets.insert(entry);
        for selector in matching {
            if let Some(entry) = self.selectors.get_mut(selector) {
                entry.matched.insert(number);
            }
        }
        self.numbers_of_labels.insert(labels.clone(), number);
        self.enter_labels(number, labels, true);
        number
    }

    /// Takes back one use of a label set.
    pub(super) fn drop_labels(&mut self, number: LabelsNumber) {
        let Some(entry) = self.label_sets.get_mut(number) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let entry = self.label_sets.remove(number);
        for selector in entry.matching {
            if let Some(entry) = self.selectors.get_mut(selector) {
                entry.matched.remove(&number);
            }
        }
        self.numbers_of_labels.remove(&entry.labels);
        self.enter_labels(number, &entry.labels, false);
    }

    fn enter_labels(&mut self, number: LabelsNumber, labels: &Labels, add: bool) {
        for (key, value) in labels.iter() {
            let pair = (key.clone(), value.clone());
            keep(&mut self.by_pair, pair, |sides| change(&mut sides.label_sets, number, add));
            keep(&mut self.by_key, key.clone(), |sides| change(&mut sides.label_sets, number, add));
        }
    }

    /// A selector by its number.
    pub(super) fn selector(&self, number: SelectorNumber) -> Option<&Selector> {
        self.selectors.get(number).map(|entry| &entry.selector)
    }

    /// Selectors that match a label set.
    pub(super) fn matching(&self, labels: LabelsNumber) -> impl Iterator<Item = SelectorNumber> {
        self.label_sets.get(labels).into_iter().flat_map(|entry| &entry.matching).copied()
    }

    /// Label sets a selector matches.
    pub(super) fn matched(&self, selector: SelectorNumber) -> impl Iterator<Item = LabelsNumber> {
        self.selectors.get(selector).into_iter().flat_map(|entry| &entry.matched).copied()
    }

    /// Whether a selector matches a label set. O(log n).
    pub(super) fn matches(&self, selector: SelectorNumber, labels: LabelsNumber) -> bool {
        self.selectors.get(selector).is_some_and(|entry| entry.matched.contains(&labels))
    }

    /// Selectors and label sets held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.selectors.len() + self.label_sets.len() + self.by_pair.len() + self.by_key.len()
    }
}

fn change(numbers: &mut BTreeSet<usize>, number: usize, add: bool) {
    if add {
        numbers.insert(number);
    } else {
        numbers.remove(&number);
    }
}

/// Changes an entry, and drops it when nothing is left in it.
fn keep<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Sides>, key: K, change: impl FnOnce(&mut Sides)) {
    use std::collections::hash_map::Entry;
    match map.entry(key) {
        Entry::Vacant(place) => {
            let mut sides = Sides::default();
            change(&mut sides);
            if !sides.is_empty() {
                place.insert(sides);
            }
        }
        Entry::Occupied(mut place) => {
            change(place.get_mut());
            if place.get().is_empty() {
                place.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kube::model::Requirement;

    fn labels() -> impl Strategy<Value = Labels> {
        let pair = (0..3u8, 0..2u8)
            .prop_map(|(key, value)| (Name::from(format!("k{key}")), Name::from(format!("v{value}"))));
        prop::collection::vec(pair, 0..3).prop_map(|pairs| pairs.into_iter().collect())
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let requirement =
            (0..3u8, 0..4u8, prop::collection::vec(0..3u8, 1..3)).prop_map(|(key, kind, values)| {
                let values = values.into_iter().map(|value| Name::from(format!("v{value}")));
                let operator = match kind {
                    0 => Operator::of_values(true, values),
                    1 => Operator::of_values(false, values),
                    2 => Operator::Exists,
                    _ => Operator::DoesNotExist,
                };
                Requirement { key: format!("k{key}").into(), operator }
            });
        prop::collection::vec(requirement, 0..3).prop_map(|requirements| requirements.into_iter().collect())
    }

    proptest! {
        /// However selectors and label sets come and go, what matches what is as if each were tried.
        #[test]
        fn matches_are_as_tried_one_by_one(
            steps in prop::collection::vec((selector(), labels(), 0..4u8, any::<prop::sample::Index>()), 1..40),
        ) {
            let mut matcher = Matcher::default();
            let (mut selectors, mut sets) = (Vec::new(), Vec::new());
            for (selector, labels, what, which) in steps {
                match what {
                    0 => selectors.push((matcher.add_selector(&selector), selector)),
                    1 => sets.push((matcher.add_labels(&labels), labels)),
                    2 if !selectors.is_empty() => {
                        let (number, _) = selectors.swap_remove(which.index(selectors.len()));
                        matcher.drop_selector(number);
                    }
                    3 if !sets.is_empty() => {
                        let (number, _) = sets.swap_remove(which.index(sets.len()));
                        matcher.drop_labels(number);
                    }
                    _ => {}
                }
                for (number, selector) in &selectors {
                    for (set, labels) in &sets {
                        let wanted = selector.matches(labels);
                        prop_assert_eq!(matcher.matches(*number, *set), wanted, "{} on {:?}", selector, labels);
                        prop_assert_eq!(matcher.matching(*set).any(|other| other == *number), wanted);
                        prop_assert_eq!(matcher.matched(*number).any(|other| other == *set), wanted);
                    }
                }
            }
            selectors.into_iter().for_each(|(number, _)| matcher.drop_selector(number));
            sets.into_iter().for_each(|(number, _)| matcher.drop_labels(number));
            prop_assert_eq!(matcher.len(), 0, "nothing is kept for nobody");
        }
    }
}

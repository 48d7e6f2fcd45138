//! Names kept once, however many objects mention them.
//!
//! A hundred thousand endpoints name a few thousand nodes, namespaces and services. Names that occur once (those of
//! pods) do not belong here: the table would cost more than it saves.

use std::sync::Arc;

use hashbrown::HashSet;
use linux::row::Name;

use super::model::{Labels, NamedPort};

/// Hands out one shared copy of each name. Owned by whoever converts objects; no lock.
#[derive(Debug, Default)]
pub struct Interner {
    names: HashSet<Name>,
    labels: HashSet<Labels>,
    ports: HashSet<Arc<[NamedPort]>>,
    /// Size at which names nobody uses are dropped.
    sweep_at: usize,
}

/// Below this many names a sweep is not worth its time.
const SMALLEST_SWEEP: usize = 1024;

impl Interner {
    /// The shared copy of `name`. Amortised O(1): the table is swept when it has doubled since the last sweep.
    pub fn name(&mut self, name: &str) -> Name {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        self.sweep_if_grown();
        let new: Name = Arc::from(name);
        self.names.insert(new.clone());
        new
    }

    /// The shared copy of a label set: pods of one template have the same one. Amortised O(labels).
    pub fn labels(&mut self, pairs: Vec<(Name, Name)>) -> Labels {
        let new: Labels = pairs.into_iter().collect();
        if let Some(known) = self.labels.get(&new) {
            return known.clone();
        }
        self.sweep_if_grown();
        self.labels.insert(new.clone());
        new
    }

    /// The shared copy of a pod's named ports. Amortised O(ports).
    pub fn ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        if let Some(known) = self.ports.get(ports.as_slice()) {
            return known.clone();
        }
        self.sweep_if_grown();
        let new: Arc<[NamedPort]> = ports.into();
        self.ports.insert(new.clone());
        new
    }

    fn sweep_if_grown(&mut self) {
        if self.len() >= self.sweep_at.max(SMALLEST_SWEEP) {
            self.sweep();
        }
    }

    /// Drops what nobody else holds. O(what is held).
    pub fn sweep(&mut self) {
        // Label sets and ports hold names: they go first.
        self.labels.retain(Labels::is_shared);
        self.labels.shrink_to(SMALLEST_SWEEP);
        self.ports.retain(|ports| Arc::strong_count(ports) > 1);
        self.ports.shrink_to(SMALLEST_SWEEP);
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.names.shrink_to(SMALLEST_SWEEP);
        self.sweep_at = self.len() * 2;
    }

    /// Entries in the table, used or not.
    pub fn len(&self) -> usize {
        self.names.len() + self.labels.len() + self.ports.len()
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let mut names = Interner::default();
        let (first, second) = (names.name("node-1"), names.name("node-1"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn unused_names_go_and_used_ones_stay() {
        let mut names = Interner::default();
        let kept = names.name("kept");
        for number in 0..100_000 {
            names.name(&format!("gone-{number}"));
        }
        assert!(names.len() <= 2 * SMALLEST_SWEEP, "{} names are held", names.len());
        names.sweep();
        assert_eq!(names.len(), 1);
        assert!(Arc::ptr_eq(&kept, &names.name("kept")));
    }
}

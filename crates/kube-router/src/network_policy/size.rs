//! How many chains and sets policies in force have, for metrics. Sets are shared, so they are counted by who needs them.

use std::collections::HashMap;

use linux::reconciler::Claim;
use linux::row::{Key, SetKey};

use crate::kube::model::ObjectName;

#[derive(Debug, Default)]
pub(super) struct Size {
    of: HashMap<ObjectName, (usize, Vec<SetKey>)>,
    chains: usize,
    needs: HashMap<SetKey, usize>,
    /// What was told last.
    told: Option<(usize, usize)>,
}

impl Size {
    /// Replaces what one policy has. O(its claims).
    pub(super) fn replace(&mut self, id: &ObjectName, claims: &[Claim]) {
        let sets = claims.iter().filter_map(|claim| match &claim.key {
            Key::Set(set) => Some(set.clone()),
            _ => None,
        });
        let mut sets: Vec<SetKey> = sets.collect();
        sets.sort();
        sets.dedup();
        let chains = claims.iter().filter(|claim| matches!(claim.key, Key::Chain(_))).count();
        for set in &sets {
            *self.needs.entry(set.clone()).or_default() += 1;
        }
        self.chains += chains;
        let before =
            if claims.is_empty() { self.of.remove(id) } else { self.of.insert(id.clone(), (chains, sets)) };
        let Some((chains, sets)) = before else { return };
        self.chains -= chains;
        for set in sets {
            if let Some(needs) = self.needs.get_mut(&set) {
                *needs -= 1;
                if *needs == 0 {
                    self.needs.remove(&set);
                }
            }
        }
    }

    /// Chains and sets, if they are others than when last asked.
    pub(super) fn news(&mut self) -> Option<(usize, usize)> {
        let now = (self.chains, self.needs.len());
        (self.told.replace(now) != Some(now)).then_some(now)
    }
}

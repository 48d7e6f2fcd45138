//! Rows that several owners want in different ways.
//!
//! Decided here: which way counts: that of the least owner, whatever the order in which they spoke; and when it goes,
//! that of the least that stays. Plans should never get there, so it costs nothing while they do not.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;

use super::{Notice, Reconciler};
use crate::row::{Key, Row};

/// All of them, with how each owner wants the row.
#[derive(Debug)]
pub(super) struct Disputes<O>(HashMap<Key, BTreeMap<O, Row>>);

/// What comes of a wish.
pub(super) struct Heard<O> {
    /// The row that counts.
    pub(super) row: Row,
    /// Who disagree, if they did not before.
    pub(super) new: Vec<O>,
}

impl<O> Default for Disputes<O> {
    fn default() -> Disputes<O> {
        Disputes(HashMap::new())
    }
}

impl<O: Clone + Ord> Disputes<O> {
    /// Whether there is one about this row.
    pub(super) fn has(&self, key: &Key) -> bool {
        !self.0.is_empty() && self.0.contains_key(key)
    }

    /// An owner wants a row that the others want like `agreed`, unless they disagree already.
    pub(super) fn hear(
        &mut self,
        key: &Key,
        owner: &O,
        row: Row,
        others: Vec<O>,
        agreed: Option<&Row>,
    ) -> Heard<O> {
        let known = self.has(key);
        let wishes = self.0.entry(key.clone()).or_default();
        if let (false, Some(agreed)) = (known, agreed) {
            wishes.extend(others.into_iter().map(|other| (other, agreed.clone())));
        }
        wishes.insert(owner.clone(), row.clone());
        let new = if known { Vec::new() } else { wishes.keys().cloned().collect() };
        Heard { row: self.settle(key).unwrap_or(row), new }
    }

    /// An owner wants the row no longer. Says which row counts now, if they disagreed.
    pub(super) fn leave(&mut self, key: &Key, owner: &O) -> Option<Row> {
        if !self.has(key) {
            return None;
        }
        self.0.get_mut(key)?.remove(owner);
        self.settle(key)
    }

    /// The row that counts. A dispute ends when all agree.
    fn settle(&mut self, key: &Key) -> Option<Row> {
        let wishes = self.0.get(key)?;
        let first = wishes.values().next().cloned();
        if wishes.values().all(|row| Some(row) == first.as_ref()) {
            self.0.remove(key);
        }
        first
    }
}

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    /// The row that counts when `owner` wants this one, whatever others want. A person is told of a disagreement.
    pub(super) fn agreed(&mut self, key: &Key, row: Row, owner: &O) -> Row {
        let Some(entry) = self.entries.get(key) else { return row };
        let known = self.disputes.has(key);
        if !known && entry.desired().is_none_or(|wanted| *wanted == row) {
            return row;
        }
        let mut others = self.claims.owners_of(entry.claimants());
        others.retain(|other| other != owner);
        if !known && others.is_empty() {
            return row;
        }
        let heard = self.disputes.hear(key, owner, row, others, entry.desired());
        if !heard.new.is_empty() {
            let reason = "its owners want it in different ways; the first named has its way".to_owned();
            self.notices.push(Notice { key: key.clone(), owners: heard.new, reason });
        }
        heard.row
    }
}

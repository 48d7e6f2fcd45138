//! One row's place in the reconciler: wanted, believed, refused.
//!
//! There is one for every row in the kernel, a hundred thousand and more where Services are many, and nearly all are
//! alike: wanted and believed are the same, one owner wants it, nothing is wrong. So equal rows are kept once, and what
//! few entries have is kept apart.

use std::time::Instant;

use super::claims::OwnerNumber;
use crate::row::{Key, Row};

/// Why a row is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The lane's words.
    pub reason: String,
    /// Refusals in a row.
    pub attempts: u32,
    /// When it is tried again; `None` while it is being tried.
    pub retry_at: Option<Instant>,
}

/// Desired and believed state under one key.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// As it should be; as it is believed to be, if it should not be.
    row: Option<Row>,
    presence: Presence,
    /// It was wanted since it is known here.
    was_wanted: bool,
    /// The first owner that wants the row; the others are in `rare`.
    claimant: Option<OwnerNumber>,
    rare: Option<Box<Rare>>,
}

/// What is wanted and what is believed to be there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Presence {
    #[default]
    Neither,
    Wanted,
    There,
    /// Wanted, and there as wanted.
    Same,
    /// Wanted, and there in another way, which is in [`Rare::actual`].
    Other,
}

/// What few entries have.
#[derive(Debug, Default)]
struct Rare {
    actual: Option<Row>,
    claimants: Vec<OwnerNumber>,
    refused: Option<Refused>,
    holding: Vec<Key>,
}

impl Entry {
    /// How the row should be; `None` is not at all.
    pub(super) fn desired(&self) -> Option<&Row> {
        match self.presence {
            Presence::Neither | Presence::There => None,
            Presence::Wanted | Presence::Same | Presence::Other => self.row.as_ref(),
        }
    }

    /// How it is believed to be.
    pub(super) fn actual(&self) -> Option<&Row> {
        match self.presence {
            Presence::Neither | Presence::Wanted => None,
            Presence::There | Presence::Same => self.row.as_ref(),
            Presence::Other => self.rare.as_ref()?.actual.as_ref(),
        }
    }

    /// Whether somebody wants it, or wanted it before. What was read from the kernel only was never wanted.
    pub(super) fn was_wanted(&self) -> bool {
        self.was_wanted
    }

    /// Returns what was wanted before.
    pub(super) fn set_desired(&mut self, row: Option<Row>) -> Option<Row> {
        self.was_wanted |= row.is_some();
        let (before, actual) = self.take_rows();
        self.put_rows(row, actual);
        before
    }

    /// Returns what was there before.
    pub(super) fn set_actual(&mut self, row: Option<Row>) -> Option<Row> {
        let (desired, before) = self.take_rows();
        self.put_rows(desired, row);
        before
    }

    fn take_rows(&mut self) -> (Option<Row>, Option<Row>) {
        let row = self.row.take();
        match std::mem::take(&mut self.presence) {
            Presence::Neither => (None, None),
            Presence::Wanted => (row, None),
            Presence::There => (None, row),
            Presence::Same => (row.clone(), row),
            Presence::Other => (row, self.rare.as_mut().and_then(|rare| rare.actual.take())),
        }
    }

    fn put_rows(&mut self, desired: Option<Row>, actual: Option<Row>) {
        (self.row, self.presence) = match (desired, actual) {
            (None, None) => (None, Presence::Neither),
            (None, actual) => (actual, Presence::There),
            (desired, None) => (desired, Presence::Wanted),
            (desired, actual) if desired == actual => (desired, Presence::Same),
            (desired, actual) => {
                self.rare_mut().actual = actual;
                (desired, Presence::Other)
            }
        };
        self.drop_empty();
    }

    /// Whether the row is not as wanted.
    pub(super) fn differs(&self) -> bool {
        !matches!(self.presence, Presence::Neither | Presence::Same)
    }

    /// Wanted, and there as wanted.
    pub(super) fn is_as_wanted(&self) -> bool {
        self.presence == Presence::Same
    }

    /// Neither wanted nor there.
    pub(super) fn is_gone(&self) -> bool {
        self.presence == Presence::Neither
    }

    /// The owners that want the row; nearly always one.
    pub(super) fn claimants(&self) -> impl Iterator<Item = OwnerNumber> {
        let others = self.rare.iter().flat_map(|rare| rare.claimants.iter().copied());
        self.claimant.into_iter().chain(others)
    }

    pub(super) fn add_claimant(&mut self, id: OwnerNumber) {
        if self.claimant.is_none() {
            self.claimant = Some(id);
        } else if !self.claimants().any(|known| known == id) {
            self.rare_mut().claimants.push(id);
        }
    }

    pub(super) fn remove_claimant(&mut self, id: OwnerNumber) {
        if let Some(rare) = &mut self.rare {
            rare.claimants.retain(|known| *known != id);
            if self.claimant == Some(id) {
                self.claimant = rare.claimants.pop();
            }
        } else if self.claimant == Some(id) {
            self.claimant = None;
        }
        self.drop_empty();
    }

    /// Why the last change was refused, if it was.
    pub(super) fn refused(&self) -> Option<&Refused> {
        self.rare.as_ref()?.refused.as_ref()
    }

    /// Whether it was refused, and is not tried again before its pause is over.
    pub(super) fn rests(&self) -> bool {
        self.refused().is_some_and(|refused| refused.retry_at.is_some())
    }

    pub(super) fn refused_mut(&mut self) -> Option<&mut Refused> {
        self.rare.as_mut()?.refused.as_mut()
    }

    /// Returns what was known of an earlier refusal.
    pub(super) fn set_refused(&mut self, refused: Option<Refused>) -> Option<Refused> {
        if refused.is_none() && self.rare.is_none() {
            return None;
        }
        let before = std::mem::replace(&mut self.rare_mut().refused, refused);
        self.drop_empty();
        before
    }

    /// What dropped claims stood on. Once the last claim is dropped, it stays until this row is gone.
    pub(super) fn holding(&self) -> &[Key] {
        self.rare.as_ref().map(|rare| rare.holding.as_slice()).unwrap_or_default()
    }

    /// Notes what a dropped claim stood on.
    pub(super) fn hold(&mut self, keys: impl IntoIterator<Item = Key>) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_some() {
            let holding = &mut self.rare_mut().holding;
            holding.extend(keys);
            holding.sort();
            holding.dedup();
        }
    }

    /// Forgets what dropped claims stood on, and returns it.
    pub(super) fn take_holding(&mut self) -> Vec<Key> {
        let held = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.holding)).unwrap_or_default();
        self.drop_empty();
        held
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn drop_empty(&mut self) {
        let empty = |rare: &Rare| {
            rare.actual.is_none()
                && rare.claimants.is_empty()
                && rare.refused.is_none()
                && rare.holding.is_empty()
        };
        if self.rare.as_deref().is_some_and(empty) {
            self.rare = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Forwarding, RealServer};

    fn row(weight: u32) -> Option<Row> {
        Some(Row::RealServer(RealServer { weight, forwarding: Forwarding::Masquerade }))
    }

    #[test]
    fn wanted_and_there_are_told_apart_whatever_the_order_they_come_in() {
        let mut entry = Entry::default();
        assert!(entry.is_gone() && !entry.differs());
        assert_eq!(entry.set_desired(row(1)), None);
        assert_eq!((entry.desired(), entry.actual(), entry.differs()), (row(1).as_ref(), None, true));
        assert_eq!(entry.set_actual(row(1)), None);
        assert!(!entry.differs());
        assert_eq!(entry.set_desired(row(0)), row(1));
        assert_eq!((entry.desired(), entry.actual()), (row(0).as_ref(), row(1).as_ref()));
        assert_eq!(entry.set_desired(None), row(0));
        assert_eq!(entry.set_actual(None), row(1));
        assert!(entry.is_gone());
    }

    #[test]
    fn a_row_is_wanted_until_its_last_owner_goes() {
        let mut entry = Entry::default();
        let [seven, eight, nine] = [7, 8, 9].map(OwnerNumber::at);
        for owner in [seven, eight, seven, nine] {
            entry.add_claimant(owner);
        }
        assert_eq!(entry.claimants().collect::<Vec<_>>(), [seven, eight, nine]);
        entry.remove_claimant(seven);
        assert_eq!(entry.claimants().collect::<Vec<_>>(), [nine, eight]);
        entry.remove_claimant(eight);
        entry.remove_claimant(nine);
        entry.remove_claimant(nine);
        assert_eq!(entry.claimants().count(), 0);
        assert!(entry.rare.is_none(), "what is over takes no room");
    }

    /// A hundred thousand of them are nothing unusual: growth must be a decision.
    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 40, "{} bytes", size_of::<Entry>());
        assert!(size_of::<Key>() <= 48, "{} bytes", size_of::<Key>());
    }
}

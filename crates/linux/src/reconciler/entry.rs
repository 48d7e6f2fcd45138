//! One row's place in the reconciler: wanted, believed, refused.

use std::time::Instant;

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
    pub(super) desired: Option<Row>,
    pub(super) actual: Option<Row>,
    pub(super) claimants: Claimants,
    pub(super) refused: Option<Box<Refused>>,
    /// What dropped claims stood on. Once the last claim is dropped, it stays until this row is gone.
    pub(super) holding: Box<[Key]>,
}

impl Entry {
    /// Notes what a dropped claim stood on.
    pub(super) fn hold(&mut self, keys: Vec<Key>) {
        let mut all: Vec<Key> = std::mem::take(&mut self.holding).into_vec();
        all.extend(keys);
        all.sort();
        all.dedup();
        self.holding = all.into();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.desired.is_none() && self.actual.is_none()
    }
}

/// Numbers of the owners that want a row; nearly always one, so one costs no allocation.
#[derive(Debug, Default, Clone)]
pub(super) enum Claimants {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl Claimants {
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Claimants::None => &[],
            Claimants::One(id) => std::slice::from_ref(id),
            Claimants::Many(ids) => ids,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn add(&mut self, id: u32) {
        if self.as_slice().contains(&id) {
            return;
        }
        *self = match std::mem::take(self) {
            Claimants::None => Claimants::One(id),
            Claimants::One(first) => Claimants::Many(Box::new([first, id])),
            Claimants::Many(ids) => Claimants::Many(ids.into_iter().chain([id]).collect()),
        };
    }

    pub(super) fn remove(&mut self, id: u32) {
        let left: Vec<u32> = self.as_slice().iter().copied().filter(|other| *other != id).collect();
        *self = match left.as_slice() {
            [] => Claimants::None,
            [one] => Claimants::One(*one),
            _ => Claimants::Many(left.into()),
        };
    }
}

//! Refused rows: when they are tried again, and who is told.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::entry::{Entry, Refused};
use super::{Notice, Reconciler};
use crate::lane::Refusal;
use crate::row::Key;

/// First pause after a refusal; doubled with every further one.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two tries of a refused row.
pub(super) const RETRY_LONGEST: Duration = Duration::from_secs(60);

impl<O: Clone + Ord + Hash + Debug> Reconciler<O> {
    pub(super) fn refused(&mut self, key: &Key, refusal: &Refusal, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = entry.set_refused(None);
        let attempts = before.as_ref().map_or(0, |refused| refused.attempts);
        let said_before = before.as_ref().is_some_and(|refused| refused.reason == refusal.reason);
        let first = before.is_none();
        let retry_at = now + pause(attempts);
        entry.set_refused(Some(Refused {
            reason: refusal.reason.clone(),
            attempts: attempts + 1,
            retry_at: Some(retry_at),
        }));
        let owners = self.claims.owners_of(entry.claimants());
        self.retries.insert((retry_at, key.clone()));
        if first {
            self.count(key).refused += 1;
        }
        if !said_before {
            self.notices.push(Notice { key: key.clone(), owners, reason: refusal.reason.clone() });
        }
    }

    pub(super) fn forget_refusal(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(refused) = entry.set_refused(None) {
            if let Some(at) = refused.retry_at {
                self.retries.remove(&(at, key.clone()));
            }
            self.count(key).refused -= 1;
        }
    }

    pub(super) fn release_retries(&mut self, now: Instant) {
        while let Some((at, key)) = self.retries.first().cloned() {
            if at > now {
                return;
            }
            self.retries.remove(&(at, key.clone()));
            if let Some(refused) = self.entries.get_mut(&key).and_then(Entry::refused_mut) {
                refused.retry_at = None;
            }
            self.touch(&key);
        }
    }

    /// Rows whose last change was refused, with their owners. O(rows).
    pub fn refusals(&self) -> impl Iterator<Item = (&Key, &Refused, Vec<O>)> {
        self.entries.iter().filter_map(|(key, entry)| {
            let refused = entry.refused()?;
            Some((key, refused, self.claims.owners_of(entry.claimants())))
        })
    }
}

/// The pause after so many tries.
pub(super) fn pause(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempts.min(16)).min(RETRY_LONGEST)
}

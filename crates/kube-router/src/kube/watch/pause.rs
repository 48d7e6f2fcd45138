//! How long to wait: growing pauses, a random part of them taken off, so that nodes that failed together do not come
//! back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses that double from the shortest to the longest.
#[derive(Debug)]
pub(super) struct Pause {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Pause {
    pub(super) fn new((shortest, longest): (Duration, Duration)) -> Pause {
        Pause { shortest, longest, next: shortest }
    }

    /// Between half of the present pause and all of it; the next one is twice as long.
    pub(super) fn next(&mut self) -> Duration {
        let half = self.next / 2;
        let pause = half + part_of(half);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Begins with the shortest again.
    pub(super) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

/// A random part of a duration.
pub(super) fn part_of(whole: Duration) -> Duration {
    whole.mul_f64(f64::from(random()) / f64::from(u32::MAX))
}

/// How long the server should keep a watch open, in seconds: 4 to 5 minutes, so that the watches of many nodes that
/// began together drift apart.
pub(super) fn watch_seconds() -> u32 {
    240 + random() % 55
}

/// Random enough to spread load: the standard library's hash keys, different for each call.
fn random() -> u32 {
    (RandomState::new().hash_one(()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut pause = Pause::new((shortest, longest));
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let whole = Duration::from_millis(whole);
            let next = pause.next();
            assert!(whole / 2 <= next && next <= whole, "{next:?} of {whole:?}");
        }
        pause.reset();
        assert!(pause.next() <= shortest);
    }

    #[test]
    fn parts_differ() {
        let whole = Duration::from_secs(1000);
        let parts: std::collections::BTreeSet<_> = (0..100).map(|_| part_of(whole)).collect();
        assert!(parts.len() > 90 && parts.iter().all(|part| *part <= whole));
        assert!((0..100).all(|_| (240..295).contains(&watch_seconds())));
    }
}

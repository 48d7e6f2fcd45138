//! When to try again: pauses that grow from one failure to the next, never two speakers in step.

use std::time::Duration;

/// A pause that doubles, from `first` to `longest`.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The next pause, up to a quarter shorter by chance (RFC 4271 section 10).
    pub(super) fn pause(&mut self, random: &mut fastrand::Rng) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.75 + 0.25 * random.f64())
    }

    /// All is well again.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_starts_over() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        let mut random = fastrand::Rng::with_seed(1);
        for most in [1, 2, 4, 5, 5].map(seconds) {
            let pause = backoff.pause(&mut random);
            assert!(pause <= most && pause >= most.mul_f64(0.75), "{pause:?} {most:?}");
        }
        backoff.reset();
        assert!(backoff.pause(&mut random) <= seconds(1));
    }
}

//! How many requests were sent: the measure of what a change costs the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests sent through one or more sockets. Shared between the thread that sends and whoever wants to know.
#[derive(Debug, Default)]
pub struct Requests {
    reads: AtomicU64,
    writes: AtomicU64,
    interrupted: AtomicU64,
}

impl Requests {
    /// Dumps, each try counted, and questions.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Requests to change something, refused or not.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Dumps that others changed under the reader, each made anew (`NLM_F_DUMP_INTR`, linux/netlink.h).
    pub fn interrupted(&self) -> u64 {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub(super) fn was_interrupted(&self) {
        self.interrupted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, requests: usize) {
        self.writes.fetch_add(requests as u64, Ordering::Relaxed);
    }
}

//! What the HTTP side, the handle and the faults share: one lock around the objects, and the fault switches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::faults::Switches;
use super::paging::Snapshots;
use super::rules::Registry;

/// The server's state.
pub(crate) struct Shared {
    registry: Mutex<Registry>,
    snapshots: Mutex<Snapshots>,
    pub(crate) switches: Switches,
    pub(crate) bookmark_interval: Duration,
}

impl Shared {
    pub(crate) fn new(registry: Registry, bookmark_interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            registry: Mutex::new(registry),
            snapshots: Mutex::new(Snapshots::default()),
            switches: Switches::default(),
            bookmark_interval,
        })
    }

    /// The objects, locked; never held across an await. A panic elsewhere does not take the server along:
    /// every write leaves the store consistent before it can panic.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lists being paged through.
    pub(crate) fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

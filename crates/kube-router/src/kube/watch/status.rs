//! What health and metrics may know of a watch, readable from any thread.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::kube::model::{Kind, WatchEvent};

/// State of a watch. Written by its task only; the fields are independent of each other, so each is merely atomic.
#[derive(Debug)]
pub struct WatchStatus {
    kind: Kind,
    synced: AtomicBool,
    broken: AtomicBool,
    lists: AtomicU64,
    events: AtomicU64,
    last_event: AtomicI64,
}

impl WatchStatus {
    pub(super) fn new(kind: Kind) -> WatchStatus {
        WatchStatus {
            kind,
            synced: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            lists: AtomicU64::new(0),
            events: AtomicU64::new(0),
            last_event: AtomicI64::new(0),
        }
    }

    /// Kind watched.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A complete list was received, ever. Whether the store has it yet, the store knows.
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The server cannot be reached, or refuses.
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Lists begun; the first one is the start, every further one a gap that could not be resumed.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Objects that came, changed or went.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// When the server last sent anything, milliseconds since 1970; `None` if never.
    pub fn last_event(&self) -> Option<i64> {
        Some(self.last_event.load(Ordering::Relaxed)).filter(|&time| time != 0)
    }

    /// The server sent something.
    pub(super) fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_event.store(i64::try_from(now.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// Counts an event on its way to the store.
    pub(super) fn saw(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Broken(..) => return,
            WatchEvent::ListBegins(_) => {
                self.lists.fetch_add(1, Ordering::Relaxed);
            }
            WatchEvent::ListEnds(_) => self.synced.store(true, Ordering::Relaxed),
            WatchEvent::Applied(..) | WatchEvent::Ignored(..) | WatchEvent::Deleted(..) => {
                self.events.fetch_add(1, Ordering::Relaxed);
            }
            WatchEvent::Mended(_) => {}
        }
        self.touch();
    }
}

//! Faults on demand, for tests: what a real API server does on its bad days, by a call and not by HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Resource;
use super::listener::Listeners;
use super::shared::Shared;

/// How the server meets clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Availability {
    /// Normal service.
    Serving,
    /// Accepts and reads, answers nothing; open watches stay open and silent.
    Hanging,
    /// Connections are refused; those that were open have been cut.
    Refusing,
}

/// How often open watches have been ended, and how: a watch ends when a count moves past what it saw at its start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Interruptions {
    pub(crate) disconnected: u64,
    pub(crate) expired: u64,
}

/// Requests by verb and kind.
pub type Requests = BTreeMap<(&'static str, Resource), u64>;

/// The present setting of every fault, and the counters.
pub(crate) struct Switches {
    availability: watch::Sender<Availability>,
    interruptions: watch::Sender<Interruptions>,
    latency_us: AtomicU64,
    watch_latency_us: AtomicU64,
    no_watch_list: AtomicBool,
    gone_as_status: AtomicBool,
    failure: AtomicU16,
    requests: Mutex<Requests>,
    open_watches: Mutex<BTreeMap<Resource, usize>>,
    tokens: Mutex<BTreeSet<String>>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            availability: watch::Sender::new(Availability::Serving),
            interruptions: watch::Sender::new(Interruptions::default()),
            latency_us: AtomicU64::new(0),
            watch_latency_us: AtomicU64::new(0),
            no_watch_list: AtomicBool::new(false),
            gone_as_status: AtomicBool::new(false),
            failure: AtomicU16::new(0),
            requests: Mutex::default(),
            open_watches: Mutex::default(),
            tokens: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Switches {
    pub(crate) fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    fn is_refusing(&self) -> bool {
        *self.availability.borrow() == Availability::Refusing
    }

    pub(crate) fn interruptions(&self) -> watch::Receiver<Interruptions> {
        self.interruptions.subscribe()
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    pub(crate) fn watch_latency(&self) -> Duration {
        Duration::from_micros(self.watch_latency_us.load(Ordering::Relaxed))
    }

    pub(crate) fn watch_list(&self) -> bool {
        !self.no_watch_list.load(Ordering::Relaxed)
    }

    pub(crate) fn gone_as_status(&self) -> bool {
        self.gone_as_status.load(Ordering::Relaxed)
    }

    /// The code every request is to fail with, if any.
    pub(crate) fn failure(&self) -> Option<u16> {
        Some(self.failure.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// Whether this bearer token lets in.
    pub(crate) fn knows_token(&self, token: &str) -> bool {
        lock(&self.tokens).contains(token)
    }

    pub(crate) fn count(&self, verb: &'static str, resource: Resource) {
        *lock(&self.requests).entry((verb, resource)).or_default() += 1;
    }
}

/// Counts a watch as open for as long as it lives.
pub(crate) struct OpenWatch {
    shared: Arc<Shared>,
    resource: Resource,
}

impl OpenWatch {
    pub(crate) fn new(shared: Arc<Shared>, resource: Resource) -> Self {
        *lock(&shared.switches.open_watches).entry(resource).or_default() += 1;
        Self { shared, resource }
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut open = lock(&self.shared.switches.open_watches);
        if let Some(count) = open.get_mut(&self.resource) {
            *count = count.saturating_sub(1);
        }
        open.retain(|_, count| *count > 0);
    }
}

/// The switchboard. Cheap to clone.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
    listeners: Arc<Listeners>,
}

impl Faults {
    pub(super) fn new(shared: Arc<Shared>, listeners: Arc<Listeners>) -> Self {
        Self { shared, listeners }
    }

    /// Serves, hangs or refuses from now on. In effect on return.
    pub fn set_availability(&self, availability: Availability) {
        // Open before those waiting for it are told, closed after.
        if availability != Availability::Refusing && self.shared.switches.is_refusing() {
            self.listeners.reopen();
        }
        let before = self.shared.switches.availability.send_replace(availability);
        if availability == Availability::Refusing && before != Availability::Refusing {
            self.listeners.close();
        }
    }

    /// Forgets the history of every kind: a watch or a continued list from an older resource version gets 410.
    /// Open watches that are up to date go on.
    pub fn compact(&self) {
        self.shared.registry().store.compact();
        self.shared.snapshots().clear();
    }

    /// Ends every open watch with an `ERROR` event holding a 410 Status.
    pub fn expire_watches(&self) {
        self.shared.switches.interruptions.send_modify(|interruptions| interruptions.expired += 1);
    }

    /// Closes every open watch without a word.
    pub fn disconnect_watches(&self) {
        self.shared.switches.interruptions.send_modify(|interruptions| interruptions.disconnected += 1);
    }

    /// Delays every HTTP request by this much before it is looked at.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.switches.latency_us.store(micros(latency), Ordering::Relaxed);
    }

    /// Delays every batch of watch events by this much.
    pub fn set_watch_latency(&self, latency: Duration) {
        self.shared.switches.watch_latency_us.store(micros(latency), Ordering::Relaxed);
    }

    /// With `false`, `sendInitialEvents` is refused as by a server without WatchList.
    pub fn set_watch_list(&self, supported: bool) {
        self.shared.switches.no_watch_list.store(!supported, Ordering::Relaxed);
    }

    /// With `true`, a watch from a version that is too old is answered with HTTP 410 (as by a server without watch
    /// cache); with `false`, the default, with HTTP 200 and an `ERROR` event.
    pub fn set_gone_as_status(&self, as_status: bool) {
        self.shared.switches.gone_as_status.store(as_status, Ordering::Relaxed);
    }

    /// Answers every request with this HTTP code until called with `None`.
    pub fn fail_requests(&self, code: Option<u16>) {
        self.shared.switches.failure.store(code.unwrap_or(0), Ordering::Relaxed);
    }

    /// The bearer tokens that let in over TLS from now on; none at the start. Open watches go on.
    pub fn set_tokens<S: Into<String>>(&self, tokens: impl IntoIterator<Item = S>) {
        *lock(&self.shared.switches.tokens) = tokens.into_iter().map(Into::into).collect();
    }

    /// Sends the last `count` events of a kind again, in order, to all open watches: stale and duplicate news.
    pub fn repeat_events(&self, resource: Resource, count: usize) {
        self.shared.registry().store.repeat(resource, count);
    }

    /// HTTP requests since the start or the last reset, by verb (`get`, `list`, `watch`, `create`, `update`,
    /// `patch`, `delete`, `deletecollection`; `status` and other subresources count under the verb) and kind.
    pub fn requests(&self) -> Requests {
        lock(&self.shared.switches.requests).clone()
    }

    /// Starts counting from zero.
    pub fn reset_requests(&self) {
        lock(&self.shared.switches.requests).clear();
    }

    /// Watches open now, by kind.
    pub fn open_watches(&self) -> BTreeMap<Resource, usize> {
        lock(&self.shared.switches.open_watches).clone()
    }
}

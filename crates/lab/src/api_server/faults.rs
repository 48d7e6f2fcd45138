//! Faults on demand, for tests: what a real API server does on its bad days, by a call and not by HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Resource;

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

/// The switchboard. Cheap to clone.
#[derive(Clone)]
pub struct Faults {}

impl Faults {
    /// Serves, hangs or refuses from now on.
    pub fn set_availability(&self, _availability: Availability) {
        unimplemented!()
    }

    /// Forgets the history of every kind: a watch or a continued list from an older resource version gets 410.
    pub fn compact(&self) {
        unimplemented!()
    }

    /// Ends every open watch with an `ERROR` event holding a 410 Status.
    pub fn expire_watches(&self) {
        unimplemented!()
    }

    /// Closes every open watch without a word.
    pub fn disconnect_watches(&self) {
        unimplemented!()
    }

    /// Delays every HTTP request by this much before it is looked at.
    pub fn set_latency(&self, _latency: Duration) {
        unimplemented!()
    }

    /// Delays every watch event by this much.
    pub fn set_watch_latency(&self, _latency: Duration) {
        unimplemented!()
    }

    /// With `false`, `sendInitialEvents` is refused as by a server without WatchList.
    pub fn set_watch_list(&self, _supported: bool) {
        unimplemented!()
    }

    /// Answers every request with this HTTP code until called with `None`.
    pub fn fail_requests(&self, _code: Option<u16>) {
        unimplemented!()
    }

    /// Sends the last `count` events of a kind again, in order, to all open watches.
    pub fn repeat_events(&self, _resource: Resource, _count: usize) {
        unimplemented!()
    }

    /// HTTP requests since the start or the last reset, by verb (`get`, `list`, `watch`, `create`, …) and kind.
    pub fn requests(&self) -> BTreeMap<(&'static str, Resource), u64> {
        unimplemented!()
    }

    /// Starts counting from zero.
    pub fn reset_requests(&self) {
        unimplemented!()
    }

    /// Watches open now, by kind.
    pub fn open_watches(&self) -> BTreeMap<Resource, usize> {
        unimplemented!()
    }
}

//! Watches: a stream of events from the history of a kind, filtered and formatted for one client.
//!
//! A watch holds a position in the history, not a queue: a slow client costs nothing, and one that falls behind
//! the ring is told so (410), as by the real server.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use super::read::Filter;
use super::request::{Objects, Parameters, VersionMatch};
use super::view::View;
use super::{Call, json_response};
use crate::api_server::faults::{Interruptions, OpenWatch};
use crate::api_server::object::Object;
use crate::api_server::shared::Shared;
use crate::api_server::store::{Event, too_old};
use crate::api_server::{ApiError, Availability, EventKind, Resource};

/// Objects or events written in one go.
const BATCH: usize = 500;
/// The real server picks 30 to 60 minutes for clients that name no timeout.
const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(45 * 60);

/// Starts the stream, or refuses with a `Status` before it starts. A version that is too old is told inside the
/// stream, as by the real server's watch cache, unless the test wants it as an HTTP status.
pub(super) fn watch(shared: &Arc<Shared>, objects: &Objects, call: &Call) -> Result<Response, ApiError> {
    let watch = match Watch::start(shared, objects, call) {
        Err(gone @ ApiError::Expired(_)) if !shared.switches.gone_as_status() => {
            return Ok(json_response(StatusCode::OK, error_event(&gone)));
        }
        started => started?,
    };
    let body = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watch))
    });
    Ok(json_response(StatusCode::OK, Body::from_stream(body)))
}

struct Watch {
    shared: Arc<Shared>,
    resource: Resource,
    filter: Filter,
    view: View,
    bookmarks: bool,
    /// Objects of the initial state not yet sent.
    initial: VecDeque<Arc<Object>>,
    /// The bookmark that ends the initial state, at this version.
    initial_end: Option<u64>,
    /// Sequence number of the next event to read.
    position: u64,
    arrivals: Receiver<u64>,
    interruptions: Receiver<Interruptions>,
    seen: Interruptions,
    deadline: Instant,
    next_bookmark: Instant,
    /// Whether a Table has sent its column definitions.
    introduced: bool,
    ended: bool,
    _open: OpenWatch,
}

/// Whether the present state is sent first, and whether a bookmark marks its end.
fn initial_state(parameters: &Parameters, supported: bool) -> Result<(bool, bool), ApiError> {
    let invalid = |message: &str| {
        Err(ApiError::Invalid {
            kind: "ListOptions",
            name: String::new(),
            field: "sendInitialEvents".to_owned(),
            message: message.to_owned(),
        })
    };
    match (parameters.send_initial_events, parameters.version_match) {
        (Some(_), _) if !supported => invalid(
            "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        (Some(send), Some(VersionMatch::NotOlderThan)) => Ok((send, send && parameters.allow_bookmarks)),
        (Some(_), _) => {
            invalid("Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (None, Some(_)) => invalid(
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (None, None) => Ok((parameters.version.unwrap_or(0) == 0, false)),
    }
}

impl Watch {
    fn start(shared: &Arc<Shared>, objects: &Objects, call: &Call) -> Result<Self, ApiError> {
        let parameters = &call.parameters;
        let (send_state, mark_end) = initial_state(parameters, shared.switches.watch_list())?;
        let filter = Filter::of(objects, parameters)?;
        let resource = objects.resource;
        let mut registry = shared.registry();
        let store = &mut registry.store;
        let current = store.version();
        let asked = parameters.version.unwrap_or(0);
        let from = if send_state || asked == 0 { current } else { asked };
        if asked > current {
            return Err(ApiError::TooLargeResourceVersion { asked, current });
        }
        let matching = |object: &&Arc<Object>| filter.matches(&object.value);
        let initial: VecDeque<_> = match send_state {
            true => store.list(resource, filter.namespace.as_deref()).filter(matching).cloned().collect(),
            false => VecDeque::new(),
        };
        let (position, arrivals) = (store.position_after(resource, from)?, store.arrivals(resource));
        drop(registry);
        let interruptions = shared.switches.interruptions();
        let seen = *interruptions.borrow();
        let now = Instant::now();
        Ok(Self {
            shared: shared.clone(),
            resource,
            filter,
            view: call.view(),
            bookmarks: parameters.allow_bookmarks,
            initial,
            initial_end: mark_end.then_some(current),
            position,
            arrivals,
            interruptions,
            seen,
            deadline: now + parameters.timeout.unwrap_or(DEFAULT_TIMEOUT),
            next_bookmark: now + shared.bookmark_interval,
            introduced: false,
            ended: false,
            _open: OpenWatch::new(shared.clone(), resource),
        })
    }

    /// The next bytes to write; `None` ends the response.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // An error means the server is being dropped.
            self.shared.switches.availability().wait_for(|now| *now != Availability::Hanging).await.ok()?;
            if let Some(last) = self.interrupted() {
                return last;
            }
            if let Some(chunk) = self.initial_chunk().or_else(|| self.event_chunk()) {
                let latency = self.shared.switches.watch_latency();
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                return Some(chunk);
            }
            if let Some(last) = self.idle().await {
                return last;
            }
        }
    }

    /// `Some` when the watch is over: with a last event, or without a word.
    fn interrupted(&mut self) -> Option<Option<Bytes>> {
        let now = *self.interruptions.borrow_and_update();
        if self.ended || now.disconnected != self.seen.disconnected {
            return Some(None);
        }
        if now.expired != self.seen.expired {
            self.ended = true;
            return Some(Some(error_event(&too_old(0, 0))));
        }
        None
    }

    /// Waits for something to happen. `Some` is a bookmark to write, or the end.
    async fn idle(&mut self) -> Option<Option<Bytes>> {
        let bookmark_at = if self.bookmarks { self.next_bookmark } else { self.deadline };
        tokio::select! {
            changed = self.arrivals.changed() => changed.is_err().then_some(None),
            changed = self.interruptions.changed() => changed.is_err().then_some(None),
            () = sleep_until(self.deadline) => {
                // The last word of a watch that ends in good order is where to go on from.
                self.ended = true;
                Some(self.bookmark())
            }
            () = sleep_until(bookmark_at) => {
                self.next_bookmark = Instant::now() + self.shared.bookmark_interval;
                self.bookmark().map(Some)
            }
        }
    }

    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        let batch = self.initial.len().min(BATCH);
        let objects: Vec<_> = self.initial.drain(..batch).collect();
        for object in objects {
            self.write(&mut chunk, "ADDED", &object);
        }
        if self.initial.is_empty()
            && let Some(version) = self.initial_end.take()
        {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations,
                                  "creationTimestamp": null});
            write_event(
                &mut chunk,
                "BOOKMARK",
                self.view.bookmark(self.resource, metadata).to_string().as_bytes(),
            );
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// What the history holds for this watch. `None` when there is nothing new.
    fn event_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        self.arrivals.borrow_and_update();
        while chunk.is_empty() {
            let events = self.shared.registry().store.events_from(self.resource, self.position, BATCH);
            let events = match events {
                Ok(events) if events.is_empty() => return None,
                Ok(events) => events,
                Err(error) => {
                    self.ended = true;
                    return Some(error_event(&error));
                }
            };
            self.position += events.len() as u64;
            for event in &events {
                if let Some((kind, object)) = self.seen_as(event) {
                    self.write(&mut chunk, kind, &object);
                }
            }
        }
        Some(chunk.into())
    }

    /// An event as it looks through the selectors: an object that comes to match is new, one that ceases to is gone.
    fn seen_as(&self, event: &Event) -> Option<(&'static str, Arc<Object>)> {
        let now = self.filter.matches(&event.object.value);
        let before = event.previous.as_ref().filter(|previous| self.filter.matches(&previous.value));
        match (event.kind, before, now) {
            (EventKind::Added, _, true) => Some(("ADDED", event.object.clone())),
            (EventKind::Deleted, Some(_), _) => Some(("DELETED", event.object.clone())),
            (EventKind::Modified, Some(_), true) => Some(("MODIFIED", event.object.clone())),
            (EventKind::Modified, None, true) => Some(("ADDED", event.object.clone())),
            (EventKind::Modified, Some(previous), false) => {
                let last = Object::new((*previous.value).clone(), event.object.version);
                Some(("DELETED", Arc::new(last)))
            }
            _ => None,
        }
    }

    fn write(&mut self, chunk: &mut Vec<u8>, kind: &str, object: &Object) {
        let first = !std::mem::replace(&mut self.introduced, true);
        write_event(chunk, kind, &self.view.object(self.resource, object, first));
    }

    /// A bookmark at the present version, if the watch asked for them and has read everything up to it.
    fn bookmark(&mut self) -> Option<Bytes> {
        if !self.bookmarks {
            return None;
        }
        let registry = self.shared.registry();
        let behind =
            registry.store.events_from(self.resource, self.position, 1).is_ok_and(|rest| !rest.is_empty());
        if behind {
            return None;
        }
        let metadata =
            json!({"resourceVersion": registry.store.version().to_string(), "creationTimestamp": null});
        let mut chunk = Vec::new();
        write_event(
            &mut chunk,
            "BOOKMARK",
            self.view.bookmark(self.resource, metadata).to_string().as_bytes(),
        );
        Some(chunk.into())
    }
}

fn write_event(chunk: &mut Vec<u8>, kind: &str, object: &[u8]) {
    chunk.extend_from_slice(br#"{"type":""#);
    chunk.extend_from_slice(kind.as_bytes());
    chunk.extend_from_slice(br#"","object":"#);
    chunk.extend_from_slice(object);
    chunk.extend_from_slice(b"}\n");
}

fn error_event(error: &ApiError) -> Bytes {
    let event: Value = json!({"type": "ERROR", "object": error.status()});
    Bytes::from(format!("{event}\n"))
}

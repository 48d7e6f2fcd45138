//! Objects in memory by kind, namespace and name; one global resource version; a bounded history per kind.
//!
//! Only bookkeeping: every state given is taken. What may be written is decided in `rules`.
//! A write costs O(log n) in the objects of its kind plus one queue push per in-process watch; a reader
//! of events takes shared pointers, never copies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::handle::{EventKind, WatchEvent};
use super::object::{self, Object};
use super::{ApiError, Resource};

/// One change in the history of a kind.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// The state after the change; the last state under the deletion's version when deleted.
    pub(crate) object: Arc<Object>,
    /// The state before.
    pub(crate) previous: Option<Arc<Object>>,
    /// Sent a second time on demand: its version is older than its place in the history.
    repeated: bool,
}

/// What a compaction or a full ring says to whoever is behind.
pub(crate) fn too_old(asked: u64, oldest: u64) -> ApiError {
    ApiError::Expired(format!("too old resource version: {asked} ({oldest})"))
}

/// The objects of one kind and their history.
struct Collection {
    by_namespace: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    history: VecDeque<Arc<Event>>,
    /// Sequence number of the first event in `history`.
    first: u64,
    /// Changes up to this version are no longer in `history`.
    forgotten: u64,
    /// Sequence number the next event will get; wakes HTTP watches.
    position: watch::Sender<u64>,
    subscribers: Vec<mpsc::UnboundedSender<WatchEvent>>,
}

impl Collection {
    fn new() -> Self {
        Self {
            by_namespace: BTreeMap::new(),
            history: VecDeque::new(),
            first: 0,
            forgotten: 0,
            position: watch::Sender::new(0),
            subscribers: Vec::new(),
        }
    }

    fn next(&self) -> u64 {
        self.first + self.history.len() as u64
    }

    fn push(&mut self, event: Event, capacity: usize) {
        let event = Arc::new(event);
        self.subscribers.retain(|subscriber| {
            let event = WatchEvent { kind: event.kind, object: event.object.value.clone() };
            subscriber.send(event).is_ok()
        });
        self.history.push_back(event);
        while self.history.len() > capacity {
            self.forget_first();
        }
        self.position.send_replace(self.next());
    }

    fn forget_first(&mut self) {
        if let Some(event) = self.history.pop_front() {
            self.first += 1;
            self.forgotten = self.forgotten.max(event.object.version);
        }
    }
}

/// The whole state of the cluster.
pub(crate) struct Store {
    version: u64,
    collections: BTreeMap<Resource, Collection>,
    history: usize,
}

impl Store {
    /// An empty store that remembers `history` events of each kind.
    pub(crate) fn new(history: usize) -> Self {
        let collections = Resource::ALL.into_iter().map(|resource| (resource, Collection::new())).collect();
        Self { version: 1, collections, history }
    }

    /// The version of the last write of any kind.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn collection(&mut self, resource: Resource) -> &mut Collection {
        self.collections.entry(resource).or_insert_with(Collection::new)
    }

    /// One object. `namespace` is empty for cluster-scoped kinds. O(log n).
    pub(crate) fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.collections.get(&resource)?.by_namespace.get(namespace)?.get(name)
    }

    /// The objects of a kind, of one namespace or of all, by namespace and name.
    pub(crate) fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let spaces = self.collections.get(&resource).map(|collection| &collection.by_namespace);
        let one = namespace.and_then(|namespace| spaces.and_then(|spaces| spaces.get(namespace)));
        let all = spaces.filter(|_| namespace.is_none()).into_iter().flat_map(BTreeMap::values);
        one.into_iter().chain(all).flat_map(BTreeMap::values)
    }

    /// The objects as they were at `version`: the present, with later changes undone. `Err` when the
    /// history does not reach back so far.
    pub(crate) fn list_at(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        let present = self.list(resource, namespace);
        let key = |object: &Object| {
            (object::namespace(&object.value).to_owned(), object::name(&object.value).to_owned())
        };
        let Some(collection) = self.collections.get(&resource) else { return Ok(Vec::new()) };
        if version < collection.forgotten {
            return Err(too_old(version, collection.forgotten));
        }
        let mut objects: BTreeMap<_, _> = present.map(|object| (key(object), object.clone())).collect();
        let later = collection.history.iter().rev().filter(|event| !event.repeated);
        for event in later.take_while(|event| event.object.version > version) {
            let key = key(&event.object);
            if namespace.is_some_and(|namespace| namespace != key.0) {
                continue;
            }
            match &event.previous {
                Some(previous) => objects.insert(key, previous.clone()),
                None => objects.remove(&key),
            };
        }
        Ok(objects.into_values().collect())
    }

    /// Stores a state under a new version and tells the watches.
    pub(crate) fn put(&mut self, resource: Resource, value: Value) -> Arc<Object> {
        self.version += 1;
        let (version, history) = (self.version, self.history);
        let (namespace, name) = (object::namespace(&value).to_owned(), object::name(&value).to_owned());
        let object = Arc::new(Object::new(value, version));
        let collection = self.collection(resource);
        let previous = collection.by_namespace.entry(namespace).or_default().insert(name, object.clone());
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        collection.push(Event { kind, object: object.clone(), previous, repeated: false }, history);
        object
    }

    /// Removes an object; the last state, under the deletion's version, goes to the watches.
    pub(crate) fn remove(&mut self, resource: Resource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let (version, history) = (self.version + 1, self.history);
        let collection = self.collection(resource);
        let space = collection.by_namespace.get_mut(namespace)?;
        let previous = space.remove(name)?;
        if space.is_empty() {
            collection.by_namespace.remove(namespace);
        }
        let object = Arc::new(Object::new((*previous.value).clone(), version));
        let event = Event {
            kind: EventKind::Deleted,
            object: object.clone(),
            previous: Some(previous),
            repeated: false,
        };
        collection.push(event, history);
        self.version = version;
        Some(object)
    }

    /// The present objects and a queue of everything after them.
    pub(crate) fn subscribe(
        &mut self,
        resource: Resource,
    ) -> (Vec<Arc<Value>>, mpsc::UnboundedReceiver<WatchEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let present = self.list(resource, None).map(|object| object.value.clone()).collect();
        self.collection(resource).subscribers.push(sender);
        (present, receiver)
    }

    /// Where a watch from after `version` starts reading, or `Expired`. O(events since).
    pub(crate) fn position_after(&self, resource: Resource, version: u64) -> Result<u64, ApiError> {
        let Some(collection) = self.collections.get(&resource) else { return Ok(0) };
        if version > self.version {
            return Err(ApiError::TooLargeResourceVersion { asked: version, current: self.version });
        }
        if version < collection.forgotten {
            return Err(too_old(version, collection.forgotten));
        }
        let later = |event: &&Arc<Event>| event.repeated || event.object.version > version;
        Ok(collection.next() - collection.history.iter().rev().take_while(later).count() as u64)
    }

    /// Up to `limit` events from sequence number `position`; `Expired` when the ring has moved past it.
    pub(crate) fn events_from(
        &self,
        resource: Resource,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, ApiError> {
        let Some(collection) = self.collections.get(&resource) else { return Ok(Vec::new()) };
        match position.checked_sub(collection.first) {
            Some(skip) => {
                let start = usize::try_from(skip).unwrap_or(usize::MAX).min(collection.history.len());
                Ok(collection.history.range(start..).take(limit).cloned().collect())
            }
            None => Err(too_old(0, collection.forgotten)),
        }
    }

    /// Wakes when events of the kind arrive.
    pub(crate) fn arrivals(&mut self, resource: Resource) -> watch::Receiver<u64> {
        self.collection(resource).position.subscribe()
    }

    /// Drops all history: only watches that have read everything go on.
    pub(crate) fn compact(&mut self) {
        let version = self.version;
        for collection in self.collections.values_mut() {
            while !collection.history.is_empty() {
                collection.forget_first();
            }
            collection.forgotten = version;
        }
    }

    /// Queues the last `count` events of a kind again, in order.
    pub(crate) fn repeat(&mut self, resource: Resource, count: usize) {
        let capacity = self.history;
        let collection = self.collection(resource);
        let skip = collection.history.len().saturating_sub(count);
        let again: Vec<_> = collection.history.range(skip..).cloned().collect();
        for event in again {
            let (object, previous) = (event.object.clone(), event.previous.clone());
            collection.push(Event { kind: event.kind, object, previous, repeated: true }, capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str, color: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name}, "color": color})
    }

    fn colors(objects: &[Arc<Object>]) -> Vec<&str> {
        objects.iter().map(|object| object::text(&object.value, &["color"])).collect()
    }

    #[test]
    fn a_past_version_is_listed_as_it_was() {
        let mut store = Store::new(10);
        store.put(Resource::Services, named("a", "red"));
        let past = store.version();
        store.put(Resource::Services, named("a", "blue"));
        store.put(Resource::Services, named("b", "green"));
        store.remove(Resource::Services, "default", "a");
        let at = store.list_at(Resource::Services, None, past).unwrap();
        assert_eq!(colors(&at), ["red"]);
        let at = store.list_at(Resource::Services, Some("default"), past + 2).unwrap();
        assert_eq!(colors(&at), ["blue", "green"]);
        assert!(store.list_at(Resource::Services, Some("other"), past).unwrap().is_empty());
    }

    #[test]
    fn a_full_ring_expires_watches_from_before_it() {
        let mut store = Store::new(2);
        let start = store.version();
        for color in ["red", "blue", "green"] {
            store.put(Resource::Pods, named("a", color));
        }
        assert!(matches!(store.position_after(Resource::Pods, start), Err(ApiError::Expired(_))));
        let position = store.position_after(Resource::Pods, start + 1).unwrap();
        let events = store.events_from(Resource::Pods, position, 10).unwrap();
        assert_eq!(events.iter().map(|event| event.object.version).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn compaction_spares_a_watch_that_is_up_to_date() {
        let mut store = Store::new(10);
        store.put(Resource::Pods, named("a", "red"));
        let version = store.version();
        let position = store.position_after(Resource::Pods, version).unwrap();
        store.compact();
        store.put(Resource::Pods, named("a", "blue"));
        assert_eq!(store.events_from(Resource::Pods, position, 10).unwrap().len(), 1);
        assert!(store.position_after(Resource::Pods, version - 1).is_err());
        assert!(store.position_after(Resource::Pods, version).is_ok());
    }

    #[test]
    fn a_repeated_event_is_old_news_to_a_new_watch() {
        let mut store = Store::new(10);
        store.put(Resource::Pods, named("a", "red"));
        let (_, mut queue) = store.subscribe(Resource::Pods);
        store.put(Resource::Pods, named("a", "blue"));
        store.repeat(Resource::Pods, 2);
        let mut seen = Vec::new();
        while let Ok(event) = queue.try_recv() {
            seen.push(object::text(&event.object, &["color"]).to_owned());
        }
        assert_eq!(seen, ["blue", "red", "blue"]);
    }
}

//! kube-rs watchers against the API server: both ways to start, and every way a watch can be lost.
//!
//! A watcher is taken to work when the mirror it feeds converges on the store's objects.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, too"
)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use lab::api_server::{ApiServer, Availability, Config, Faults, Handle, Resource};
use serde_json::json;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(30);

type Events = Pin<Box<dyn Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Send>>;

struct Mirror {
    _server: ApiServer,
    handle: Handle,
    faults: Faults,
    events: Events,
    seen: BTreeMap<String, String>,
    /// Names seen since the present initial list began.
    listing: Option<BTreeMap<String, String>>,
    lists: usize,
    errors: Vec<watcher::Error>,
}

impl Mirror {
    async fn start(history: usize, config: watcher::Config) -> Self {
        let config_server = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            history,
            bookmark_interval: Duration::from_millis(50),
            ..Config::default()
        };
        let server = ApiServer::start(config_server).await.unwrap();
        let client =
            Client::try_from(kube::Config::new(format!("http://{}", server.addresses()[0]).parse().unwrap()));
        let api: Api<ConfigMap> = Api::all(client.unwrap());
        let (handle, faults) = (server.handle(), server.faults());
        let events: Events = Box::pin(watcher(api, config));
        Self {
            _server: server,
            handle,
            faults,
            events,
            seen: BTreeMap::new(),
            listing: None,
            lists: 0,
            errors: Vec::new(),
        }
    }

    fn set(&self, name: &str, value: &str) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}});
        self.handle.apply(object).unwrap();
    }

    fn delete(&self, name: &str) {
        self.handle.delete(Resource::ConfigMaps, None, name, None).unwrap();
    }

    fn wanted(&self) -> BTreeMap<String, String> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let maps = self.handle.list(Resource::ConfigMaps, None);
        maps.iter().map(|map| (text(&map["metadata"]["name"]), text(&map["data"]["v"]))).collect()
    }

    fn take(&mut self, event: Result<Event<ConfigMap>, watcher::Error>) {
        let entry = |map: ConfigMap| (map.metadata.name.unwrap(), map.data.unwrap_or_default()["v"].clone());
        match event {
            Ok(Event::Init) => self.listing = Some(BTreeMap::new()),
            Ok(Event::InitApply(map)) => self.listing.as_mut().unwrap().extend([entry(map)]),
            Ok(Event::InitDone) => {
                self.seen = self.listing.take().unwrap();
                self.lists += 1;
            }
            Ok(Event::Apply(map)) => self.seen.extend([entry(map)]),
            Ok(Event::Delete(map)) => drop(self.seen.remove(&entry(map).0)),
            Err(error) => self.errors.push(error),
        }
    }

    /// Reads until the mirror equals the store.
    async fn converges(&mut self) {
        let wanted = self.wanted();
        let read = async {
            while self.lists == 0 || self.seen != wanted {
                let event = self.events.next().await.unwrap();
                let failed = event.is_err();
                self.take(event);
                if failed {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        if timeout(BOUND, read).await.is_err() {
            panic!("{:?} is not {wanted:?}; errors {:?}", self.seen, self.errors);
        }
    }

    /// Reads until the watcher has listed `count` times and agrees again.
    async fn lists_again(&mut self, count: usize) {
        let read = async {
            while self.lists < count {
                let event = self.events.next().await.unwrap();
                let failed = event.is_err();
                self.take(event);
                if failed {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        timeout(BOUND, read).await.unwrap_or_else(|_| {
            panic!(
                "{} lists; last errors {:?}",
                self.lists,
                self.errors.iter().rev().take(3).collect::<Vec<_>>()
            )
        });
        self.converges().await;
    }

    /// Reads until the server has this many open watches of config maps.
    async fn watches(&mut self, count: usize) {
        let poll = async {
            while self.faults.open_watches().get(&Resource::ConfigMaps).copied().unwrap_or(0) != count {
                let event = timeout(Duration::from_millis(5), self.events.next()).await;
                if let Ok(Some(event)) = event {
                    self.take(event);
                }
            }
        };
        timeout(BOUND, poll).await.expect("no watch is opened");
    }

    fn requests(&self, verb: &'static str) -> u64 {
        self.faults.requests().get(&(verb, Resource::ConfigMaps)).copied().unwrap_or_default()
    }
}

fn list_watch() -> watcher::Config {
    watcher::Config::default().page_size(3)
}

fn streaming() -> watcher::Config {
    watcher::Config::default().streaming_lists()
}

async fn follows(config: watcher::Config) -> Mirror {
    let mut mirror = Mirror::start(1000, config).await;
    for index in 0..10 {
        mirror.set(&format!("m{index}"), "a");
    }
    mirror.converges().await;
    mirror.set("m3", "b");
    mirror.delete("m4");
    mirror.set("n", "a");
    mirror.converges().await;
    assert_eq!((mirror.lists, mirror.errors.len()), (1, 0), "{:?}", mirror.errors);
    mirror
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_and_then_watched() {
    let mirror = follows(list_watch()).await;
    assert_eq!((mirror.requests("list"), mirror.requests("watch")), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_list_needs_one_request() {
    let mirror = follows(streaming()).await;
    assert_eq!((mirror.requests("list"), mirror.requests("watch")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_watch_list_says_so() {
    let mut mirror = Mirror::start(1000, streaming()).await;
    mirror.faults.set_watch_list(false);
    let event = timeout(BOUND, mirror.events.next()).await.unwrap().unwrap();
    match event {
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => assert_eq!(status.code, 422),
        other => panic!("{other:?}"),
    }
}

async fn goes_on_after_a_disconnect(config: watcher::Config) {
    let mut mirror = follows(config).await;
    mirror.watches(1).await;
    mirror.faults.disconnect_watches();
    mirror.set("m5", "c");
    mirror.delete("m6");
    mirror.converges().await;
    assert_eq!(mirror.lists, 1, "a watch within the history needs no new list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_watch_goes_on_where_it_was() {
    goes_on_after_a_disconnect(list_watch()).await;
    goes_on_after_a_disconnect(streaming()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_can_be_an_http_status() {
    let mut mirror = follows(list_watch()).await;
    mirror.watches(1).await;
    mirror.faults.set_gone_as_status(true);
    mirror.faults.set_availability(Availability::Refusing);
    mirror.set("m5", "c");
    mirror.faults.compact();
    mirror.faults.set_availability(Availability::Serving);
    let gone = async {
        while let Some(event) = mirror.events.next().await {
            match event {
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410 => {
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => {}
            }
        }
    };
    timeout(BOUND, gone).await.expect("no 410");
}

async fn lists_again_after_compaction(config: watcher::Config) {
    let mut mirror = follows(config).await;
    mirror.watches(1).await;
    mirror.faults.set_availability(Availability::Refusing);
    mirror.delete("m5");
    mirror.set("m6", "d");
    mirror.faults.compact();
    mirror.set("m7", "d");
    mirror.faults.set_availability(Availability::Serving);
    mirror.lists_again(2).await;
    assert!(!mirror.errors.is_empty(), "the 410 is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_watch_lists_again() {
    lists_again_after_compaction(list_watch()).await;
    lists_again_after_compaction(streaming()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_is_told_and_lists_again() {
    let mut mirror = follows(list_watch()).await;
    mirror.watches(1).await;
    mirror.faults.expire_watches();
    mirror.lists_again(2).await;
    let told = mirror
        .errors
        .iter()
        .any(|error| matches!(error, watcher::Error::WatchError(status) if status.code == 410));
    assert!(told, "{:?}", mirror.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_keep_an_idle_watch_within_a_short_history() {
    let mut mirror = Mirror::start(4, list_watch()).await;
    mirror.set("a", "a");
    mirror.converges().await;
    mirror.watches(1).await;
    let version = mirror.handle.get(Resource::ConfigMaps, None, "a").unwrap();
    // Versions move on without events of this kind; the bookmark must carry the watch past a compaction.
    for index in 0..20 {
        mirror.handle.create(Resource::Secrets, json!({"metadata": {"name": format!("s{index}")}})).unwrap();
    }
    mirror.faults.reset_requests();
    for _ in 0..100 {
        let _ = timeout(Duration::from_millis(20), mirror.events.next()).await;
    }
    mirror.faults.compact();
    mirror.faults.disconnect_watches();
    mirror.set("a", "b");
    mirror.converges().await;
    assert_eq!(mirror.lists, 1, "listed again from {version}: the bookmark did not arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_are_news_to_the_client() {
    let mut mirror = follows(list_watch()).await;
    mirror.watches(1).await;
    mirror.set("m8", "x");
    mirror.set("m8", "y");
    mirror.converges().await;
    mirror.faults.repeat_events(Resource::ConfigMaps, 2);
    let mut values = Vec::new();
    while values.len() < 2 {
        match timeout(BOUND, mirror.events.next()).await.unwrap().unwrap().unwrap() {
            Event::Apply(map) => values.push(map.data.unwrap()["v"].clone()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values, ["x", "y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_server_answers_when_it_is_back() {
    let mut mirror = follows(list_watch()).await;
    mirror.watches(1).await;
    mirror.faults.set_availability(Availability::Hanging);
    mirror.set("m9", "z");
    let silence = timeout(Duration::from_millis(200), mirror.events.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    mirror.faults.set_availability(Availability::Serving);
    mirror.converges().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_comes_and_goes_with_its_labels() {
    let mut mirror = Mirror::start(1000, list_watch().labels("tier=front")).await;
    mirror.set("a", "1");
    let label = |mirror: &Mirror, tier: &str| {
        let patch = json!({"metadata": {"labels": {"tier": tier}}});
        mirror.handle.patch(Resource::ConfigMaps, None, "a", &patch).unwrap();
    };
    let event = timeout(BOUND, mirror.events.next()).await.unwrap().unwrap();
    assert!(matches!(event, Ok(Event::Init)), "{event:?}");
    let event = timeout(BOUND, mirror.events.next()).await.unwrap().unwrap();
    assert!(matches!(event, Ok(Event::InitDone)), "{event:?}");
    for tier in ["front", "back", "front"] {
        label(&mirror, tier);
        let event = timeout(BOUND, mirror.events.next()).await.unwrap().unwrap().unwrap();
        match (tier, event) {
            ("front", Event::Apply(_)) | ("back", Event::Delete(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

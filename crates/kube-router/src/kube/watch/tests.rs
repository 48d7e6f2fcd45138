//! Watches against a scripted API server over real HTTP: each request takes the next answer of the script, and what
//! was asked is kept.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::*;

/// Bound of every wait; never reached by a test that passes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server answers to one request.
enum Answer {
    /// A document.
    Document(StatusCode, Value),
    /// A watch: these frames, then the end of the stream.
    Frames(Vec<Value>),
    /// A watch that stays open after its frames.
    Open(Vec<Value>),
    /// A watch whose connection breaks after its frames, once told to.
    Broken(Vec<Value>, Arc<Notify>),
    /// No answer at all.
    Silence,
    /// A watch that ends in the middle of a frame, or with one that is no JSON.
    Text(&'static str),
}

type Asked = BTreeMap<String, String>;

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Script {
        Script { answers: Arc::new(Mutex::new(answers.into_iter().collect())), asked: Arc::default() }
    }

    /// The parameters of the requests so far, with the path as `path`.
    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic holds it").clone()
    }

    async fn serve(self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(self);
        axum::serve(listener, router).await.expect("the server runs as long as the test");
    }
}

/// Answers by the script; after its end with open, silent watches.
async fn answer(State(script): State<Script>, uri: Uri, Query(mut asked): Query<Asked>) -> Response {
    asked.insert("path".to_owned(), uri.path().to_owned());
    script.asked.lock().expect("no panic holds it").push(asked);
    let answer =
        script.answers.lock().expect("no panic holds it").pop_front().unwrap_or(Answer::Open(Vec::new()));
    let lines = |frames: Vec<Value>| {
        futures::stream::iter(frames).map(|frame| Ok::<_, std::io::Error>(format!("{frame}\n")))
    };
    match answer {
        Answer::Document(status, value) => {
            let mut response = Response::new(Body::from(value.to_string()));
            *response.status_mut() = status;
            response
        }
        Answer::Frames(frames) => Response::new(Body::from_stream(lines(frames))),
        Answer::Open(frames) => {
            Response::new(Body::from_stream(lines(frames).chain(futures::stream::pending())))
        }
        Answer::Silence => std::future::pending().await,
        Answer::Broken(frames, cut) => {
            let broken = futures::stream::once(async move {
                cut.notified().await;
                Err(std::io::Error::other("cut"))
            });
            Response::new(Body::from_stream(lines(frames).chain(broken)))
        }
        Answer::Text(text) => Response::new(Body::from(text)),
    }
}

fn object(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn frame(kind: &str, name: &str, version: u64) -> Value {
    json!({"type": kind, "object": object(name, version)})
}

fn bookmark(version: u64, annotations: &Value) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    json!({"type": "BOOKMARK", "object": {"kind": "Node", "apiVersion": "v1", "metadata": metadata}})
}

fn list_end(version: u64) -> Value {
    bookmark(version, &json!({"k8s.io/initial-events-end": "true"}))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
           "message": message, "metadata": {}})
}

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    Answer::Document(StatusCode::from_u16(code).expect("a status"), status(code, reason, message))
}

fn page(names: &[&str], version: u64, next: &str) -> Answer {
    let items: Vec<Value> = names.iter().map(|name| object(name, version)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    Answer::Document(StatusCode::OK, json!({"kind": "NodeList", "metadata": metadata, "items": items}))
}

fn quick() -> Tuning {
    Tuning {
        start_after: Duration::ZERO,
        pause: (Duration::from_millis(2), Duration::from_millis(20)),
        batch: 8,
        ..Tuning::default()
    }
}

fn client(address: SocketAddr) -> Client {
    let uri = format!("http://{address}").parse().expect("a URI");
    crate::kube::connection::client(&kube::Config::new(uri)).expect("a client")
}

struct Scene {
    script: Script,
    events: Receiver<Vec<WatchEvent>>,
    /// Received, and not looked at yet.
    received: VecDeque<WatchEvent>,
    status: Arc<WatchStatus>,
    task: JoinHandle<()>,
}

async fn scene_with(script: Script, selection: Selection, tuning: Tuning) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(script.clone().serve(listener));
    let (sender, events) = channel(4);
    let (status, task) = start(client(address), selection, tuning, sender);
    Scene { script, events, received: VecDeque::new(), status, task }
}

async fn scene(answers: impl IntoIterator<Item = Answer>) -> Scene {
    scene_with(Script::of(answers), Selection::all(Kind::Node), quick()).await
}

impl Scene {
    /// The next event.
    async fn event(&mut self) -> WatchEvent {
        loop {
            if let Some(event) = self.received.pop_front() {
                return event;
            }
            self.received.extend(self.events.recv().await.expect("the watch runs"));
        }
    }

    /// The next events, as words; texts of failures are left out.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        while words.len() < count {
            let event = timeout(PATIENCE, self.event()).await;
            let event = event
                .unwrap_or_else(|_| panic!("nothing came after {words:?}, asked {:#?}", self.script.asked()));
            words.push(match event {
                WatchEvent::ListBegins(_) => "list".to_owned(),
                WatchEvent::ListEnds(_) => "end".to_owned(),
                WatchEvent::Applied(object, _) => format!("+{}", object.id()),
                WatchEvent::Ignored(_, id, _) => format!("?{id}"),
                WatchEvent::Deleted(_, id) => format!("-{id}"),
                WatchEvent::Broken(..) => "broken".to_owned(),
                WatchEvent::Mended(_) => "mended".to_owned(),
            });
        }
        words
    }

    /// Waits until so many requests were made, and gives them.
    async fn asked(&self, count: usize) -> Vec<Asked> {
        let reached = async {
            while self.script.asked().len() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("asked only {:#?}", self.script.asked()));
        self.script.asked()
    }
}

fn parameter<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    asked.get(name).map(String::as_str)
}

#[tokio::test]
async fn a_streaming_list_is_consistent_and_goes_on_as_a_watch() {
    let frames = vec![
        frame("ADDED", "a", 5),
        frame("ADDED", "b", 3),
        list_end(9),
        frame("MODIFIED", "a", 10),
        frame("DELETED", "b", 11),
    ];
    let mut scene = scene([Answer::Open(frames)]).await;
    assert_eq!(scene.next(6).await, ["list", "+a", "+b", "end", "+a", "-b"]);
    let asked = scene.asked(1).await;
    assert_eq!(asked[0]["path"], "/api/v1/nodes");
    assert_eq!(parameter(&asked[0], "watch"), Some("true"));
    assert_eq!(parameter(&asked[0], "sendInitialEvents"), Some("true"));
    assert_eq!(parameter(&asked[0], "resourceVersionMatch"), Some("NotOlderThan"));
    assert_eq!(parameter(&asked[0], "allowWatchBookmarks"), Some("true"));
    assert_eq!(parameter(&asked[0], "resourceVersion"), Some(""), "0 would allow a stale list");
    assert!(scene.status.synced() && !scene.status.broken());
    assert_eq!((scene.status.lists(), scene.status.events()), (1, 4));
    assert!(scene.status.last_event().is_some());
}

#[tokio::test]
async fn selectors_are_sent_with_lists_and_watches() {
    let selection = Selection { labels: Some("!x".to_owned()), ..Selection::pods_of("node-1") };
    let refused = refusal(422, "Invalid", "sendInitialEvents is forbidden");
    let script = Script::of([refused, page(&[], 7, "")]);
    let mut scene = scene_with(script, selection, quick()).await;
    assert_eq!(scene.next(2).await, ["list", "end"]);
    for asked in scene.asked(3).await {
        assert_eq!(asked["path"], "/api/v1/pods");
        assert_eq!(parameter(&asked, "fieldSelector"), Some("spec.nodeName=node-1"));
        assert_eq!(parameter(&asked, "labelSelector"), Some("!x"));
    }
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_pages() {
    let mut scene = scene([
        refusal(
            422,
            "Invalid",
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        page(&["a", "b"], 7, "next-1"),
        page(&["c"], 7, ""),
        Answer::Open(vec![frame("ADDED", "d", 8)]),
    ])
    .await;
    assert_eq!(scene.next(6).await, ["list", "+a", "+b", "+c", "end", "+d"]);
    let asked = scene.asked(4).await;
    assert_eq!(parameter(&asked[1], "limit"), Some("500"));
    assert_eq!(parameter(&asked[1], "resourceVersion"), None, "a version would allow a stale list");
    assert_eq!(parameter(&asked[1], "continue"), None);
    assert_eq!(parameter(&asked[2], "continue"), Some("next-1"));
    assert_eq!(parameter(&asked[3], "resourceVersion"), Some("7"));
    assert_eq!(parameter(&asked[3], "sendInitialEvents"), None);
}

#[tokio::test]
async fn a_server_that_never_ends_a_streaming_list_is_asked_for_pages() {
    let script = Script::of([Answer::Open(vec![frame("ADDED", "a", 5)]), page(&["a"], 7, "")]);
    let tuning = Tuning { list_silence: Duration::from_secs(1), ..quick() };
    let mut scene = scene_with(script, Selection::all(Kind::Node), tuning).await;
    assert_eq!(scene.next(5).await, ["list", "+a", "list", "+a", "end"]);
}

#[tokio::test]
async fn a_list_whose_next_page_expired_begins_again() {
    let mut scene = scene([
        refusal(400, "BadRequest", "no"),
        page(&["a"], 7, "next-1"),
        refusal(410, "Expired", "the provided continue parameter is too old"),
        page(&["a", "b"], 8, ""),
    ])
    .await;
    assert_eq!(scene.next(6).await, ["list", "+a", "list", "+a", "+b", "end"]);
}

#[tokio::test]
async fn a_version_too_old_makes_a_new_list() {
    // as an event, and as the answer to the request itself
    let gone = json!({"type": "ERROR", "object": status(410, "Expired", "too old resource version")});
    let mut scene = scene([
        Answer::Frames(vec![frame("ADDED", "a", 5), list_end(9), gone]),
        Answer::Frames(vec![frame("ADDED", "b", 12), list_end(12)]),
        refusal(410, "Gone", "too old resource version"),
        Answer::Open(vec![list_end(20)]),
    ])
    .await;
    assert_eq!(scene.next(8).await, ["list", "+a", "end", "list", "+b", "end", "list", "end"]);
    let asked = scene.asked(4).await;
    assert_eq!(parameter(&asked[1], "resourceVersion"), Some(""));
    assert_eq!(parameter(&asked[2], "resourceVersion"), Some("12"));
    assert_eq!(parameter(&asked[3], "resourceVersion"), Some(""));
    assert_eq!(scene.status.lists(), 3);
    assert!(!scene.status.broken(), "an old version is no failure");
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_where_it_was() {
    let mut scene = scene([
        Answer::Frames(vec![frame("ADDED", "a", 5), list_end(9), frame("MODIFIED", "a", 10)]),
        Answer::Frames(vec![frame("DELETED", "a", 13)]),
        Answer::Frames(vec![bookmark(40, &json!({}))]),
        Answer::Open(vec![frame("ADDED", "b", 41)]),
    ])
    .await;
    assert_eq!(scene.next(6).await, ["list", "+a", "end", "+a", "-a", "+b"]);
    let versions: Vec<_> =
        scene.asked(4).await.iter().map(|asked| asked["resourceVersion"].clone()).collect();
    assert_eq!(versions, ["", "10", "13", "40"], "a bookmark moves the version on");
    assert_eq!(scene.status.lists(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_resumed() {
    let cut = Arc::new(Notify::new());
    let mut scene = scene([
        Answer::Broken(vec![frame("ADDED", "a", 5), list_end(9), frame("MODIFIED", "a", 10)], cut.clone()),
        Answer::Text("{\"type\": \"MODIFIED\", \"object\": {\"meta"),
        Answer::Open(vec![frame("ADDED", "b", 11)]),
    ])
    .await;
    assert_eq!(scene.next(4).await, ["list", "+a", "end", "+a"]);
    cut.notify_one();
    let words = scene.next(1).await;
    assert!(words == ["+b"] || (words == ["broken"] && scene.next(2).await == ["mended", "+b"]), "{words:?}");
    let versions: Vec<_> =
        scene.asked(3).await.iter().map(|asked| asked["resourceVersion"].clone()).collect();
    assert_eq!(versions, ["", "10", "10"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_asked_again() {
    let script =
        Script::of([Answer::Silence, refusal(422, "Invalid", "no"), Answer::Silence, page(&["a"], 7, "")]);
    let tuning = Tuning { answer: Duration::from_secs(1), ..quick() };
    let mut scene = scene_with(script, Selection::all(Kind::Node), tuning).await;
    assert_eq!(scene.next(5).await, ["broken", "mended", "list", "+a", "end"]);
}

#[tokio::test]
async fn a_streaming_list_that_breaks_off_begins_again() {
    let mut scene = scene([
        Answer::Frames(vec![frame("ADDED", "a", 5)]),
        Answer::Frames(vec![frame("ADDED", "a", 5), list_end(9)]),
    ])
    .await;
    assert_eq!(scene.next(5).await, ["list", "+a", "list", "+a", "end"]);
    assert_eq!(parameter(&scene.asked(2).await[1], "sendInitialEvents"), Some("true"));
}

#[tokio::test]
async fn a_silent_watch_is_resumed() {
    let script = Script::of([Answer::Open(vec![list_end(9)]), Answer::Open(vec![frame("ADDED", "a", 10)])]);
    let tuning = Tuning { silence: Duration::from_secs(1), ..quick() };
    let mut scene = scene_with(script, Selection::all(Kind::Node), tuning).await;
    assert_eq!(scene.next(3).await, ["list", "end", "+a"]);
    assert_eq!(parameter(&scene.asked(2).await[1], "resourceVersion"), Some("9"));
}

#[tokio::test]
async fn an_event_that_cannot_be_read_makes_a_new_list() {
    let mut scene = scene([
        Answer::Frames(vec![list_end(9)]),
        Answer::Text("{\"type\": \"MODIFIED\", \"object\": nonsense}\n"),
        Answer::Open(vec![frame("ADDED", "a", 10), list_end(10)]),
    ])
    .await;
    assert_eq!(scene.next(7).await, ["list", "end", "broken", "mended", "list", "+a", "end"]);
}

#[tokio::test]
async fn a_server_restored_from_a_backup_is_listed_anew() {
    let mut scene = scene([
        Answer::Frames(vec![list_end(900)]),
        refusal(504, "Timeout", "Too large resource version: 900, current: 12"),
        Answer::Open(vec![frame("ADDED", "a", 10), list_end(12)]),
    ])
    .await;
    assert_eq!(scene.next(7).await, ["list", "end", "broken", "mended", "list", "+a", "end"]);
}

#[tokio::test]
async fn a_refusal_is_no_reason_to_change_the_way_of_listing() {
    for (code, reason) in [
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (429, "TooManyRequests"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
    ] {
        let mut scene = scene([refusal(code, reason, "not now"), Answer::Open(vec![list_end(9)])]).await;
        assert_eq!(scene.next(4).await, ["broken", "mended", "list", "end"], "{code}");
        assert_eq!(parameter(&scene.asked(2).await[1], "sendInitialEvents"), Some("true"), "{code}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_without_noise() {
    // An address that is taken, so that nobody else gets it, and nobody listens on until later.
    let reserved = TcpSocket::new_v4().expect("a socket");
    reserved.bind("127.0.0.1:0".parse().expect("loopback")).expect("a port");
    let address = reserved.local_addr().expect("bound");
    let (sender, events) = channel(4);
    let (status, task) = start(client(address), Selection::all(Kind::Node), quick(), sender);
    let script = Script::of([Answer::Open(vec![frame("ADDED", "a", 5), list_end(9)])]);
    let mut scene = Scene { script: script.clone(), events, received: VecDeque::new(), status, task };
    assert_eq!(scene.next(1).await, ["broken"]);
    assert!(scene.status.broken() && !scene.status.synced());
    let more = timeout(Duration::from_millis(300), scene.event()).await;
    assert!(more.is_err(), "said more than once: {more:?}");

    let listener = reserved.listen(16).expect("still bound");
    tokio::spawn(script.serve(listener));
    assert_eq!(scene.next(4).await, ["mended", "list", "+a", "end"]);
    assert!(!scene.status.broken() && scene.status.synced());
}

#[tokio::test]
async fn a_failure_that_lasts_is_repeated_from_time_to_time() {
    let script = Script::of((0..1000).map(|_| refusal(500, "InternalError", "no")));
    let tuning = Tuning { repeat: Duration::from_millis(100), ..quick() };
    let mut scene = scene_with(script, Selection::all(Kind::Node), tuning).await;
    let began = Instant::now();
    assert_eq!(scene.next(3).await, ["broken", "broken", "broken"]);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_receiver_slows_the_watch_and_loses_nothing() {
    let names: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
    let mut frames: Vec<Value> = names.iter().map(|name| frame("ADDED", name, 5)).collect();
    frames.push(list_end(9));
    let mut scene = scene([Answer::Open(frames)]).await;
    scene.asked(1).await;
    let full = async {
        while scene.events.len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, full).await.expect("the queue fills");
    let words = scene.next(202).await;
    assert_eq!(words[1..201], names.iter().map(|name| format!("+{name}")).collect::<Vec<_>>());
    assert_eq!(words[201], "end");
}

/// What a server sends at once need not wake the receiver once for each object, and what comes alone does not wait.
#[tokio::test]
async fn what_comes_together_is_told_together_and_nothing_waits() {
    let mut frames: Vec<Value> = (0..64).map(|number| frame("ADDED", &format!("n{number}"), 5)).collect();
    frames.push(list_end(9));
    let text: String = frames.iter().map(|frame| format!("{frame}\n")).collect();
    let mut scene = scene([Answer::Text(Box::leak(text.into_boxed_str()))]).await;
    let (mut messages, mut events) = (0, 0);
    while events < 66 {
        let message = timeout(PATIENCE, scene.events.recv()).await.expect("in time").expect("it runs");
        assert!(message.len() <= 8, "{} in one", message.len());
        (messages, events) = (messages + 1, events + message.len());
    }
    assert_eq!(events, 66);
    assert!(messages <= 33, "{messages} messages");
}

#[tokio::test]
async fn the_task_ends_when_nobody_listens() {
    let mut scene = scene([Answer::Open(vec![list_end(9)])]).await;
    assert_eq!(scene.next(2).await, ["list", "end"]);
    drop(scene.events);
    timeout(PATIENCE, scene.task)
        .await
        .expect("it ends though the server is silent")
        .expect("without a panic");
}

#[tokio::test]
async fn a_malformed_object_is_objected_to_and_the_list_goes_on() {
    let bad = json!({"type": "ADDED", "object": {"metadata": {"name": "bad", "resourceVersion": "6"}, "status": 5}});
    let mut scene = scene([Answer::Open(vec![bad, frame("ADDED", "a", 7), list_end(9)])]).await;
    scene.next(1).await;
    match timeout(PATIENCE, scene.event()).await.expect("in time") {
        WatchEvent::Applied(object, objections) => {
            assert_eq!((&*object.id().name, objections.len()), ("bad", 1));
            assert_eq!(objections[0].field, "status");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.next(2).await, ["+a", "end"]);
}

//! One attempt: a list, or a watch from a version, until the connection ends; and what its end means.

use futures::{FutureExt, Stream, StreamExt};
use kube::core::WatchEvent as Frame;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, Status};
use tokio::time::timeout;

use super::{NobodyListens, Watch, pause};
use crate::causes::with_causes;
use crate::kube::convert::Wire;
use crate::kube::model::{Kind, WatchEvent};
use crate::kube::wire::Page;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Get a complete list.
    List,
    /// Watch what happened after this version.
    Resume(String),
}

/// How lists are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// As the first events of a watch (`sendInitialEvents`, feature WatchList of the API server).
    Streaming,
    /// In pages.
    Paged,
}

/// How an attempt ended. The texts are for a person.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The server ended the watch as it does every few minutes, or it was silent.
    Quietly,
    /// It failed.
    Failed(String),
    /// It failed, and changes may have been missed.
    Lost(String),
    /// The server no longer has the version to go on from.
    Expired,
    /// The server does not stream lists.
    NoStreaming,
}

impl Ended {
    /// Why it failed, if it did.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Ended::Failed(why) | Ended::Lost(why) => Some(why),
            Ended::Quietly | Ended::Expired | Ended::NoStreaming => None,
        }
    }

    /// What to do after it, given the version reached. Within a list none is: then only a new list helps.
    fn then(&self, version: Option<String>) -> Step {
        match self {
            Ended::Quietly | Ended::Failed(_) => version.map_or(Step::List, Step::Resume),
            Ended::Lost(_) | Ended::Expired | Ended::NoStreaming => Step::List,
        }
    }
}

type Outcome = Result<(Step, Ended), NobodyListens>;

/// Annotation of the bookmark that ends a streaming list (`metav1.InitialEventsAnnotationKey`).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

impl<M: From<Vec<WatchEvent>> + Send> Watch<M> {
    pub(super) async fn attempt<W: Wire>(&mut self, step: Step) -> Outcome {
        let mut version = match (step, self.strategy) {
            (Step::Resume(version), _) => Some(version),
            (Step::List, Strategy::Streaming) => None,
            (Step::List, Strategy::Paged) => match self.list::<W>().await? {
                Ok(version) => Some(version),
                Err(ended) => return Ok((ended.then(None), ended)),
            },
        };
        let ended = self.follow::<W>(&mut version).await?;
        if ended == Ended::NoStreaming {
            self.strategy = Strategy::Paged;
        }
        Ok((ended.then(version), ended))
    }

    /// A list in pages, and its version. Without asking for a version it is a consistent read: as new as the moment
    /// it was asked for.
    async fn list<W: Wire>(&mut self) -> Result<Result<String, Ended>, NobodyListens> {
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(self.tuning.page_size),
            ..ListParams::default()
        };
        let mut begun = false;
        loop {
            let page = match self.page::<W>(&params).await {
                Ok(page) => page,
                Err(ended) => return Ok(Err(ended)),
            };
            self.mended().await?;
            if !std::mem::replace(&mut begun, true) {
                self.tell(WatchEvent::ListBegins(W::KIND)).await?;
            }
            for object in page.items.unwrap_or_default() {
                self.tell_object(object).await?;
            }
            self.flush().await?;
            params.continue_token = page.metadata.next.found().filter(|next| !next.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.found().filter(|version| !version.is_empty());
                let Some(version) = version else {
                    return Ok(Err(Ended::Failed("the list has no resourceVersion".to_owned())));
                };
                self.list_ends(W::KIND).await?;
                return Ok(Ok(version));
            }
        }
    }

    async fn page<W: Wire>(&self, params: &ListParams) -> Result<Page<W>, Ended> {
        let request = Request::new(W::PATH).list(params).map_err(|error| Ended::Failed(error.to_string()))?;
        match timeout(self.tuning.answer, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| meaning(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// A watch from a version, or without one from the present state: a streaming list first. The version follows
    /// what was told to the store.
    async fn follow<W: Wire>(&mut self, version: &mut Option<String>) -> Result<Ended, NobodyListens> {
        let mut frames = match self.open::<W>(version.as_deref()).await {
            Ok(frames) => std::pin::pin!(frames),
            Err(ended) => return Ok(ended),
        };
        self.mended().await?;
        if version.is_none() {
            self.tell(WatchEvent::ListBegins(W::KIND)).await?;
        }
        loop {
            let frame = match frames.next().now_or_never() {
                Some(ready) => told(ready),
                None => {
                    self.flush().await?;
                    self.next(&mut frames, version.is_none()).await
                }
            };
            match frame {
                Ok(Frame::Added(object) | Frame::Modified(object)) => {
                    let reached = object.version().map(str::to_owned);
                    self.tell_object(object).await?;
                    advance(version, reached);
                }
                Ok(Frame::Deleted(object)) => {
                    let id = object.id(&mut self.names);
                    self.tell(WatchEvent::Deleted(W::KIND, id)).await?;
                    advance(version, object.version().map(str::to_owned));
                }
                Ok(Frame::Bookmark(bookmark)) => {
                    self.status.touch();
                    if version.is_none() && bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.list_ends(W::KIND).await?;
                        *version = Some(String::new());
                    }
                    advance(version, Some(bookmark.metadata.resource_version));
                }
                Ok(Frame::Error(status)) => return Ok(refusal(&status)),
                Err(ended) => return Ok(ended),
            }
        }
    }

    /// Starts a watch.
    async fn open<W: Wire>(
        &self,
        version: Option<&str>,
    ) -> Result<impl Stream<Item = kube::Result<Frame<W>>> + Send + use<W, M>, Ended> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(pause::watch_seconds()),
            bookmarks: true,
            send_initial_events: version.is_none(),
        };
        // With sendInitialEvents no version is a consistent read; version 0 would be any past.
        let request = Request::new(W::PATH).watch(&params, version.unwrap_or_default());
        let request = request.map_err(|error| Ended::Failed(error.to_string()))?;
        match timeout(self.tuning.answer, self.client.request_events(request)).await {
            Ok(Ok(frames)) => Ok(frames),
            Ok(Err(kube::Error::Api(status))) if unsupported(&status) => Err(match version {
                None => Ended::NoStreaming,
                Some(_) => Ended::Lost(text(&status)),
            }),
            Ok(Err(error)) => Err(meaning(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// The next frame of a watch, or how it ended.
    async fn next<W: Wire>(
        &self,
        frames: &mut (impl Stream<Item = kube::Result<Frame<W>>> + Unpin),
        in_list: bool,
    ) -> Result<Frame<W>, Ended> {
        let patience = if in_list { self.tuning.list_silence } else { self.tuning.silence };
        match timeout(patience, frames.next()).await {
            Ok(frame) => told(frame),
            Err(_) if in_list => Err(Ended::NoStreaming),
            Err(_) => Err(Ended::Quietly),
        }
    }

    fn no_answer(&self) -> Ended {
        Ended::Failed(format!("the API server did not answer within {:?}", self.tuning.answer))
    }

    async fn tell_object<W: Wire>(&mut self, object: W) -> Result<(), NobodyListens> {
        let event = object.convert(&mut self.names).into_event();
        self.tell(event).await
    }

    async fn list_ends(&mut self, kind: Kind) -> Result<(), NobodyListens> {
        self.names.sweep();
        self.tell(WatchEvent::ListEnds(kind)).await
    }
}

/// A frame, or how the watch ended.
fn told<W>(frame: Option<kube::Result<Frame<W>>>) -> Result<Frame<W>, Ended> {
    match frame {
        Some(Ok(frame)) => Ok(frame),
        None => Err(Ended::Quietly),
        // A change that cannot be read was missed.
        Some(Err(kube::Error::SerdeError(error))) => {
            Err(Ended::Lost(format!("cannot read an event: {error}")))
        }
        Some(Err(error)) => Err(meaning(&error)),
    }
}

/// Within a streaming list the versions of objects are in no order and lead nowhere.
fn advance(version: &mut Option<String>, reached: Option<String>) {
    if let (Some(version), Some(reached)) = (version.as_mut(), reached.filter(|reached| !reached.is_empty()))
    {
        *version = reached;
    }
}

fn meaning(error: &kube::Error) -> Ended {
    match error {
        kube::Error::Api(status) => refusal(status),
        other => Ended::Failed(with_causes(other)),
    }
}

fn refusal(status: &Status) -> Ended {
    if status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") {
        Ended::Expired
    } else if ahead(status) {
        Ended::Lost(text(status))
    } else {
        Ended::Failed(text(status))
    }
}

/// A request that this server will never take, as opposed to: not now (408, 429), not from us (401, 403).
fn unsupported(status: &Status) -> bool {
    (400..500).contains(&status.code) && !matches!(status.code, 401 | 403 | 408 | 410 | 429)
}

/// Our version is ahead of the server's: it was restored from a backup.
fn ahead(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.message.contains("Too large resource version")
        || causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
}

fn text(status: &Status) -> String {
    format!("the API server answered {} {}: {}", status.code, status.reason, status.message)
}

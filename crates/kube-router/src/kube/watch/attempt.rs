//! One attempt: a list, or a watch from a version, until the connection ends; and what its end means.

use futures::TryStreamExt;
use kube::core::WatchEvent as Frame;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, Status};

use super::{NobodyListens, Watch, pause};
use crate::kube::convert::Wire;
use crate::kube::model::WatchEvent;
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
    /// As the first events of a watch (`sendInitialEvents`, Kubernetes 1.32 and newer with feature WatchList).
    Streaming,
    /// In pages.
    Paged,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The server ended the watch as it does every few minutes, or it was silent.
    Quietly,
    /// The server no longer has the version to go on from.
    Expired,
    /// The server does not stream lists.
    NoStreaming,
    /// It failed; why, for a person.
    Failed(String),
}

type Outcome = Result<(Step, Ended), NobodyListens>;

/// Annotation of the bookmark that ends a streaming list (`metav1.InitialEventsAnnotationKey`).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

impl Watch {
    pub(super) async fn attempt<W: Wire>(&mut self, step: Step) -> Outcome {
        match (step, self.strategy) {
            (Step::Resume(version), _) => self.follow::<W>(Some(version)).await,
            (Step::List, Strategy::Streaming) => self.follow::<W>(None).await,
            (Step::List, Strategy::Paged) => self.list::<W>().await,
        }
    }

    /// A list in pages. Without a version it is a consistent read: as new as the moment it was asked for.
    async fn list<W: Wire>(&mut self) -> Outcome {
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(self.tuning.page_size),
            ..ListParams::default()
        };
        let mut begun = false;
        loop {
            let request = match Request::new(W::PATH).list(&params) {
                Ok(request) => request,
                Err(error) => return Ok((Step::List, Ended::Failed(error.to_string()))),
            };
            let page = match self.client.request::<Page<W>>(request).await {
                Ok(page) => page,
                Err(error) => return Ok((Step::List, meaning(&error))),
            };
            self.mended().await?;
            if !begun {
                self.tell(WatchEvent::ListBegins(W::KIND)).await?;
                begun = true;
            }
            for object in page.items.unwrap_or_default() {
                self.tell_object(object).await?;
            }
            params.continue_token = page.metadata.next.found().filter(|next| !next.is_empty());
            if params.continue_token.is_some() {
                continue;
            }
            return match page.metadata.resource_version.found().filter(|version| !version.is_empty()) {
                Some(version) => {
                    self.list_ends(W::KIND).await?;
                    self.follow::<W>(Some(version)).await
                }
                None => Ok((Step::List, Ended::Failed("the list has no resourceVersion".to_owned()))),
            };
        }
    }

    /// A watch from `version`, or without one from the present state (a streaming list).
    async fn follow<W: Wire>(&mut self, mut version: Option<String>) -> Outcome {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(pause::watch_seconds()),
            bookmarks: true,
            send_initial_events: version.is_none(),
        };
        // No version with sendInitialEvents is a consistent read; version 0 would be any past.
        let request = match Request::new(W::PATH).watch(&params, version.as_deref().unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => return Ok((go_on(version), Ended::Failed(error.to_string()))),
        };
        let mut frames = match self.client.request_events::<W>(request).await {
            Ok(frames) => std::pin::pin!(frames),
            Err(error) => return Ok(self.refused(version, &error)),
        };
        self.mended().await?;
        if version.is_none() {
            self.tell(WatchEvent::ListBegins(W::KIND)).await?;
        }
        loop {
            let patience = if version.is_some() { self.tuning.silence } else { self.tuning.list_silence };
            let frame = match tokio::time::timeout(patience, frames.try_next()).await {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return Ok((go_on(version), Ended::Quietly)),
                // An event that cannot be read is a change that was missed: only a list makes it good.
                Ok(Err(kube::Error::SerdeError(error))) => {
                    return Ok((Step::List, Ended::Failed(format!("cannot read an event: {error}"))));
                }
                Ok(Err(error)) => return Ok((go_on(version), meaning(&error))),
                Err(_) if version.is_none() => {
                    self.strategy = Strategy::Paged;
                    return Ok((Step::List, Ended::NoStreaming));
                }
                Err(_) => return Ok((go_on(version), Ended::Quietly)),
            };
            match frame {
                Frame::Added(object) | Frame::Modified(object) => {
                    advance(&mut version, object.version());
                    self.tell_object(object).await?;
                }
                Frame::Deleted(object) => {
                    advance(&mut version, object.version());
                    let id = object.id(&mut self.names);
                    self.tell(WatchEvent::Deleted(W::KIND, id)).await?;
                }
                Frame::Bookmark(bookmark) => {
                    self.status.touch();
                    if version.is_none() && bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.list_ends(W::KIND).await?;
                        version = Some(String::new());
                    }
                    advance(&mut version, Some(&bookmark.metadata.resource_version));
                }
                Frame::Error(status) => return Ok(interrupted(version, &status)),
            }
        }
    }

    /// The server did not start the watch.
    fn refused(&mut self, version: Option<String>, error: &kube::Error) -> (Step, Ended) {
        let ended = meaning(error);
        match (version, error) {
            (None, kube::Error::Api(status)) if unsupported(status) => {
                self.strategy = Strategy::Paged;
                (Step::List, Ended::NoStreaming)
            }
            (Some(_), kube::Error::Api(status)) if unsupported(status) || ahead(status) => {
                (Step::List, ended)
            }
            (version, _) => (if ended == Ended::Expired { Step::List } else { go_on(version) }, ended),
        }
    }

    async fn tell_object<W: Wire>(&mut self, object: W) -> Result<(), NobodyListens> {
        let event = object.convert(&mut self.names).into_event();
        self.tell(event).await
    }

    async fn list_ends(&mut self, kind: crate::kube::model::Kind) -> Result<(), NobodyListens> {
        self.names.sweep();
        self.tell(WatchEvent::ListEnds(kind)).await
    }
}

/// Goes on from a version if there is one: within a streaming list there is none.
fn go_on(version: Option<String>) -> Step {
    version.map_or(Step::List, Step::Resume)
}

/// Within a streaming list the versions of objects are in no order and lead nowhere.
fn advance(version: &mut Option<String>, to: Option<&str>) {
    if let (Some(version), Some(to)) = (version.as_mut(), to.filter(|to| !to.is_empty())) {
        to.clone_into(version);
    }
}

/// The server sent an error instead of an event; the watch is over.
fn interrupted(version: Option<String>, status: &Status) -> (Step, Ended) {
    if expired(status) {
        return (Step::List, Ended::Expired);
    }
    let step = if ahead(status) { Step::List } else { go_on(version) };
    (step, Ended::Failed(text(status)))
}

fn meaning(error: &kube::Error) -> Ended {
    match error {
        kube::Error::Api(status) if expired(status) => Ended::Expired,
        kube::Error::Api(status) => Ended::Failed(text(status)),
        other => Ended::Failed(chain(other)),
    }
}

/// An error with its causes; those of kube alone say little ("ServiceError: client error (Connect)").
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn text(status: &Status) -> String {
    format!("the API server answered {} {}: {}", status.code, status.reason, status.message)
}

fn expired(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone")
}

/// A request that this server will never take, as opposed to: not now (408, 429), not from us (401, 403).
fn unsupported(status: &Status) -> bool {
    (400..500).contains(&status.code) && !matches!(status.code, 401 | 403 | 408 | 410 | 429)
}

/// Our version is ahead of the server's: it was restored from a backup.
fn ahead(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.message.contains("Too large resource version")
        || causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
}

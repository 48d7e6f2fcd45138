//! Ends namespaces: empties a terminating one, then lets it go.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api_server::object::{is_deleting, name};
use crate::api_server::{EventKind, Handle, Resource};

/// Pods take their grace period; so long a terminating namespace is looked at again this often.
const RETRY: Duration = Duration::from_millis(100);

/// The namespaces every cluster starts with.
pub(crate) fn create_initial(handle: &Handle) {
    for name in ["default", "kube-system"] {
        let object = serde_json::json!({"metadata": {"name": name}});
        if let Err(error) = handle.create(Resource::Namespaces, object) {
            tracing::warn!(%error, "initial namespace");
        }
    }
}

/// Empties terminating namespaces until the server ends.
pub(super) async fn run(handle: Handle) {
    let (_, mut events) = handle.watch(Resource::Namespaces);
    let mut terminating = BTreeSet::new();
    loop {
        let event = if terminating.is_empty() {
            events.recv().await.map(Some)
        } else {
            tokio::select! {
                event = events.recv() => event.map(Some),
                () = tokio::time::sleep(RETRY) => Some(None),
            }
        };
        let Some(event) = event else { return };
        if let Some(event) = event {
            let name = name(&event.object).to_owned();
            match event.kind != EventKind::Deleted && is_deleting(&event.object) {
                true => drop(terminating.insert(name)),
                false => drop(terminating.remove(&name)),
            }
        }
        terminating.retain(|namespace| !end(&handle, namespace));
    }
}

/// Deletes what is in the namespace; `true` once nothing was left and the namespace has been let go.
fn end(handle: &Handle, namespace: &str) -> bool {
    let mut left = 0;
    for resource in Resource::ALL.into_iter().filter(|resource| resource.definition().namespaced) {
        for object in handle.list(resource, Some(namespace)) {
            left += 1;
            if !is_deleting(&object) {
                // Gone in between is as good.
                let _ = handle.delete(resource, Some(namespace), name(&object), None);
            }
        }
    }
    left == 0 && handle.finalize_namespace(namespace).is_ok()
}

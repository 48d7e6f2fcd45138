//! Listeners of `healthCheckNodePort`: one HTTP server a port, on every address of the node.
//!
//! What each answers is decided by [`crate::network_services::health`]; here sockets are opened and closed to match. A
//! port that is taken is tried again until it is free or no longer wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::listen;
use crate::network_services::health::HealthPort;

/// What should listen; the core writes it, the listeners follow.
pub type Wanted = watch::Sender<Arc<BTreeMap<u16, HealthPort>>>;

const RETRY: Duration = Duration::from_secs(5);

/// Follows `wanted` until its sender is gone. O(ports) a change.
pub async fn follow(mut wanted: watch::Receiver<Arc<BTreeMap<u16, HealthPort>>>) {
    let mut listening: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        listening.retain(|port, task| {
            let keep = now.contains_key(port);
            if !keep {
                task.abort();
            }
            keep
        });
        for port in now.keys() {
            listening.entry(*port).or_insert_with(|| tokio::spawn(serve(*port, wanted.clone())));
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn serve(port: u16, wanted: watch::Receiver<Arc<BTreeMap<u16, HealthPort>>>) {
    let answer = move || {
        let port = wanted.borrow().get(&port).cloned();
        async move { respond(port.map_or(0, |port| port.local_endpoints)) }
    };
    let routes = Router::new().route("/healthz", get(answer));
    let mut told = false;
    loop {
        match listen::every(port) {
            Ok(listener) => {
                if let Err(error) = axum::serve(listener, routes.clone()).await {
                    tracing::warn!("health check node port {port}: {error}");
                }
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(
                    "health check node port {port} cannot be opened: {error}; tried again until it can"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Upstream's texts.
fn respond(endpoints: usize) -> (StatusCode, String) {
    if endpoints > 0 {
        (StatusCode::OK, format!("{endpoints} Service Endpoints found\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "No Service Endpoints Found\n".to_owned())
    }
}

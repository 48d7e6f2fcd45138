//! How requests travel to the API server: one TCP connection for each that is under way, so one for each watch.
//!
//! Decided here: when a connection on which nothing arrives is dead. A watch is silent by nature; where the node lost the
//! address it was opened from, or a firewall in between forgot it, nothing on it would ever say so. Not decided here: where
//! the server is ([`super::client`]), and what follows when a connection ends ([`super::watch`]).

use std::time::Duration;

use ::kube::client::ConfigExt;
use ::kube::{Client, Config};
use axum::http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use tower::{BoxError, ServiceBuilder};

/// The kernel asks the other end after so long a silence ...
const SILENCE: Duration = Duration::from_secs(30);
/// ... again and again ...
const BETWEEN: Duration = Duration::from_secs(5);
/// ... and gives the connection up when so many questions had no answer: 45 s after the last word, as Kubernetes' own
/// clients do it with HTTP/2 (k8s.io/apimachinery, `net.SetTransportDefaults`: 30 s, then 15 s).
const UNANSWERED: u32 = 3;

/// A client fit for watches: a dead connection is noticed, and nothing is repeated. By itself kube repeats requests
/// answered by 429, 503 or 504 without a word, with pauses of up to minutes; a watch makes its own pauses and says what it
/// waits for.
///
/// # Errors
/// If certificates or credentials of the configuration cannot be used.
pub fn client(config: &Config) -> Result<Client, ::kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // https, and proxies
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_keepalive(Some(SILENCE));
    tcp.set_keepalive_interval(Some(BETWEEN));
    tcp.set_keepalive_retries(Some(UNANSWERED));
    // What was sent and never acknowledged: without it the kernel repeats it for a quarter of an hour (tcp(7)).
    tcp.set_tcp_user_timeout(Some(SILENCE + BETWEEN * UNANSWERED));
    match &config.proxy_url {
        Some(proxy) => {
            let tunnel = tunnel(proxy, &config.cluster_url, tcp);
            over(config, config.rustls_https_connector_with_connector(tunnel)?)
        }
        None => over(config, config.rustls_https_connector_with_connector(tcp)?),
    }
}

/// What is added to each request, and the connections it goes over.
fn over(
    config: &Config,
    connections: impl Connect + Clone + Send + Sync + 'static,
) -> Result<Client, ::kube::Error> {
    let requests = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connections));
    Ok(Client::new(requests, config.default_namespace.clone()))
}

/// Everything for `server` by way of `proxy`, with the user and password its URL may hold.
fn tunnel(proxy: &Uri, server: &Uri, tcp: HttpConnector) -> Tunnel<HttpConnector> {
    let way = Matcher::builder().all(proxy.to_string()).build().intercept(server);
    let tunnel = Tunnel::new(way.as_ref().map_or(proxy, |way| way.uri()).clone(), tcp);
    match way.as_ref().and_then(|way| way.basic_auth()) {
        Some(authorization) => tunnel.with_auth(authorization.clone()),
        None => tunnel,
    }
}

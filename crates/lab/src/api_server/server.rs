//! Listeners, start and stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::{Faults, Handle};
use crate::control_plane;

/// How to start a server.
#[derive(Debug)]
pub struct Config {
    /// Addresses to bind in the caller's network namespace; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Listeners bound by the caller, perhaps in other network namespaces.
    pub listeners: Vec<TcpListener>,
    /// Defaults, addresses and the controllers; `None` stores objects as they come.
    pub control_plane: Option<control_plane::Config>,
    /// Events kept per kind for watches to catch up with.
    pub history: usize,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listeners: Vec::new(),
            control_plane: Some(control_plane::Config::default()),
            history: 16_384,
            bookmark_interval: Duration::from_secs(10),
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address could not be bound.
    #[error("bind {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listener given by the caller could not be used.
    #[error("use a given listener")]
    Listener(#[source] io::Error),
}

/// A running server; dropping it stops it.
pub struct ApiServer {}

impl ApiServer {
    /// Binds and serves; returns as soon as connections are accepted. Needs a tokio runtime.
    pub async fn start(_config: Config) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Serves on one more listener, for nodes that appear later.
    pub fn add_listener(&self, _listener: TcpListener) -> Result<SocketAddr, Error> {
        unimplemented!()
    }

    /// Where it listens, in the order given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        unimplemented!()
    }

    /// The in-process client.
    pub fn handle(&self) -> Handle {
        unimplemented!()
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> Faults {
        unimplemented!()
    }
}

/// Serves until the future is dropped: the body of `lab api-server`.
pub async fn serve(config: Config) -> Result<(), Error> {
    let _server = ApiServer::start(config).await?;
    std::future::pending().await
}

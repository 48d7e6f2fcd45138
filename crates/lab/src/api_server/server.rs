//! Listeners, start and stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::listener::{Accepting, Listeners};
use super::rules::{Admission, AdmitAll, Registry};
use super::shared::Shared;
use super::store::Store;
use super::tls::{Caller, Secured};
use super::{Faults, Handle, Tls, TlsError, http};
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
    /// A listener cannot speak TLS.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

/// A running server; dropping it stops it.
pub struct ApiServer {
    shared: Arc<Shared>,
    listeners: Arc<Listeners>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl ApiServer {
    /// Binds and serves; returns as soon as connections are accepted. Needs a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let admission: Box<dyn Admission> = match &config.control_plane {
            Some(plan) => Box::new(control_plane::Admission::new(plan)),
            None => Box::new(AdmitAll),
        };
        let registry = Registry::new(Store::new(config.history), admission);
        let shared = Shared::new(registry, config.bookmark_interval);
        let server = Self { shared, listeners: Arc::default(), tasks: Mutex::default() };
        control_plane::create_initial_namespaces(&server.handle());
        if let Some(plan) = &config.control_plane {
            server.keep(control_plane::start(&server.handle(), plan));
        }
        for listener in config.listeners {
            server.add_listener(listener)?;
        }
        for address in config.listen {
            let bind = |source| Error::Bind { address, source };
            server.add_listener(TcpListener::bind(address).map_err(bind)?)?;
        }
        Ok(server)
    }

    /// Serves on one more listener, for nodes that appear later. Needs the runtime the server was started on.
    pub fn add_listener(&self, listener: TcpListener) -> Result<SocketAddr, Error> {
        let (address, accepting) = self.open(listener)?;
        let router = http::router(self.shared.clone());
        self.keep_serving(address, axum::serve(accepting, router).into_future());
        Ok(address)
    }

    /// The same over TLS, to those who show a certificate or a token ([`Faults::set_tokens`]).
    pub fn add_tls_listener(&self, listener: TcpListener, tls: &Tls) -> Result<SocketAddr, Error> {
        let (address, accepting) = self.open(listener)?;
        let secured = Secured::new(accepting, tls)?;
        let router = http::router(self.shared.clone()).into_make_service_with_connect_info::<Caller>();
        self.keep_serving(address, axum::serve(secured, router).into_future());
        Ok(address)
    }

    fn open(&self, listener: TcpListener) -> Result<(SocketAddr, Accepting), Error> {
        let address = listener.local_addr().map_err(Error::Listener)?;
        listener.set_nonblocking(true).map_err(Error::Listener)?;
        let availability = self.shared.switches.availability();
        Ok((address, self.listeners.add(listener, availability).map_err(Error::Listener)?))
    }

    fn keep_serving(
        &self,
        address: SocketAddr,
        serving: impl Future<Output = io::Result<()>> + Send + 'static,
    ) {
        self.keep([tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, %address, "API server stopped serving");
            }
        })]);
    }

    fn keep(&self, tasks: impl IntoIterator<Item = JoinHandle<()>>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    /// Where it listens: the given listeners, then the bound addresses, then those added.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// The in-process client.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone())
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone(), self.listeners.clone())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.listeners.cut();
    }
}

/// Serves until the future is dropped: the body of `lab api-server`.
pub async fn serve(config: Config) -> Result<(), Error> {
    let _server = ApiServer::start(config).await?;
    std::future::pending().await
}

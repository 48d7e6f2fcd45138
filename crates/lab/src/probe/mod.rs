//! Packets as the judge: servers that say who they are, clients that say what became of a question.
//!
//! A probe is no process: its sockets are made in the namespace of the pod or host and served by the runtime of the
//! caller, so that a truth table of hundreds of cells is asked in parallel even where starting a process takes 70 ms.

mod client;
mod http;
mod sctp;
mod server;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use client::{Answer, Asking, Conversation, Failure, Hearing, Outcome, Rate, Talking};
pub use sctp::kernel_has_sctp;
pub use server::Server;
pub use socket::Protocol;

use crate::node::Namespace;

/// How long a question waits for its answer unless told otherwise. Long enough for one lost SYN (retransmitted after a
/// second) to be repaired.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How late an answer may be to a question that is asked once only: on a machine that stands still nothing is lost by that.
pub const ONCE: Duration = Duration::from_secs(60);

/// Asks and answers in one namespace.
#[derive(Debug, Clone)]
pub struct Probe {
    name: String,
    namespace: Arc<Namespace>,
    patience: Duration,
    source: Option<IpAddr>,
}

impl Probe {
    /// A probe that calls itself `name`.
    pub fn new(name: impl Into<String>, namespace: &Arc<Namespace>) -> Self {
        Self { name: name.into(), namespace: Arc::clone(namespace), patience: PATIENCE, source: None }
    }

    /// The same, waiting this long for an answer.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, asking from this address.
    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Whether the two are in one namespace.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.namespace, &other.namespace)
    }

    /// Where it is.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Listens on `port` of every address, both families. UDP answers leave from the address that was asked.
    pub async fn serve(&self, protocol: Protocol, port: u16) -> io::Result<Server> {
        server::serve(&self.namespace, &self.name, protocol, port, None).await
    }

    /// Listens on one address only.
    pub async fn serve_on(&self, protocol: Protocol, address: SocketAddr) -> io::Result<Server> {
        server::serve(&self.namespace, &self.name, protocol, address.port(), Some(address.ip())).await
    }

    /// One question on a connection of its own.
    pub async fn ask(&self, protocol: Protocol, to: SocketAddr) -> Outcome {
        self.asker(protocol, to).once().await
    }

    /// Status and body of an HTTP `GET`.
    pub async fn get(&self, to: SocketAddr, path: &str) -> Result<(u16, String), Failure> {
        http::get(self.asker(Protocol::Tcp, to), path).await
    }

    /// Opens a connection and keeps asking on it; an error if it does not open or does not answer at first.
    pub async fn talk(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        every: Duration,
    ) -> Result<Talking, Failure> {
        client::talk(self.asker(protocol, to), every).await
    }

    /// Opens a connection on which the server sends all the time and this end is silent; an error if it does not open or
    /// nothing comes at first.
    pub async fn hear(&self, protocol: Protocol, to: SocketAddr) -> Result<Hearing, Failure> {
        client::hear(self.asker(protocol, to)).await
    }

    /// Starts a steady rate of questions, each on a connection of its own.
    pub fn rate(&self, protocol: Protocol, to: SocketAddr, per_second: u32, during: Duration) -> Asking {
        client::rate(self.asker(protocol, to), per_second, during)
    }

    fn asker(&self, protocol: Protocol, to: SocketAddr) -> client::Asker {
        let namespace = Arc::clone(&self.namespace);
        client::Asker { namespace, protocol, to, source: self.source, limit: self.patience }
    }
}

/// Asks every cell at once: each client, each destination. The outcomes are in the order of the cells, whatever
/// answered first; it takes as long as the slowest cell.
pub async fn matrix(cells: &[(Probe, Protocol, SocketAddr)]) -> Vec<Outcome> {
    futures::future::join_all(cells.iter().map(|(probe, protocol, to)| probe.ask(*protocol, *to))).await
}

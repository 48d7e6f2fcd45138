//! The sockets peers dial: those configured, opened as soon as the kernel lets us, with the passwords of all peers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::event::Event;
use super::inbound::Inbound;
use crate::config::Config;
use crate::password::Password;
use crate::transport;

/// Pause between attempts at an address that cannot be listened on (an IPv6 address is not ours at once).
const RETRY: Duration = Duration::from_millis(500);
/// Pause after a connection could not be accepted (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One socket and the task that accepts from it.
#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    task: JoinHandle<()>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Listeners {
    inbound: mpsc::Sender<Inbound>,
    open: BTreeMap<SocketAddr, Listener>,
    /// Wanted but not open, and whether that has been said.
    missing: BTreeMap<SocketAddr, bool>,
    retry_at: Option<Instant>,
    passwords: BTreeMap<IpAddr, Password>,
}

impl Listeners {
    pub(super) const fn new(inbound: mpsc::Sender<Inbound>) -> Self {
        Listeners {
            inbound,
            open: BTreeMap::new(),
            missing: BTreeMap::new(),
            retry_at: None,
            passwords: BTreeMap::new(),
        }
    }

    /// When to call [`Listeners::open_missing`] next.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Opens and closes what differs from the configuration, and changes the passwords that differ. O(peers).
    pub(super) fn apply(&mut self, config: &Config, now: Instant, events: &mut Vec<Event>) {
        self.open.retain(|address, listener| {
            let wanted = config.listen.contains(address);
            if !wanted {
                listener.task.abort();
            }
            wanted
        });
        self.missing = config
            .listen
            .iter()
            .filter(|address| !self.open.contains_key(address))
            .map(|address| (*address, self.missing.get(address).copied().unwrap_or(false)))
            .collect();
        self.set_passwords(config, events);
        self.open_missing(now, events);
    }

    fn set_passwords(&mut self, config: &Config, events: &mut Vec<Event>) {
        let peers = config.peers.iter();
        let wanted: BTreeMap<IpAddr, Password> =
            peers.filter_map(|(address, peer)| Some((*address, peer.password.clone()?))).collect();
        let gone = self.passwords.keys().filter(|peer| !wanted.contains_key(peer)).map(|peer| (*peer, None));
        let new = wanted.iter().filter(|(peer, password)| self.passwords.get(peer) != Some(password));
        let changes: Vec<_> = gone.chain(new.map(|(peer, password)| (*peer, Some(password)))).collect();
        for listener in self.open.values() {
            for (peer, password) in &changes {
                if let Err(error) = transport::set_listener_password(&listener.socket, *peer, *password) {
                    events.push(Event::Trouble(error.to_string()));
                }
            }
        }
        self.passwords = wanted;
    }

    /// Tries to open what is not open yet.
    pub(super) fn open_missing(&mut self, now: Instant, events: &mut Vec<Event>) {
        for (address, said) in std::mem::take(&mut self.missing) {
            let ipv4_too = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
            let only_ipv6 = self.open.keys().chain(self.missing.keys()).any(ipv4_too);
            match transport::listen(address, only_ipv6) {
                Ok(socket) => self.add(address, socket, events),
                Err(error) => {
                    if !said {
                        events.push(Event::Trouble(error.to_string()));
                    }
                    self.missing.insert(address, true);
                }
            }
        }
        self.retry_at = (!self.missing.is_empty()).then(|| now + RETRY);
    }

    fn add(&mut self, address: SocketAddr, socket: TcpListener, events: &mut Vec<Event>) {
        for (peer, password) in &self.passwords {
            if let Err(error) = transport::set_listener_password(&socket, *peer, Some(password)) {
                events.push(Event::Trouble(error.to_string()));
            }
        }
        // Port zero means any: the caller wants to know which.
        events.push(Event::Listening(socket.local_addr().unwrap_or(address)));
        let socket = Arc::new(socket);
        let task = tokio::spawn(accept(Arc::clone(&socket), self.inbound.clone()));
        self.open.insert(address, Listener { socket, task });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in self.open.values() {
            listener.task.abort();
        }
    }
}

async fn accept(socket: Arc<TcpListener>, inbound: mpsc::Sender<Inbound>) {
    loop {
        match socket.accept().await {
            Ok((stream, remote)) => {
                if inbound.send(Inbound::Accepted(stream, remote)).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

//! Forgetting flows to real servers that are gone: connection tracking would go on sending their packets there.
//!
//! Deleting a real server makes IPVS forget its connections (`expire_nodest_conn`); the entries connection tracking has
//! of them are deleted here, on a thread of its own, after IPVS has let go. Only UDP: TCP and SCTP end by themselves.

use std::sync::{Arc, mpsc};

use linux::conntrack::{Conntrack, Flows};
use linux::netlink::Requests;
use linux::row::{Key, Protocol, VirtualServerKey};

use super::lanes::LaneError;

/// The thread's inbox.
pub(super) struct Purge {
    inbox: mpsc::Sender<Flows>,
    requests: Arc<Requests>,
}

impl Purge {
    pub(super) fn start() -> Result<Purge, LaneError> {
        let (sender, inbox) = mpsc::channel::<Flows>();
        let requests: Arc<Requests> = Arc::default();
        let counted = Arc::clone(&requests);
        let run = move || {
            let mut conntrack = None;
            while let Ok(flows) = inbox.recv() {
                if conntrack.is_none() {
                    conntrack = Conntrack::open().inspect_err(|error| tracing::warn!("{error}")).ok();
                }
                if let Some(conntrack) = &mut conntrack {
                    conntrack.count_in(Arc::clone(&counted));
                }
                let deleted = conntrack.as_mut().map(|conntrack| conntrack.delete(&flows));
                if let Some(Err(error)) = deleted {
                    tracing::warn!("flows to {}/{}: {error}", flows.destination, flows.protocol);
                    conntrack = None;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("conntrack".to_owned()).spawn(run);
        spawned.map_err(|source| LaneError::Thread { what: "conntrack", source })?;
        Ok(Purge { inbox: sender, requests })
    }

    /// Where it counts what it sends.
    pub(super) fn requests(&self) -> (&'static str, Arc<Requests>) {
        ("conntrack", Arc::clone(&self.requests))
    }

    pub(super) fn ask(&self, flows: Flows) {
        // The thread ends only with the process.
        let _ = self.inbox.send(flows);
    }
}

/// The flows that end with a row: those of a UDP virtual server, or of one of its real servers.
pub(super) fn flows_of(key: &Key) -> Option<Flows> {
    let (server, reply_source) = match key {
        Key::VirtualServer(server) => (server, None),
        Key::RealServer(server, ip, port) => (server, Some((*ip, *port))),
        _ => return None,
    };
    match server {
        VirtualServerKey::Address { ip, protocol: Protocol::Udp, port } => {
            Some(Flows { destination: *ip, protocol: Protocol::Udp, port: *port, reply_source })
        }
        _ => None,
    }
}

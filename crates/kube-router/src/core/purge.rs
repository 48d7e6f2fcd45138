//! Forgetting flows that connection tracking would go on sending where they went: to real servers that are gone, and past
//! virtual servers that have come.
//!
//! Deleting a real server makes IPVS forget its connections (`expire_nodest_conn`); the entries connection tracking has
//! of them are deleted here, on a thread of its own, after IPVS has let go. Of a flow that began before its virtual server,
//! IPVS would rewrite the packets but leave the entry as it is (`ip_vs_update_conntrack` passes over confirmed ones), and
//! the answers would find nobody. Only UDP: TCP and SCTP end by themselves.

use std::sync::{Arc, mpsc};

use linux::conntrack::{Conntrack, Error, Flows, Served};
use linux::netlink::Requests;
use linux::row::{Key, Protocol, VirtualServerKey};

use super::lanes::LaneError;
use crate::names;

/// What is to be forgotten.
pub(super) enum Question {
    /// Flows to somebody who is gone.
    Gone(Flows),
    /// Flows that began before they were served.
    Served(Served),
}

impl Question {
    fn ask(&self, conntrack: &mut Conntrack) -> Result<usize, Error> {
        match self {
            Question::Gone(flows) => conntrack.delete(flows),
            Question::Served(served) => conntrack.delete_unserved(served),
        }
    }
}

/// The thread's inbox.
pub(super) struct Purge {
    inbox: mpsc::Sender<Question>,
    requests: Arc<Requests>,
}

impl Purge {
    pub(super) fn start() -> Result<Purge, LaneError> {
        let (sender, inbox) = mpsc::channel::<Question>();
        let requests: Arc<Requests> = Arc::default();
        let counted = Arc::clone(&requests);
        let run = move || {
            let mut conntrack = None;
            while let Ok(question) = inbox.recv() {
                if conntrack.is_none() {
                    conntrack = Conntrack::open().inspect_err(|error| tracing::warn!("{error}")).ok();
                }
                if let Some(conntrack) = &mut conntrack {
                    conntrack.count_in(Arc::clone(&counted));
                }
                let deleted = conntrack.as_mut().map(|conntrack| question.ask(conntrack));
                if let Some(Err(error)) = deleted {
                    tracing::warn!(
                        "{error}; UDP clients may get no answer until they pause for half a minute"
                    );
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

    pub(super) fn ask(&self, question: Question) {
        // The thread ends only with the process.
        let _ = self.inbox.send(question);
    }
}

/// Where UDP is served once these rows have come: at a virtual server, and at every port of a service address, which comes
/// after its virtual servers.
pub(super) fn served_by<'a>(keys: impl Iterator<Item = &'a Key>) -> Option<Served> {
    let mut served = Served::default();
    for key in keys {
        match key {
            Key::VirtualServer(VirtualServerKey::Address { ip, protocol: Protocol::Udp, port }) => {
                served.ports.insert((*ip, *port));
            }
            Key::Address { link, net } if **link == *names::link::DUMMY => {
                served.addresses.insert(net.addr());
            }
            _ => {}
        }
    }
    (served != Served::default()).then_some(served)
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

//! Forgetting flows to real servers that are gone: connection tracking would go on sending their packets there.
//!
//! Deleting a real server makes IPVS forget its connections (`expire_nodest_conn`); the entries connection tracking has
//! of them are deleted here, on a thread of its own, after IPVS has let go. Only UDP: TCP and SCTP end by themselves.

use std::sync::mpsc;

use linux::conntrack::{Conntrack, Flows};
use linux::row::{Key, Protocol, VirtualServerKey};

use super::lanes::LaneError;
use crate::metrics::Metrics;

/// The thread's inbox.
pub(super) struct Purge(mpsc::Sender<Flows>);

impl Purge {
    pub(super) fn start(metrics: &Metrics) -> Result<Purge, LaneError> {
        let (sender, inbox) = mpsc::channel::<Flows>();
        let requests = metrics.netlink_requests.with_label_values(&["conntrack", "write"]);
        let run = move || {
            let mut conntrack = None;
            while let Ok(flows) = inbox.recv() {
                requests.inc();
                if conntrack.is_none() {
                    conntrack = Conntrack::open().inspect_err(|error| tracing::warn!("{error}")).ok();
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
        Ok(Purge(sender))
    }

    pub(super) fn ask(&self, flows: Flows) {
        // The thread ends only with the process.
        let _ = self.0.send(flows);
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

//! What a driver has to say to its caller.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Objection, RemoteAsn};
use crate::family::Family;
use crate::graceful_restart::End;
use crate::negotiated::Negotiated;
use crate::peer::{Notice, Status};
use crate::speaker::{self, Counters};
use crate::wire::EncodeError;

/// News.
#[derive(Clone, Debug)]
pub enum Event {
    /// About routes: what was selected, when selection began, two peers of one router id.
    Routes(speaker::Event),
    /// Something in a configuration that cannot be used; the rest of it is in force.
    Objection(Objection),
    /// A peer is up.
    Up {
        /// Who.
        peer: IpAddr,
        /// On what terms.
        negotiated: Arc<Negotiated>,
    },
    /// A peer is no longer up.
    Down {
        /// Who.
        peer: IpAddr,
        /// Its paths are kept for a while.
        graceful: bool,
        /// How it ended.
        end: End,
    },
    /// Something else about a peer.
    Notice {
        /// Who.
        peer: IpAddr,
        /// What.
        notice: Notice,
    },
    /// Paths a peer could not be told.
    NotTold {
        /// Who.
        peer: IpAddr,
        /// Why.
        error: EncodeError,
        /// How many prefixes it would have concerned.
        prefixes: usize,
    },
    /// A socket did not do what it should. Said once for a peer or an address, until it works again.
    Trouble(String),
    /// The speaker listens here.
    Listening(SocketAddr),
}

/// A peer as an operator sees it.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Who.
    pub peer: IpAddr,
    /// What it must say of itself.
    pub remote_asn: RemoteAsn,
    /// Sessions and their history.
    pub status: Status,
    /// Prefixes it has told us, by family.
    pub received: Vec<(Family, usize)>,
    /// Prefixes it has been told, by family.
    pub told: Vec<(Family, usize)>,
    /// What has been counted of its paths.
    pub counters: Counters,
}

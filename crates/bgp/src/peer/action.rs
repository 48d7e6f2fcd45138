//! What a peer asks its driver to do, and what it can say about itself.

use std::sync::Arc;
use std::time::Instant;

use crate::family::Family;
use crate::graceful_restart::End;
use crate::negotiated::Negotiated;
use crate::session::State;
use crate::update::Update;
use crate::wire::{Fault, Notification};

/// Names one connection of a peer; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

/// To be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to the peer under this name.
    Dial(ConnectionId),
    /// Send these octets.
    Send(ConnectionId, Vec<u8>),
    /// Close it once what was to be sent has left, or give the attempt up.
    Hangup(ConnectionId),
    /// The peer is up, over this connection: tell it everything.
    Up(ConnectionId, Arc<Negotiated>),
    /// News about paths.
    Update(Update),
    /// The peer wants all our paths of the family again (RFC 2918).
    RefreshRequested(Family),
    /// The peer begins to tell all its paths of the family (RFC 7313).
    RefreshBegins(Family),
    /// It has told them all.
    RefreshEnds(Family),
    /// The peer is no longer up.
    Down {
        /// Its paths are to be kept for a while (RFC 4724).
        graceful: bool,
        /// How it ended.
        end: End,
    },
    /// Something worth a line in a log.
    Notice(Notice),
}

/// Something about a peer that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An attempt ended before the session was up.
    AttemptEnded(End),
    /// An error in an UPDATE that cost no session.
    Fault(Fault),
    /// Four fifths of the prefixes allowed.
    ManyPrefixes {
        /// Of this family.
        family: Family,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: u32,
    },
    /// More prefixes than allowed; the session was ended.
    TooManyPrefixes {
        /// Of this family.
        family: Family,
        /// How many there were.
        count: usize,
        /// How many there may be.
        limit: u32,
    },
}

/// Counters and last words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often it was up.
    pub established: u64,
    /// Since when it is.
    pub since: Option<Instant>,
    /// Last NOTIFICATION to it.
    pub last_sent: Option<Notification>,
    /// Last NOTIFICATION from it.
    pub last_received: Option<Notification>,
    /// Which of both came later: the one to it.
    pub sent_last: bool,
    /// How often its session was ended because it told too many prefixes.
    pub too_many_prefixes: u64,
    /// UPDATEs whose prefixes were taken as withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attributes_discarded: u64,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The furthest of its connections.
    pub state: State,
    /// Whether it was stopped by hand or for too many prefixes.
    pub stopped: bool,
    /// When connections are wanted again, after an error or too many prefixes; none if they are, or if it is stopped.
    pub resumes: Option<Instant>,
    /// The agreement, while it is up.
    pub negotiated: Option<Arc<Negotiated>>,
    /// What happened before.
    pub history: History,
}

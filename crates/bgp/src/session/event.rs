//! The alphabet of a session: its states, what can happen, what it asks for.

use std::fmt;
use std::sync::Arc;

use super::Ends;
use crate::graceful_restart::End;
use crate::negotiated::Negotiated;
use crate::wire::{Kind, Notification, Received, Refresh};

/// The states of RFC 4271 section 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing goes on.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting for a connection.
    Active,
    /// Connected; our OPEN is out.
    OpenSent,
    /// The peer's OPEN is in; waiting for its KEEPALIVE.
    OpenConfirm,
    /// Up.
    Established,
}

impl State {
    /// All of them, in order.
    pub const ALL: [State; 6] =
        [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

    /// Whether messages can arrive.
    pub const fn has_connection(self) -> bool {
        matches!(self, State::OpenSent | State::OpenConfirm | State::Established)
    }
}

/// As in the RFC, in lower case.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Idle => "idle",
            State::Connect => "connect",
            State::Active => "active",
            State::OpenSent => "open-sent",
            State::OpenConfirm => "open-confirm",
            State::Established => "established",
        })
    }
}

/// What happened. The numbers are the events of RFC 4271 section 8.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Dial (1, 3).
    Start,
    /// Wait for a connection (4, 5).
    StartPassive,
    /// End it, and say this (2, 8).
    Stop(Notification),
    /// The attempt to connect took too long, or it is time for another (9).
    ConnectRetryExpired,
    /// Nothing was heard for the hold time (10).
    HoldExpired,
    /// Time to say something (11).
    KeepaliveExpired,
    /// Nothing left the socket for too long (RFC 9687: 29).
    SendHoldExpired,
    /// There is a connection, dialled or accepted (16, 17).
    Connected(Ends),
    /// There is none, or it broke, or the peer closed it (18).
    ConnectionFailed,
    /// A good OPEN, and what it comes to with ours (19).
    Open(Box<Negotiated>),
    /// A bad header, or a message of a bad length (21).
    HeaderError(Notification),
    /// A bad OPEN, or not from whom we expect (22).
    OpenError(Notification),
    /// The peer's other connection stays (23).
    CollisionLost,
    /// The peer has restarted and comes anew; this connection is dead (RFC 4724 section 5).
    Replaced,
    /// The peer ends it (24, 25).
    Notification(Notification),
    /// (26)
    Keepalive,
    /// (27)
    Update(Received),
    /// An UPDATE the session cannot survive (28).
    UpdateError(Notification),
    /// ROUTE-REFRESH; `None` for one to be ignored.
    Refresh(Option<Refresh>),
    /// A message that has no place in this state, unread.
    Unexpected(Kind),
    /// Octets left the socket; `drained` if none are waiting.
    Progress {
        /// Nothing waits to be sent.
        drained: bool,
    },
}

/// What is to be done about it, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to the peer.
    Dial,
    /// Send these octets.
    Send(Vec<u8>),
    /// Close the connection, once what was to be sent has left; or give the attempt up.
    Hangup,
    /// The peer's OPEN is in. The KEEPALIVE that confirms it follows, unless a collision says otherwise.
    Opened(Arc<Negotiated>),
    /// Established.
    Up(Arc<Negotiated>),
    /// News about paths.
    Update(Received),
    /// The peer wants our paths again, or marks where its own begin and end.
    Refresh(Refresh),
    /// Back in Idle.
    Down {
        /// How.
        end: End,
        /// The agreement, if the session was Established.
        negotiated: Option<Arc<Negotiated>>,
    },
}

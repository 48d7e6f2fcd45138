//! The connections of a peer: one dialled, one awaited, one up.

use super::ConnectionId;
use crate::session::{Session, State};

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is up.
    Main,
    /// The one we dial.
    Outgoing,
    /// The one the peer dials.
    Incoming,
}

impl Side {
    pub(super) const ALL: [Side; 3] = [Side::Main, Side::Outgoing, Side::Incoming];

    /// The other attempt.
    pub(super) const fn other(self) -> Side {
        match self {
            Side::Outgoing => Side::Incoming,
            Side::Incoming | Side::Main => Side::Outgoing,
        }
    }
}

/// A session and the name of its connection, if it has one or has asked for one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) connection: Option<ConnectionId>,
}

/// All of them. The main one is an Idle session without a name while the peer is not up.
#[derive(Debug)]
pub(super) struct Links {
    main: Link,
    outgoing: Link,
    incoming: Link,
    named: u64,
}

impl Links {
    pub(super) fn new(outgoing: Session, incoming: Session) -> Self {
        let link = |session| Link { session, connection: None };
        // Replaced by the first session that comes up; it never leaves Idle.
        let main = outgoing.idle_copy();
        Links { main: link(main), outgoing: link(outgoing), incoming: link(incoming), named: 0 }
    }

    pub(super) const fn get(&self, side: Side) -> &Link {
        match side {
            Side::Main => &self.main,
            Side::Outgoing => &self.outgoing,
            Side::Incoming => &self.incoming,
        }
    }

    pub(super) const fn get_mut(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Main => &mut self.main,
            Side::Outgoing => &mut self.outgoing,
            Side::Incoming => &mut self.incoming,
        }
    }

    pub(super) const fn state(&self, side: Side) -> State {
        self.get(side).session.state()
    }

    /// The link that is up.
    pub(super) fn main(&self) -> Option<&Link> {
        Some(&self.main).filter(|link| link.session.state() == State::Established)
    }

    pub(super) fn main_mut(&mut self) -> Option<&mut Link> {
        Some(&mut self.main).filter(|link| link.session.state() == State::Established)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Link> {
        [&self.main, &self.outgoing, &self.incoming].into_iter()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        [&mut self.main, &mut self.outgoing, &mut self.incoming].into_iter()
    }

    pub(super) fn furthest(&self) -> State {
        self.all().map(|link| link.session.state()).max().unwrap_or(State::Idle)
    }

    pub(super) fn side_of(&self, id: ConnectionId) -> Option<Side> {
        Side::ALL.into_iter().find(|side| self.get(*side).connection == Some(id))
    }

    /// Gives the connection of a side a new name.
    pub(super) fn name(&mut self, side: Side) -> ConnectionId {
        self.named += 1;
        let id = ConnectionId(self.named);
        self.get_mut(side).connection = Some(id);
        id
    }

    /// Makes a session that has come up the main one and puts a fresh one in its place.
    pub(super) fn promote(&mut self, side: Side, fresh: Session) -> Option<ConnectionId> {
        let link = Link { session: fresh, connection: None };
        self.main = std::mem::replace(self.get_mut(side), link);
        self.main.connection
    }

    /// The main one has ended.
    pub(super) const fn demote(&mut self) {
        self.main.connection = None;
    }
}

//! Where paths come from, as far as selection and reflection care.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Role;
use crate::policy::PathSource;

/// Number of a peer in this process, small so that each path can carry it. Numbers of peers that are gone are used
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

impl PeerId {
    /// This speaker itself.
    pub(crate) const LOCAL: PeerId = PeerId(0);

    /// Position in tables by peer.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) kind: SourceKind,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) address: IpAddr,
}

/// The kinds of sources; a reflector tells its clients from other internal peers (RFC 4456).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SourceKind {
    Local,
    Client,
    NonClient,
    External,
}

impl SourceKind {
    /// An internal peer in this role.
    pub(crate) const fn internal(role: Role) -> Self {
        match role {
            Role::ReflectorClient => SourceKind::Client,
            Role::Plain => SourceKind::NonClient,
        }
    }
}

impl From<SourceKind> for PathSource {
    fn from(kind: SourceKind) -> Self {
        match kind {
            SourceKind::Local => PathSource::Local,
            SourceKind::Client | SourceKind::NonClient => PathSource::Internal,
            SourceKind::External => PathSource::External,
        }
    }
}

/// Sources by number; [`PeerId::LOCAL`] is always there.
#[derive(Debug)]
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    /// This speaker alone.
    pub(crate) fn new(router_id: Ipv4Addr) -> Self {
        Sources(vec![Source { kind: SourceKind::Local, router_id, address: IpAddr::V4(router_id) }])
    }

    /// Who that is.
    pub(crate) fn get(&self, id: PeerId) -> Option<&Source> {
        self.0.get(id.index())
    }

    /// Sets who that is.
    pub(crate) fn set(&mut self, id: PeerId, source: Source) {
        if self.0.len() <= id.index() {
            self.0.resize(id.index() + 1, source);
        }
        if let Some(place) = self.0.get_mut(id.index()) {
            *place = source;
        }
    }
}

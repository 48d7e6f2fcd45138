//! The routes of a speaker: what peers tell, what is selected of it, what peers are told.
//!
//! A [`Speaker`] is pure: no sockets, no clock. Whoever drives it brings up and down sessions as they come and go, hands
//! over what was received, asks with [`Speaker::pull`] what to send when a peer's socket has room, and reads
//! [`Speaker::next_event`]. Time is an argument; [`Speaker::next_deadline`] says when to call [`Speaker::tick`] if
//! nothing else happens.
//!
//! The cost of a call is the paths to the destinations it concerns times the number of different views peers have
//! (most often two: internal and external), not the number of peers.
//!
//! | decided in | what |
//! |---|---|
//! | [`crate::rib`] | which path is best, and why another is not |
//! | [`crate::policy`] | what policies do to a path |
//! | [`crate::adj_out`] | what peers are told, how far they have heard it |
//! | `deferral`, `sessions` | what stays while somebody restarts |
//! | `changes` | what follows from other rules |

mod changes;
mod deferral;
mod event;
mod peer;
mod report;
mod routing;
mod rules;
mod sessions;
mod tables;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::attributes::Attributes;
use crate::config::Config;
use crate::families::Families;
use crate::family::Family;
use crate::interner::Interner;
use crate::source::PeerId;
use crate::update::Update;
pub use deferral::ABSENT_PEERS_WAIT;
use deferral::Deferral;
pub use event::{Counters, Event, PathView, SelectedPath};
use peer::Peer;
pub use routing::{DEFAULT_LOCAL_PREF, Routing};
use rules::Rules;
use tables::Tables;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// What the peer told is gone.
    Lost,
    /// The peer may be restarting: in the families it promised to preserve, its paths stay for the time it asked for
    /// (RFC 4724 section 4.2).
    Graceful,
}

/// All tables of a speaker, and its peers.
#[derive(Debug)]
pub struct Speaker {
    rules: Rules,
    tables: [Tables; 2],
    interner: Interner,
    /// By number. [`PeerId::LOCAL`] has none.
    peers: Vec<Option<Peer>>,
    numbers: HashMap<IpAddr, PeerId>,
    free: Vec<PeerId>,
    /// Who is up, by AS number and router id.
    identities: HashMap<(u32, Ipv4Addr), PeerId>,
    deferral: Option<Deferral>,
    /// When stale paths of which peer go.
    timers: BTreeSet<(Instant, PeerId)>,
    stale_time: std::time::Duration,
    events: VecDeque<Event>,
    /// Families in which selection has begun, and which the caller has yet to be told.
    began: Families,
}

impl Speaker {
    /// A speaker with empty tables. If the configuration says that it follows one that restarted, selection waits for
    /// the peers.
    pub fn new(config: &Config, routing: Routing, now: Instant) -> Self {
        let mut speaker = Speaker {
            rules: Rules::new(config.asn.get(), config.router_id),
            tables: Family::ALL.map(Tables::new),
            interner: Interner::default(),
            peers: vec![None],
            numbers: HashMap::new(),
            free: Vec::new(),
            identities: HashMap::new(),
            deferral: None,
            timers: BTreeSet::new(),
            stale_time: std::time::Duration::ZERO,
            events: VecDeque::new(),
            began: Families::NONE,
        };
        let waits = config.graceful_restart.filter(|restart| restart.restarting);
        match waits {
            Some(restart) => {
                speaker.deferral = Some(Deferral::new(now, restart.deferral));
                speaker.tables.iter_mut().for_each(|tables| tables.table.set_waiting(true));
            }
            None => speaker.began = Families::all(),
        }
        speaker.set_routing(routing);
        speaker.apply(config, now);
        speaker
    }

    /// A path of our own, in place of the one there was. The next hop may be unspecified: then it is our end of each
    /// session.
    pub fn announce(&mut self, prefix: IpNet, attributes: Attributes) {
        let mut attributes = attributes;
        attributes.normalize();
        let learned = self.interner.intern(Arc::new(attributes));
        let tables = of(&mut self.tables, Family::of(&prefix));
        let accepted = Ok(learned.clone());
        tables.learn(prefix.trunc(), PeerId::LOCAL, &learned, accepted, &self.rules, &mut self.interner);
    }

    /// Our own path to a prefix is gone.
    pub fn withdraw(&mut self, prefix: IpNet) {
        let tables = of(&mut self.tables, Family::of(&prefix));
        if let Some(id) = tables.table.find(&prefix.trunc()) {
            tables.forget(id, PeerId::LOCAL, &self.rules, &mut self.interner);
        }
    }

    /// What a peer has told. A peer that is not up is not listened to.
    pub fn update(&mut self, peer: IpAddr, update: Update, now: Instant) {
        let Some(id) = self.up(peer) else { return };
        if let Some(peer) = self.peer_mut(id) {
            peer.has_told = true;
        }
        match update {
            Update::Reach { family, attributes, prefixes } => self.reach(id, family, attributes, prefixes),
            Update::Unreach { family, prefixes } => {
                let tables = of(&mut self.tables, family);
                let mut withdrawn = 0;
                for prefix in prefixes {
                    if let Some(at) = tables.table.find(&prefix.trunc()) {
                        tables.forget(at, id, &self.rules, &mut self.interner);
                    }
                    withdrawn += 1;
                }
                if let Some(peer) = self.peer_mut(id) {
                    peer.counters.withdrawn += withdrawn;
                }
            }
            Update::EndOfRib(family) => self.end_of_rib(id, family, now),
        }
    }

    /// Paths with equal attributes.
    fn reach(&mut self, id: PeerId, family: Family, attributes: Arc<Attributes>, prefixes: Vec<IpNet>) {
        let Speaker { rules, tables, interner, peers, .. } = self;
        let Some(Some(peer)) = peers.get_mut(id.index()) else { return };
        let Some(neighbour) = &peer.neighbour else { return };
        let learned = interner.intern(attributes);
        let refusal = rules.refuses(&learned, neighbour);
        let tables = of(tables, family);
        for prefix in prefixes.into_iter().filter(|prefix| Family::of(prefix) == family) {
            let prefix = prefix.trunc();
            let accepted = rules.accept(&prefix, &learned, refusal, neighbour, interner);
            peer.counters.announced += 1;
            if let Err(refusal) = accepted {
                peer.counters.refuse(refusal);
            }
            tables.learn(prefix, id, &learned, accepted, rules, interner);
        }
    }

    /// The next news for a peer: up to about `most` prefixes, packed by attributes. Empty once it has heard
    /// everything; until then the caller is to come back whenever the peer's socket has room.
    pub fn pull(&mut self, peer: IpAddr, most: usize) -> Vec<Update> {
        let Some(id) = self.up(peer) else { return Vec::new() };
        let mut news = self.tables.iter_mut().map(|tables| tables.groups.pull(id, most, &mut tables.table));
        news.find(|updates| !updates.is_empty()).unwrap_or_default()
    }

    /// Peers that have got news since the last call; each is to be pulled until nothing comes. O(1) if there are none.
    pub fn wanting(&mut self) -> Vec<IpAddr> {
        let mut woken = BTreeSet::new();
        for tables in &mut self.tables {
            tables.groups.take_woken(&mut woken);
        }
        woken.into_iter().filter_map(|id| self.peer(id).map(|peer| peer.address)).collect()
    }

    /// The next thing the caller should know. That selection has begun comes after what was selected: whoever removes what
    /// is not selected then knows all that is.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for family in Family::ALL {
            let Some(id) = of(&mut self.tables, family).next_changed() else { continue };
            let event = self.selected(family, id);
            of(&mut self.tables, family).table.unpin(id);
            if event.is_some() {
                return event;
            }
        }
        let family = self.began.iter().next()?;
        self.began.remove(family);
        Some(Event::SelectionBegan(family))
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.index())?.as_ref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index())?.as_mut()
    }

    /// The number of a peer that is up.
    fn up(&self, address: IpAddr) -> Option<PeerId> {
        let id = *self.numbers.get(&address)?;
        self.peer(id).filter(|peer| peer.session.is_some()).map(|_| id)
    }
}

/// The tables of a family.
fn of(tables: &mut [Tables; 2], family: Family) -> &mut Tables {
    let [v4, v6] = tables;
    match family {
        Family::Ipv4Unicast => v4,
        Family::Ipv6Unicast => v6,
    }
}

#[cfg(test)]
mod tests;

//! What is done with octets of a stranger, as functions: each must come back, whatever it is given.
//!
//! Two callers: `tests/fuzz` of the bgp crate mutates the corpus on any compiler, in every run of the tests; the targets
//! beside this file let libFuzzer do it, which sees the branches it takes, for as long as one likes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::config::{MaxPrefixes, RemoteAsn};
use bgp::peer::{Action, ConnectionId, Identity, Peer};
use bgp::session::{Ends, Event, Session, State, Terms};
use bgp::speaker::{Down, Routing};
use bgp::wire::{
    Codec, Framer, Kind, MESSAGE_MAX, Notification, Open, Refresh, encode_keepalive, encode_update, update,
};
use bgp::{Asn, Config, Families, Family, PeerConfig, Speaker};

/// Octets handed over at a time, so that messages are cut in odd places.
const CHUNK: usize = 97;
/// Prefixes of each family a peer may tell.
const BOUND: u32 = 40;

/// Octets as messages: what is understood is written and read back as the same. Returns how many messages were understood.
pub fn message(octets: &[u8]) -> usize {
    let mut framer = Framer::default();
    framer.push(octets);
    let mut understood = 0;
    while let Ok(Some(frame)) = framer.next_frame() {
        understood += usize::from(match frame.kind {
            Kind::Open => Open::decode(&frame.body).is_ok_and(|open| reopened(&open)),
            Kind::Update => updates(&frame.body),
            Kind::Notification => !Notification::decode(&frame.body).to_string().is_empty(),
            Kind::RouteRefresh => Refresh::decode(&frame.body, true).is_ok(),
            Kind::Keepalive => true,
        });
    }
    assert!(framer.waiting() <= octets.len());
    understood
}

fn reopened(open: &Open) -> bool {
    let mut again = Vec::new();
    open.encode(&mut again);
    // One that names strange families only cannot be written: it would say IPv4 by saying nothing.
    if !open.capabilities.families.is_empty() {
        let body = again.get(bgp::wire::HEADER..).unwrap_or_default();
        assert_eq!(Open::decode(body).as_ref(), Ok(open));
    }
    true
}

/// Under every agreement there can be.
fn updates(body: &[u8]) -> bool {
    let families = Families::all();
    let mut any = false;
    for (internal, four_octet_asn) in [(true, true), (true, false), (false, true), (false, false)] {
        let codec = Codec { four_octet_asn, internal, families, extended_next_hop: families };
        let Ok(received) = update::decode(body, &codec) else { continue };
        any = true;
        for update in &received.updates {
            let mut again = Vec::new();
            // Attributes that filled a message can be too long beside a prefix; no more than that.
            if encode_update(update, &codec, &mut again).is_ok() {
                told_well(&again, &codec);
            }
        }
    }
    any
}

/// What we say is good, and no message is too long.
fn told_well(octets: &[u8], codec: &Codec) {
    let mut framer = Framer::default();
    framer.push(octets);
    while let Ok(Some(frame)) = framer.next_frame() {
        assert!(frame.body.len() + bgp::wire::HEADER <= MESSAGE_MAX);
        let again = update::decode(&frame.body, codec);
        assert!(again.as_ref().is_ok_and(|again| again.faults.is_empty()), "{again:?}");
    }
    assert_eq!(framer.waiting(), 0, "something that is no message");
}

fn terms() -> Terms {
    Terms {
        asn: Asn::DEFAULT,
        router_id: [10, 0, 0, 1].into(),
        hold_time: 90,
        remote_asn: RemoteAsn::Any,
        families: Families::all(),
        extended_next_hop: true,
        graceful_restart: None,
    }
}

const ENDS: Ends = Ends { local: address(1), remote: address(2) };

const fn address(n: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, n))
}

/// Octets as what a peer says from its OPEN on: the session answers or ends, and holds no more than a message. Returns
/// whether it came up.
pub fn session(octets: &[u8]) -> usize {
    let now = Instant::now();
    let mut out = Vec::new();
    let mut session = Session::new(terms(), Duration::from_secs(15), 1);
    session.event(Event::StartPassive, now, &mut out);
    session.event(Event::Connected(ENDS), now, &mut out);
    let mut came_up = false;
    for chunk in octets.chunks(CHUNK) {
        session.received(chunk);
        while session.next_message(now, &mut out) {
            came_up |= session.state() == State::Established;
            out.clear();
        }
        if session.state() == State::Idle {
            break;
        }
    }
    usize::from(came_up)
}

/// Octets as what an external peer says once it is up: it goes through session, table and policies to another peer, who
/// is told only what is good; a bound on prefixes holds; and when the peer is gone, so is everything it said. Returns how
/// many paths it got across.
pub fn speaker(octets: &[u8]) -> usize {
    let mut scene = Scene::new();
    for chunk in octets.chunks(CHUNK) {
        let Some(connection) = scene.connection else { break };
        let mut out = Vec::new();
        scene.peer.received(connection, chunk, scene.now, &mut out);
        scene.perform(out);
    }
    let told = scene.tell();
    if let Some(connection) = scene.connection {
        let mut out = Vec::new();
        scene.peer.failed(connection, scene.now, &mut out);
        scene.perform(out);
    }
    scene.tell();
    assert_eq!((scene.speaker.path_count(), scene.speaker.destination_count()), (0, 0), "something stays");
    told
}

/// A speaker with a talker, which is judged, and a listener.
struct Scene {
    now: Instant,
    speaker: Speaker,
    peer: Peer,
    connection: Option<ConnectionId>,
}

impl Scene {
    /// Both are up.
    fn new() -> Self {
        let now = Instant::now();
        let bound = MaxPrefixes { limit: BOUND, restart_after: None };
        let talker =
            PeerConfig { passive: true, max_prefixes: Some(bound), ..PeerConfig::new(RemoteAsn::Any) };
        let listener = PeerConfig::new(RemoteAsn::Any);
        let config = Config {
            asn: Asn::DEFAULT,
            router_id: [10, 0, 0, 1].into(),
            cluster_id: None,
            listen: Vec::new(),
            graceful_restart: None,
            peers: [(address(2), talker.clone()), (address(3), listener)].into(),
        };
        let routing = Routing { external_needs_policy: false, ..Routing::default() };
        let speaker = Speaker::new(&config, routing, now);
        let peer = Peer::new(address(2), talker, Identity::from(&config), 1);
        let mut scene = Scene { now, speaker, peer, connection: None };
        let mut out = Vec::new();
        scene.peer.start(now, &mut out);
        scene.connection = scene.peer.accept(ENDS, now, &mut out).ok();
        let mut greeting = Vec::new();
        introduction(65_002, 2).encode(&mut greeting);
        encode_keepalive(&mut greeting);
        if let Some(connection) = scene.connection {
            scene.peer.received(connection, &greeting, now, &mut out);
        }
        scene.perform(out);
        let ends = Ends { remote: address(3), ..ENDS };
        let agreed = terms().negotiate(&introduction(65_003, 3), ends);
        scene.speaker.peer_up(address(3), agreed.expect("good terms").into(), now);
        scene
    }

    /// Does what a driver does.
    fn perform(&mut self, actions: Vec<Action>) {
        let talker = address(2);
        for action in actions {
            match action {
                Action::Up(_, negotiated) => self.speaker.peer_up(talker, negotiated, self.now),
                Action::Down { .. } => {
                    self.connection = None;
                    self.speaker.peer_down(talker, Down::Lost, self.now);
                }
                Action::Update(update) => {
                    self.speaker.update(talker, update, self.now);
                    for family in Family::ALL {
                        let count = self.speaker.prefix_count(talker, family);
                        let mut out = Vec::new();
                        self.peer.counted(family, count, self.now, &mut out);
                        self.perform(out);
                    }
                }
                Action::RefreshRequested(family) => {
                    self.speaker.refresh_requested(talker, family);
                }
                Action::RefreshBegins(family) => self.speaker.refresh_begins(talker, family),
                Action::RefreshEnds(family) => self.speaker.refresh_ends(talker, family),
                Action::Dial(_) | Action::Send(..) | Action::Hangup(_) | Action::Notice(_) => {}
            }
        }
        // One message can go beyond the bound, before it is noticed.
        let most = BOUND as usize + MESSAGE_MAX;
        assert!(Family::ALL.iter().all(|family| self.speaker.prefix_count(talker, *family) <= most));
    }

    /// Everybody hears the news. Returns how many prefixes the listener was told.
    fn tell(&mut self) -> usize {
        let ends = Ends { remote: address(3), ..ENDS };
        let codec = terms().negotiate(&introduction(65_003, 3), ends).map(|agreed| Codec::from(&agreed));
        let Ok(codec) = codec else { return 0 };
        let mut told = 0;
        for peer in self.speaker.wanting() {
            loop {
                let updates = self.speaker.pull(peer, 7);
                if updates.is_empty() {
                    break;
                }
                for update in updates.iter().filter(|_| peer == address(3)) {
                    let mut octets = Vec::new();
                    if encode_update(update, &codec, &mut octets).is_ok() {
                        told_well(&octets, &codec);
                    }
                    if let bgp::Update::Reach { prefixes, .. } = update {
                        told += prefixes.len();
                    }
                }
            }
        }
        while self.speaker.next_event().is_some() {}
        told
    }
}

/// What another speaker says of itself.
fn introduction(asn: u32, n: u8) -> Open {
    let asn = Asn::new(asn).unwrap_or(Asn::DEFAULT);
    Terms { asn, router_id: [10, 0, 0, n].into(), ..terms() }.open()
}

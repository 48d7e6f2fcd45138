//! A peer's connections under a clock the test turns.

use std::collections::BTreeMap;

use super::*;
use crate::config::{MaxPrefixes, RemoteAsn};
use crate::families::Families;
use crate::graceful_restart::{self, End};
use crate::session::Terms;
use crate::wire::notification::OpenError;
use crate::wire::{Framer, Kind, encode_keepalive};

const OURS: [u8; 4] = [10, 0, 0, 5];
const LOW: [u8; 4] = [10, 0, 0, 1];
const HIGH: [u8; 4] = [10, 0, 0, 9];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn identity() -> Identity {
    let restart = GracefulRestart {
        restart_time: seconds(60),
        deferral: seconds(60),
        stale_time: seconds(60),
        restarting: false,
        forwarding_kept: Families::NONE,
    };
    Identity { asn: Asn::new(65_001).unwrap(), router_id: OURS.into(), graceful_restart: Some(restart) }
}

/// A peer of ours, the clock, and what it has asked for.
struct Scene {
    peer: Peer,
    now: Instant,
    out: Vec<Action>,
    remote: Terms,
}

fn ends() -> Ends {
    Ends { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into() }
}

impl Scene {
    fn new(remote_id: [u8; 4], change: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut config = PeerConfig::new(RemoteAsn::Any);
        change(&mut config);
        let remote = Terms {
            asn: Asn::new(65_002).unwrap(),
            router_id: remote_id.into(),
            hold_time: 90,
            remote_asn: RemoteAsn::Any,
            families: Families::all(),
            extended_next_hop: false,
            graceful_restart: None,
        };
        let now = Instant::now();
        let mut peer = Peer::new(ends().remote, config, identity(), 3);
        let mut out = Vec::new();
        peer.start(now, &mut out);
        Scene { peer, now, out, remote }
    }

    /// What was asked for since the last look.
    fn taken(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    fn dialled(&mut self) -> ConnectionId {
        let dial = |action: &Action| match action {
            Action::Dial(id) => Some(*id),
            _ => None,
        };
        let dials: Vec<_> = self.out.iter().filter_map(dial).collect();
        assert_eq!(dials.len(), 1, "{:?}", self.out);
        dials[0]
    }

    fn connect(&mut self, id: ConnectionId) {
        self.peer.connected(id, ends(), self.now, &mut self.out);
    }

    fn accept(&mut self) -> ConnectionId {
        self.peer.accept(ends(), self.now, &mut self.out).unwrap()
    }

    fn open(&mut self, id: ConnectionId) {
        let mut octets = Vec::new();
        self.remote.open().encode(&mut octets);
        self.peer.received(id, &octets, self.now, &mut self.out);
    }

    fn keepalive(&mut self, id: ConnectionId) {
        let mut octets = Vec::new();
        encode_keepalive(&mut octets);
        self.peer.received(id, &octets, self.now, &mut self.out);
    }

    fn notify(&mut self, id: ConnectionId, why: Notification) {
        let mut octets = Vec::new();
        why.encode(&mut octets);
        self.peer.received(id, &octets, self.now, &mut self.out);
    }

    /// Brings the peer up over the connection it dials.
    fn up(&mut self) -> ConnectionId {
        let id = self.accept();
        self.open(id);
        self.keepalive(id);
        assert_eq!(self.peer.status().state, State::Established);
        self.taken();
        id
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.peer.tick(self.now, &mut self.out);
    }

    /// NOTIFICATIONs sent, by connection.
    fn sent(&self) -> BTreeMap<ConnectionId, (u8, u8)> {
        let mut sent = BTreeMap::new();
        for action in &self.out {
            if let Action::Send(id, octets) = action {
                let mut framer = Framer::default();
                framer.push(octets);
                let frame = framer.next_frame().unwrap().unwrap();
                if frame.kind == Kind::Notification {
                    let why = Notification::decode(&frame.body);
                    sent.insert(*id, (why.code, why.subcode));
                }
            }
        }
        sent
    }

    fn is_up(&self) -> bool {
        self.out.iter().any(|action| matches!(action, Action::Up(..)))
    }
}

/// Both dial at once; the OPENs arrive on both before either is confirmed.
fn collide(remote_id: [u8; 4], incoming_first: bool) -> (Scene, ConnectionId, ConnectionId) {
    let mut scene = Scene::new(remote_id, |_| {});
    let outgoing = scene.dialled();
    let incoming = scene.accept();
    scene.connect(outgoing);
    let order = if incoming_first { [incoming, outgoing] } else { [outgoing, incoming] };
    scene.taken();
    for id in order {
        scene.open(id);
    }
    (scene, outgoing, incoming)
}

#[test]
fn a_collision_leaves_the_connection_of_the_higher_router_id() {
    for incoming_first in [true, false] {
        let (scene, outgoing, _) = collide(HIGH, incoming_first);
        assert_eq!(scene.sent(), BTreeMap::from([(outgoing, (6, 7))]), "first {incoming_first}");
        let (scene, _, incoming) = collide(LOW, incoming_first);
        assert_eq!(scene.sent(), BTreeMap::from([(incoming, (6, 7))]), "first {incoming_first}");
    }
}

#[test]
fn equal_router_ids_are_settled_by_as_number() {
    let (scene, outgoing, _) = collide(OURS, true);
    assert_eq!(scene.sent(), BTreeMap::from([(outgoing, (6, 7))]), "65002 is higher than ours");
}

#[test]
fn the_loser_is_not_confirmed_and_the_winner_comes_up() {
    let (mut scene, outgoing, incoming) = collide(HIGH, true);
    scene.taken();
    scene.keepalive(incoming);
    assert!(scene.is_up());
    scene.keepalive(outgoing);
    let history = scene.peer.status().history;
    assert_eq!((history.established, history.last_sent), (1, None), "a collision is no error of the peer");
    assert_eq!(scene.peer.codec().unwrap().0, incoming);
}

#[test]
fn a_connection_that_comes_late_is_turned_away_and_the_first_is_probed() {
    let mut scene = Scene::new(HIGH, |config| config.graceful_restart = false);
    let first = scene.up();
    let late = scene.accept();
    let probes = scene.taken();
    assert!(
        matches!(&probes[0], Action::Send(id, octets) if *id == first && octets.len() == 19),
        "{probes:?}"
    );
    scene.open(late);
    assert_eq!(scene.sent(), BTreeMap::from([(late, (6, 7))]));
    assert_eq!(scene.peer.codec().unwrap().0, first);
}

#[test]
fn a_peer_that_restarts_replaces_its_connection_and_keeps_its_paths() {
    let mut scene = Scene::new(HIGH, |_| {});
    scene.remote.graceful_restart = Some(graceful_restart::offer(
        &GracefulRestart { restarting: true, ..identity().graceful_restart.unwrap() },
        Families::all(),
        false,
    ));
    let first = scene.up();
    scene.wait(CONNECT_WAIT + seconds(1));
    let second = scene.accept();
    scene.taken();
    scene.open(second);
    assert!(scene.out.contains(&Action::Down { graceful: true, end: End::Lost }), "{:?}", scene.out);
    assert!(scene.out.contains(&Action::Hangup(first)));
    assert!(scene.sent().is_empty(), "nothing is said on the old connection");
    scene.keepalive(second);
    assert!(scene.is_up());
    assert_eq!(scene.peer.codec().unwrap().0, second);
}

#[test]
fn attempts_come_less_and_less_often_but_go_on() {
    let mut scene = Scene::new(HIGH, |config| config.connect_retry = (seconds(1), seconds(8)));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let id = scene.dialled();
        scene.taken();
        scene.peer.failed(id, scene.now, &mut scene.out);
        let at = scene.peer.next_deadline().unwrap();
        pauses.push(at - scene.now);
        scene.wait(at - scene.now);
    }
    for (pause, most) in pauses.iter().zip([1, 2, 4, 8, 8, 8].map(seconds)) {
        assert!(*pause <= most && *pause >= most.mul_f64(0.7), "{pauses:?}");
    }
}

#[test]
fn an_attempt_that_hangs_is_given_up_for_another() {
    let mut scene = Scene::new(HIGH, |_| {});
    let first = scene.dialled();
    scene.taken();
    scene.wait(CONNECT_WAIT);
    assert!(scene.out.contains(&Action::Hangup(first)));
    assert_ne!(scene.dialled(), first);
}

#[test]
fn an_error_keeps_both_sides_away_for_a_while() {
    let mut scene = Scene::new(HIGH, |_| {});
    let outgoing = scene.dialled();
    scene.connect(outgoing);
    scene.taken();
    scene.notify(outgoing, Notification::new(OpenError::BadPeerAs));
    assert!(matches!(scene.out.last(), Some(Action::Notice(Notice::AttemptEnded(End::Received(_))))));
    assert_eq!(scene.peer.status().state, State::Idle);
    assert!(scene.peer.accept(ends(), scene.now, &mut scene.out).is_err());
    scene.taken();
    scene.wait(ERROR_HOLD.0);
    scene.dialled();
    scene.accept();
}

#[test]
fn a_passive_peer_is_never_dialled() {
    let mut scene = Scene::new(HIGH, |config| config.passive = true);
    for _ in 0..10 {
        scene.wait(seconds(60));
    }
    assert_eq!(scene.taken(), []);
    let id = scene.up();
    scene.peer.failed(id, scene.now, &mut scene.out);
    for _ in 0..10 {
        scene.wait(seconds(60));
    }
    assert!(!scene.taken().iter().any(|action| matches!(action, Action::Dial(_))));
    // A peer that connects and goes before its OPEN, as a check of the port does.
    let id = scene.accept();
    scene.peer.failed(id, scene.now, &mut scene.out);
    for _ in 0..10 {
        scene.wait(seconds(60));
    }
    assert!(!scene.taken().iter().any(|action| matches!(action, Action::Dial(_))));
    scene.up();
}

#[test]
fn too_many_prefixes_end_the_session_until_the_time_is_up() {
    let bound = MaxPrefixes { limit: 10, restart_after: Some(seconds(300)) };
    let mut scene = Scene::new(HIGH, |config| config.max_prefixes = Some(bound));
    let id = scene.up();
    scene.peer.counted(Family::Ipv4Unicast, 8, scene.now, &mut scene.out);
    assert_eq!(
        scene.taken(),
        [Action::Notice(Notice::ManyPrefixes { family: Family::Ipv4Unicast, count: 8, limit: 10 })]
    );
    scene.peer.counted(Family::Ipv4Unicast, 11, scene.now, &mut scene.out);
    assert_eq!(scene.sent(), BTreeMap::from([(id, (6, 1))]));
    scene.taken();
    let status = scene.peer.status();
    assert_eq!((status.history.too_many_prefixes, status.history.sent_last), (1, true));
    assert_eq!((status.resumes, status.stopped), (Some(scene.now + seconds(300)), false));
    scene.wait(seconds(299));
    assert!(scene.peer.accept(ends(), scene.now, &mut scene.out).is_err());
    assert_eq!(scene.taken(), []);
    scene.wait(seconds(1));
    scene.dialled();
}

#[test]
fn too_many_prefixes_without_a_time_end_it_until_the_bound_changes() {
    let bound = MaxPrefixes { limit: 10, restart_after: None };
    let mut scene = Scene::new(HIGH, |config| config.max_prefixes = Some(bound));
    scene.up();
    scene.peer.counted(Family::Ipv6Unicast, 11, scene.now, &mut scene.out);
    scene.taken();
    scene.wait(seconds(100_000));
    assert_eq!(scene.taken(), []);
    assert!(scene.peer.status().stopped);
    let config = PeerConfig { max_prefixes: None, ..scene.peer.config().clone() };
    scene.peer.reconfigure(config, identity(), scene.now, &mut scene.out);
    scene.dialled();
}

#[test]
fn only_what_was_agreed_on_resets_the_session() {
    let mut scene = Scene::new(HIGH, |_| {});
    let id = scene.up();
    let config = scene.peer.config().clone();
    for harmless in [
        PeerConfig { port: 1790, ..config.clone() },
        PeerConfig { passive: true, ..config.clone() },
        PeerConfig { max_prefixes: Some(MaxPrefixes { limit: 5, restart_after: None }), ..config.clone() },
        PeerConfig { role: crate::config::Role::ReflectorClient, ..config.clone() },
        config.clone(),
    ] {
        scene.peer.reconfigure(harmless, identity(), scene.now, &mut scene.out);
        assert_eq!(scene.taken(), []);
    }
    scene.peer.set_restarting(true);
    scene.peer.reconfigure(config.clone(), identity(), scene.now, &mut scene.out);
    assert_eq!(scene.taken(), [], "our own restart is not a change of the peer");
    let changed = PeerConfig { hold_time: seconds(30), ..config };
    scene.peer.reconfigure(changed, identity(), scene.now, &mut scene.out);
    assert_eq!(scene.sent(), BTreeMap::from([(id, (6, 6))]));
    scene.dialled();
}

#[test]
fn stopped_by_hand_it_stays_away_until_started() {
    let mut scene = Scene::new(HIGH, |_| {});
    let id = scene.up();
    let why = Notification::with_text(Cease::AdministrativeShutdown, "maintenance");
    scene.peer.stop(&why, scene.now, &mut scene.out);
    assert_eq!(scene.sent(), BTreeMap::from([(id, (6, 2))]));
    scene.taken();
    scene.wait(seconds(10_000));
    assert_eq!(scene.taken(), []);
    assert_eq!(scene.peer.next_deadline(), None);
    scene.peer.start(scene.now, &mut scene.out);
    scene.dialled();
}

#[test]
fn abandoned_it_hears_nothing() {
    let mut scene = Scene::new(HIGH, |_| {});
    let id = scene.up();
    scene.peer.abandon(scene.now, &mut scene.out);
    assert!(scene.out.contains(&Action::Hangup(id)));
    assert!(scene.sent().is_empty());
}

/// Two peers of ours that dial each other, every octet delivered in a random order of connections, and connections accepted
/// some time after the kernel has made them: they come up over one connection, both agree which, and that one stays.
#[test]
fn two_of_ours_agree_in_any_order() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(seed);
        for _ in 0..4000 {
            pair.step(&mut random);
            if pair.agree() {
                break;
            }
        }
        let now = || pair.sides.each_ref().map(|side| side.peer.status().state);
        assert!(pair.agree(), "seed {seed}: {:?}", now());
        // A session that only one side saw come up may have been before; what is still under way ends none any more.
        let times = |pair: &Pair| pair.sides.each_ref().map(|side| side.peer.status().history.established);
        let before = times(&pair);
        (0..1000).for_each(|_| pair.step(&mut random));
        assert_eq!((pair.agree(), times(&pair)), (true, before), "seed {seed}");
    }
}

/// One direction of a connection.
struct Pipe {
    ours: ConnectionId,
    /// None until the other side has taken it from its kernel.
    theirs: Option<ConnectionId>,
    /// Under way.
    octets: std::collections::VecDeque<Vec<u8>>,
    /// Closed behind them.
    closed: bool,
}

impl Pipe {
    fn new(ours: ConnectionId, theirs: Option<ConnectionId>) -> Pipe {
        Pipe { ours, theirs, octets: Default::default(), closed: false }
    }
}

struct Node {
    peer: Peer,
    /// To the other.
    pipes: Vec<Pipe>,
    dials: Vec<ConnectionId>,
}

struct Pair {
    sides: [Node; 2],
    now: Instant,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let node = |id: [u8; 4], other: [u8; 4], seed| {
            let identity = Identity { router_id: id.into(), ..identity() };
            let peer = Peer::new(other.into(), PeerConfig::new(RemoteAsn::Any), identity, seed);
            Node { peer, pipes: Vec::new(), dials: Vec::new() }
        };
        let sides = [node(LOW, HIGH, seed), node(HIGH, LOW, seed + 1000)];
        let mut pair = Pair { sides, now };
        for at in 0..2 {
            let mut out = Vec::new();
            pair.sides[at].peer.start(now, &mut out);
            pair.perform(at, out);
        }
        pair
    }

    fn perform(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(id) => self.sides[at].dials.push(id),
                Action::Send(id, octets) => {
                    let pipe = self.sides[at].pipes.iter_mut().find(|pipe| pipe.ours == id);
                    pipe.into_iter().for_each(|pipe| pipe.octets.push_back(octets.clone()));
                }
                Action::Hangup(id) => {
                    self.sides[at].dials.retain(|dial| *dial != id);
                    self.sides[at]
                        .pipes
                        .iter_mut()
                        .filter(|pipe| pipe.ours == id)
                        .for_each(|pipe| pipe.closed = true);
                }
                _ => {}
            }
        }
    }

    /// Something happens to one side: a connection it dialled is made, one the other dialled is accepted, octets or the end
    /// of one arrive, or time passes.
    fn step(&mut self, random: &mut fastrand::Rng) {
        let at = random.usize(..2);
        let other = 1 - at;
        let mut out = Vec::new();
        if !self.sides[at].dials.is_empty() && random.bool() {
            let id = self.sides[at].dials.remove(0);
            self.sides[at].pipes.push(Pipe::new(id, None));
            self.sides[at].peer.connected(id, ends(), self.now, &mut out);
        } else if let Some(which) =
            (!self.sides[other].pipes.is_empty()).then(|| random.usize(..self.sides[other].pipes.len()))
        {
            let pipe = &mut self.sides[other].pipes[which];
            match (pipe.theirs, pipe.octets.front()) {
                (None, _) => {
                    let dialled = pipe.ours;
                    let name = self.sides[at].peer.accept(ends(), self.now, &mut out).unwrap();
                    pipe.theirs = Some(name);
                    self.sides[at].pipes.push(Pipe::new(name, Some(dialled)));
                }
                (Some(name), Some(_)) => {
                    let octets = pipe.octets.pop_front().unwrap();
                    self.sides[at].peer.received(name, &octets, self.now, &mut out);
                }
                (Some(name), None) if pipe.closed => {
                    self.sides[other].pipes.remove(which);
                    self.sides[at].peer.failed(name, self.now, &mut out);
                }
                _ => {}
            }
        }
        self.perform(at, out);
        if random.u8(..8) == 0 {
            self.now += Duration::from_millis(100);
            for at in 0..2 {
                let mut out = Vec::new();
                self.sides[at].peer.tick(self.now, &mut out);
                self.perform(at, out);
            }
        }
    }

    fn agree(&self) -> bool {
        let [a, b] = &self.sides;
        let (Some((ours, _)), Some((theirs, _))) = (a.peer.codec(), b.peer.codec()) else { return false };
        a.pipes.iter().any(|pipe| pipe.ours == ours && pipe.theirs == Some(theirs) && !pipe.closed)
    }
}

//! A speaker, the peers around it, and what each of them has heard.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::as_path::AsPath;
use crate::asn::Asn;
use crate::attributes::Attributes;
use crate::config::{Config, GracefulRestart, PeerConfig, RemoteAsn, Role};
use crate::families::Families;
use crate::family::Family;
use crate::negotiated::{Negotiated, PeerKind, PeerRestart};
use crate::rib::Standing;
use crate::speaker::{Down, Event, Routing, Speaker};
use crate::update::Update;

pub(crate) const OURS: u32 = 64_512;
/// How long the peers ask to be waited for.
pub(crate) const RESTART_TIME: Duration = Duration::from_secs(120);
/// How long they may take when they are back.
pub(crate) const STALE_TIME: Duration = Duration::from_secs(300);

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Address of peer number `n`.
pub(crate) fn peer(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// Router id of peer number `n`.
pub(crate) fn router_id(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

/// Where our end of all sessions is.
pub(crate) fn our_address() -> IpAddr {
    ip("10.0.255.254")
}

/// A next hop of ours for IPv6 over IPv4 sessions.
pub(crate) fn our_v6() -> IpAddr {
    ip("2001:db8::ffff")
}

/// A path of a peer: through `systems`, with a next hop of its own in the prefix's family.
pub(crate) fn path(n: u16, family: Family, systems: &[u32]) -> Attributes {
    let next_hop = match family {
        Family::Ipv4Unicast => peer(n),
        Family::Ipv6Unicast => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)),
    };
    Attributes { as_path: AsPath::sequence(systems.iter().copied()), ..Attributes::local(next_hop) }
}

/// What a session with peer `n` of that AS agreed on: both families, graceful restart with state kept.
pub(crate) fn session(n: u16, asn: u32) -> Negotiated {
    Negotiated {
        local_asn: Asn::new(OURS).unwrap(),
        local_router_id: router_id(0),
        local_address: our_address(),
        peer_asn: Asn::new(asn).unwrap(),
        peer_router_id: router_id(n),
        peer_address: peer(n),
        kind: if asn == OURS { PeerKind::Internal } else { PeerKind::External },
        hold_time: Duration::from_secs(90),
        families: Families::all(),
        four_octet_asn: true,
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_next_hop: Families::NONE,
        graceful_restart: Some(PeerRestart {
            restarting: false,
            notification: true,
            restart_time: RESTART_TIME,
            families: Families::all(),
            forwarding_kept: Families::all(),
        }),
    }
}

/// Whose path, and how it looks.
type Selected = (Option<IpAddr>, Arc<Attributes>);

/// The speaker under test.
pub(crate) struct World {
    pub(crate) speaker: Speaker,
    pub(crate) config: Config,
    pub(crate) now: Instant,
    /// What each peer has heard in its session.
    pub(crate) heard: BTreeMap<u16, BTreeMap<IpNet, Arc<Attributes>>>,
    /// Families in which it has heard End-of-RIB.
    pub(crate) ended: BTreeMap<u16, Vec<Family>>,
    /// What the caller was told last of each prefix.
    pub(crate) selected: BTreeMap<IpNet, Vec<Selected>>,
    pub(crate) other_events: Vec<Event>,
    /// Messages and prefixes heard by anybody.
    pub(crate) heard_prefixes: usize,
}

impl World {
    /// Everybody is listened to, our addresses are known.
    pub(crate) fn routing() -> Routing {
        Routing {
            external_needs_policy: false,
            addresses: vec![our_address(), our_v6()],
            ..Routing::default()
        }
    }

    pub(crate) fn new() -> World {
        World::restarted(Self::routing(), None)
    }

    /// A speaker that follows one that restarted, if `deferral` is given.
    pub(crate) fn restarted(routing: Routing, deferral: Option<Duration>) -> World {
        World::with_peers(routing, deferral, &[])
    }

    pub(crate) fn with_peers(routing: Routing, deferral: Option<Duration>, peers: &[u16]) -> World {
        let restart = GracefulRestart {
            restart_time: RESTART_TIME,
            deferral: deferral.unwrap_or_default(),
            stale_time: STALE_TIME,
            restarting: deferral.is_some(),
            forwarding_kept: Families::all(),
        };
        let config = Config {
            asn: Asn::new(OURS).unwrap(),
            router_id: router_id(0),
            cluster_id: None,
            listen: Vec::new(),
            graceful_restart: Some(restart),
            peers: peers.iter().map(|n| (peer(*n), PeerConfig::new(RemoteAsn::Any))).collect(),
        };
        let now = Instant::now();
        World {
            speaker: Speaker::new(&config, routing, now),
            config,
            now,
            heard: BTreeMap::new(),
            ended: BTreeMap::new(),
            selected: BTreeMap::new(),
            other_events: Vec::new(),
            heard_prefixes: 0,
        }
    }

    /// Configures a peer.
    pub(crate) fn configure(&mut self, n: u16, role: Role) {
        let config = PeerConfig { role, ..PeerConfig::new(RemoteAsn::Any) };
        self.config.peers.insert(peer(n), config);
        self.speaker.apply(&self.config, self.now);
    }

    /// Configures a peer and brings it up.
    pub(crate) fn up(&mut self, n: u16, asn: u32, role: Role) {
        self.configure(n, role);
        self.up_with(n, session(n, asn));
    }

    pub(crate) fn up_with(&mut self, n: u16, session: Negotiated) {
        self.speaker.peer_up(peer(n), Arc::new(session), self.now);
        self.heard.insert(n, BTreeMap::new());
        self.ended.insert(n, Vec::new());
    }

    pub(crate) fn down(&mut self, n: u16, down: Down) {
        self.speaker.peer_down(peer(n), down, self.now);
        self.heard.remove(&n);
        self.ended.remove(&n);
    }

    pub(crate) fn reach(&mut self, n: u16, prefixes: &[&str], attributes: Attributes) {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|text| net(text)).collect();
        let family = Family::of(&prefixes[0]);
        let update = Update::Reach { family, attributes: Arc::new(attributes), prefixes };
        self.speaker.update(peer(n), update, self.now);
    }

    pub(crate) fn unreach(&mut self, n: u16, prefix: &str) {
        let prefixes = vec![net(prefix)];
        self.speaker.update(
            peer(n),
            Update::Unreach { family: Family::of(&prefixes[0]), prefixes },
            self.now,
        );
    }

    pub(crate) fn end_of_rib(&mut self, n: u16) {
        for family in Family::ALL {
            self.speaker.update(peer(n), Update::EndOfRib(family), self.now);
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.speaker.tick(self.now);
    }

    /// Lets one peer hear one portion; says whether there was one.
    pub(crate) fn hear_some(&mut self, n: u16, most: usize) -> bool {
        let updates = self.speaker.pull(peer(n), most);
        let heard = self.heard.entry(n).or_default();
        for update in &updates {
            match update {
                Update::Reach { family, attributes, prefixes } => {
                    for prefix in prefixes {
                        assert_eq!(Family::of(prefix), *family);
                        heard.insert(*prefix, attributes.clone());
                    }
                    self.heard_prefixes += prefixes.len();
                }
                Update::Unreach { prefixes, .. } => {
                    for prefix in prefixes {
                        assert!(
                            heard.remove(prefix).is_some(),
                            "{prefix} withdrawn from {n}, which never had it"
                        );
                    }
                    self.heard_prefixes += prefixes.len();
                }
                Update::EndOfRib(family) => self.ended.entry(n).or_default().push(*family),
            }
        }
        !updates.is_empty()
    }

    /// Lets those hear everything whom the speaker names.
    pub(crate) fn settle(&mut self) {
        for address in self.speaker.wanting() {
            let IpAddr::V4(v4) = address else { panic!("peers are named by IPv4 addresses here") };
            let [.., high, low] = v4.octets();
            while self.hear_some(u16::from_be_bytes([high, low]), 1000) {}
        }
        assert_eq!(self.speaker.wanting(), Vec::<IpAddr>::new());
        self.read_events();
    }

    pub(crate) fn read_events(&mut self) {
        while let Some(event) = self.speaker.next_event() {
            let Event::Selected { prefix, paths } = event else {
                self.other_events.push(event);
                continue;
            };
            if paths.is_empty() {
                self.selected.remove(&prefix);
            } else {
                let paths = paths.into_iter().map(|path| (path.peer, path.attributes)).collect();
                self.selected.insert(prefix, paths);
            }
        }
    }

    /// What a peer has heard of a prefix.
    pub(crate) fn heard(&self, n: u16, prefix: &str) -> Option<&Attributes> {
        self.heard.get(&n)?.get(&net(prefix)).map(Arc::as_ref)
    }

    /// The prefixes a peer has heard of.
    pub(crate) fn heard_of(&self, n: u16) -> Vec<String> {
        self.heard.get(&n).into_iter().flat_map(BTreeMap::keys).map(IpNet::to_string).collect()
    }

    /// Peers (0 for ourselves) and standings of the paths to a prefix.
    pub(crate) fn standings(&self, prefix: &str) -> Vec<(Option<IpAddr>, Standing)> {
        let paths = self.speaker.paths_to(&net(prefix));
        let mut standings: Vec<_> = paths.into_iter().map(|path| (path.peer, path.standing)).collect();
        standings.sort();
        standings
    }
}

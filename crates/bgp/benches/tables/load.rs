//! Work for a speaker: peers with tables, reflector clients. Shared by the bench and by tests of scale.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::config::{RemoteAsn, Role};
use bgp::speaker::{Down, Routing};
use bgp::update::Update;
use bgp::{
    AsPath, Asn, Attributes, Community, Config, Families, Family, Negotiated, PeerConfig, PeerKind, Speaker,
};
use ipnet::{IpNet, Ipv4Net};

const OURS: u32 = 64_512;
const FAMILY: Family = Family::Ipv4Unicast;
/// How many prefixes of a table share attributes: about what the Internet's table has.
const PREFIXES_PER_PATH: usize = 6;
/// Prefixes looked at in one pull, as the driver does.
const PULL: usize = 4096;

/// Resident memory of this process in octets.
pub(crate) fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn peer(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
}

/// The `n`th /24 above 16.0.0.0.
fn prefix(n: usize) -> IpNet {
    let address = Ipv4Addr::from(0x1000_0000 + ((n as u32) << 8));
    Ipv4Net::new(address, 24).unwrap_or_default().into()
}

fn config(peers: impl Iterator<Item = (IpAddr, Role)>) -> Config {
    Config {
        asn: Asn::DEFAULT,
        router_id: Ipv4Addr::new(10, 255, 255, 254),
        cluster_id: None,
        listen: Vec::new(),
        graceful_restart: None,
        peers: peers
            .map(|(address, role)| (address, PeerConfig { role, ..PeerConfig::new(RemoteAsn::Any) }))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn session(n: u32, asn: u32) -> Arc<Negotiated> {
    let peer_address = peer(n);
    Arc::new(Negotiated {
        local_asn: Asn::DEFAULT,
        local_router_id: Ipv4Addr::new(10, 255, 255, 254),
        local_address: IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254)),
        peer_asn: Asn::new(asn).unwrap_or(Asn::DEFAULT),
        peer_router_id: Ipv4Addr::from(0x0b00_0000 + n),
        peer_address,
        kind: if asn == OURS { PeerKind::Internal } else { PeerKind::External },
        hold_time: Duration::from_secs(90),
        families: [FAMILY].into_iter().collect(),
        four_octet_asn: true,
        route_refresh: true,
        enhanced_route_refresh: false,
        extended_next_hop: Families::NONE,
        graceful_restart: None,
    })
}

/// A speaker, peers that tell it tables, and an observer who is told the result.
pub(crate) struct Load {
    pub(crate) speaker: Speaker,
    peers: u32,
    prefixes: usize,
    shared: bool,
    now: Instant,
}

const OBSERVER: u32 = 60_000;

impl Load {
    /// Peers with `prefixes` each, all the same ones if `shared`.
    pub(crate) fn new(peers: usize, prefixes: usize, shared: bool) -> Self {
        let now = Instant::now();
        let peers = peers as u32;
        let everybody = (1..=peers).chain([OBSERVER]).map(|n| (peer(n), Role::Plain));
        let routing = Routing { external_needs_policy: false, ..Routing::default() };
        let mut speaker = Speaker::new(&config(everybody), routing, now);
        for n in (1..=peers).chain([OBSERVER]) {
            speaker.peer_up(peer(n), session(n, 65_000 + n), now);
        }
        Load { speaker, peers, prefixes, shared, now }
    }

    /// Which prefixes a peer has, in portions with equal attributes.
    fn portions(&self, n: u32) -> impl Iterator<Item = (usize, Vec<IpNet>)> + use<> {
        let first = if self.shared { 0 } else { (n as usize - 1) * self.prefixes };
        let last = first + self.prefixes;
        (first..last)
            .step_by(PREFIXES_PER_PATH)
            .map(move |at| (at, (at..last.min(at + PREFIXES_PER_PATH)).map(prefix).collect()))
    }

    /// A path as long as those of the Internet, with communities.
    fn attributes(n: u32, at: usize, longer: usize) -> Attributes {
        let systems = [65_000 + n, 3_000 + (at % 97) as u32, 100_000 + at as u32, 200_000 + at as u32];
        let as_path = AsPath::sequence(systems).prepended(65_000 + n, longer);
        let communities = vec![Community(n << 16), Community(n << 16 | (at % 50) as u32)];
        Attributes { as_path, communities, ..Attributes::local(peer(n)) }
    }

    /// Every peer tells its table.
    pub(crate) fn announce_all(&mut self) {
        self.announce_longer(0);
    }

    /// Every peer tells its table with AS paths longer by `longer`.
    pub(crate) fn announce_longer(&mut self, longer: usize) {
        for n in 1..=self.peers {
            for (at, prefixes) in self.portions(n) {
                let attributes = Arc::new(Self::attributes(n, at, longer));
                let update = Update::Reach { family: FAMILY, attributes, prefixes };
                self.speaker.update(peer(n), update, self.now);
            }
        }
    }

    /// Every peer takes its table back.
    pub(crate) fn withdraw_all(&mut self) {
        for n in 1..=self.peers {
            for (_, prefixes) in self.portions(n) {
                self.speaker.update(peer(n), Update::Unreach { family: FAMILY, prefixes }, self.now);
            }
        }
    }

    /// A session breaks.
    pub(crate) fn lose(&mut self, n: u32) {
        self.speaker.peer_down(peer(n), Down::Lost, self.now);
    }

    /// The observer hears everything, the caller reads all events, the other peers hear their part. Returns how many
    /// prefixes the observer heard of.
    pub(crate) fn hear_all(&mut self) -> usize {
        let mut heard = 0;
        for address in self.speaker.wanting() {
            loop {
                let updates = self.speaker.pull(address, PULL);
                if updates.is_empty() {
                    break;
                }
                if address == peer(OBSERVER) {
                    heard += count(&updates);
                }
            }
        }
        while self.speaker.next_event().is_some() {}
        heard
    }
}

fn count(updates: &[Update]) -> usize {
    updates
        .iter()
        .map(|update| match update {
            Update::Reach { prefixes, .. } | Update::Unreach { prefixes, .. } => prefixes.len(),
            Update::EndOfRib(_) => 0,
        })
        .sum()
}

/// A reflector with so many clients, each with so many prefixes: all come up, tell, and are told. Returns how many
/// prefixes were told in all, and the reflector, to be weighed.
pub(crate) fn reflect(clients: u32, prefixes: usize) -> (usize, Speaker) {
    let now = Instant::now();
    let everybody = (1..=clients).map(|n| (peer(n), Role::ReflectorClient));
    let mut speaker = Speaker::new(&config(everybody), Routing::default(), now);
    for n in 1..=clients {
        speaker.peer_up(peer(n), session(n, OURS), now);
        speaker.update(peer(n), own_prefixes(n, prefixes, Attributes::local(peer(n))), now);
    }
    let told = hear_everybody(&mut speaker);
    (told, speaker)
}

/// A node of a full mesh: all others come up and tell their prefixes, and hear that it has none.
#[allow(dead_code, reason = "for the bench only")]
pub(crate) fn meshed(nodes: u32, prefixes: usize) -> Speaker {
    let now = Instant::now();
    let others = 1..nodes.max(2);
    let everybody = others.clone().map(|n| (peer(n), Role::Plain));
    let mut speaker = Speaker::new(&config(everybody), Routing::default(), now);
    for n in others {
        speaker.peer_up(peer(n), session(n, OURS), now);
        speaker.update(peer(n), own_prefixes(n, prefixes, Attributes::local(peer(n))), now);
    }
    hear_everybody(&mut speaker);
    speaker
}

/// A client of two reflectors, which tell it of all nodes.
#[allow(dead_code, reason = "for the bench only")]
pub(crate) fn client(nodes: u32, prefixes: usize) -> Speaker {
    let now = Instant::now();
    let reflectors = nodes + 1..nodes + 3;
    let both = reflectors.clone().map(|n| (peer(n), Role::Plain));
    let mut speaker = Speaker::new(&config(both), Routing::default(), now);
    for reflector in reflectors {
        speaker.peer_up(peer(reflector), session(reflector, OURS), now);
        for n in 1..=nodes {
            let attributes = Attributes {
                originator_id: Some(Ipv4Addr::from(0x0b00_0000 + n)),
                cluster_list: [Ipv4Addr::from(0x0b00_0000 + reflector)].into(),
                ..Attributes::local(peer(n))
            };
            speaker.update(peer(reflector), own_prefixes(n, prefixes, attributes), now);
        }
    }
    hear_everybody(&mut speaker);
    speaker
}

/// What a node tells of itself.
fn own_prefixes(n: u32, prefixes: usize, attributes: Attributes) -> Update {
    let first = n as usize * prefixes;
    let prefixes = (first..first + prefixes).map(prefix).collect();
    Update::Reach { family: FAMILY, attributes: Arc::new(attributes), prefixes }
}

/// Everybody hears the news. Returns how many prefixes that were.
fn hear_everybody(speaker: &mut Speaker) -> usize {
    let mut told = 0;
    for address in speaker.wanting() {
        loop {
            let updates = speaker.pull(address, PULL);
            if updates.is_empty() {
                break;
            }
            told += count(&updates);
        }
    }
    told
}

//! The agent's speaker without sockets: sessions are up as soon as they are configured, and peers hear at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use bgp::config::{RemoteAsn, Role, Ttl};
use bgp::speaker::{Event, Routing};
use bgp::{AsPath, Attributes, Config, Families, Family, Negotiated, PeerConfig, PeerKind, Speaker, Update};
use ipnet::IpNet;

/// Prefixes asked for at once; more than any case has.
const MOST: usize = 1000;

/// What a peer tells.
#[derive(Debug)]
pub(crate) struct PeerPath {
    /// The peer, by the address it is known by. One that is no peer is not listened to.
    pub(crate) from: IpAddr,
    pub(crate) prefix: IpNet,
    /// The next hop.
    pub(crate) via: IpAddr,
    /// The AS path, nearest first; empty within the cluster.
    pub(crate) systems: Vec<u32>,
}

/// What comes of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// Next hops of the best paths that are not our own.
    pub(crate) selected: BTreeMap<IpNet, IpAddr>,
    /// What each peer hears.
    heard: BTreeMap<IpAddr, BTreeMap<IpNet, Arc<Attributes>>>,
}

impl Talk {
    /// Everything from scratch: the speaker has no other memory than its arguments.
    pub(crate) fn of(
        config: &Config,
        routing: &Routing,
        own: &BTreeMap<IpNet, IpAddr>,
        told: &[PeerPath],
    ) -> Talk {
        let (config, now) = (config.usable(), Instant::now());
        let mut speaker = Speaker::new(&config, routing.clone(), now);
        for (number, (address, peer)) in (1..).zip(&config.peers) {
            speaker.peer_up(*address, Arc::new(session(&config, *address, peer, number)), now);
        }
        for (prefix, next_hop) in own {
            speaker.announce(*prefix, Attributes::local(*next_hop));
        }
        for path in told {
            speaker.update(path.from, reach(path), now);
        }
        let mut talk = Talk::default();
        while let Some(event) = speaker.next_event() {
            let Event::Selected { prefix, paths } = event else { continue };
            // A path of our own is nothing to route by.
            match paths.first().filter(|path| path.peer.is_some()) {
                Some(best) => drop(talk.selected.insert(prefix, best.attributes.next_hop.global)),
                None => drop(talk.selected.remove(&prefix)),
            }
        }
        for peer in config.peers.keys() {
            talk.heard.insert(*peer, heard(&mut speaker, *peer));
        }
        talk
    }
}

fn reach(path: &PeerPath) -> Update {
    let as_path = AsPath::sequence(path.systems.iter().copied());
    let attributes = Attributes { as_path, ..Attributes::local(path.via) };
    Update::Reach {
        family: Family::of(&path.prefix),
        attributes: Arc::new(attributes),
        prefixes: vec![path.prefix],
    }
}

fn heard(speaker: &mut Speaker, peer: IpAddr) -> BTreeMap<IpNet, Arc<Attributes>> {
    let mut heard = BTreeMap::new();
    loop {
        let updates = speaker.pull(peer, MOST);
        if updates.is_empty() {
            return heard;
        }
        for update in updates {
            if let Update::Reach { attributes, prefixes, .. } = update {
                heard.extend(prefixes.into_iter().map(|prefix| (prefix, attributes.clone())));
            }
        }
    }
}

/// What a peer that agrees to everything agrees to. `number` tells peers apart.
fn session(config: &Config, address: IpAddr, peer: &PeerConfig, number: u8) -> Negotiated {
    let peer_asn = match peer.remote_asn {
        RemoteAsn::Exactly(asn) => asn,
        RemoteAsn::Internal | RemoteAsn::External | RemoteAsn::Any => config.asn,
    };
    Negotiated {
        local_asn: config.asn,
        local_router_id: config.router_id,
        local_address: peer.local_address.unwrap(),
        peer_asn,
        peer_router_id: Ipv4Addr::new(192, 0, 2, number),
        peer_address: address,
        kind: if peer_asn == config.asn { PeerKind::Internal } else { PeerKind::External },
        hold_time: peer.hold_time,
        families: peer.families,
        four_octet_asn: true,
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_next_hop: Families::NONE,
        graceful_restart: None,
    }
}

/// One line for the speaker and each of its sockets, peers, and ways to what peers told.
pub(crate) fn show(text: &mut String, config: &Config, talk: &Talk) {
    let cluster = config.cluster_id.map_or(String::new(), |id| format!(" cluster {id}"));
    let _ = writeln!(text, "speaker as {} id {}{cluster}", config.asn, config.router_id);
    for socket in &config.listen {
        let _ = writeln!(text, "listens on {socket}");
    }
    for (address, peer) in &config.peers {
        let _ = writeln!(text, "peer {address} {}", terms(peer));
        for (prefix, attributes) in talk.heard.get(address).into_iter().flatten() {
            let _ = writeln!(text, "  hears {prefix} {}", path(attributes));
        }
    }
    for (prefix, next_hop) in &talk.selected {
        let _ = writeln!(text, "best path to {prefix} via {next_hop}");
    }
    for objection in config.objections() {
        let _ = writeln!(text, "speaker's objection {objection}");
    }
}

fn terms(peer: &PeerConfig) -> String {
    let asn = match peer.remote_asn {
        RemoteAsn::Exactly(asn) => asn.to_string(),
        RemoteAsn::Internal => "ours".to_owned(),
        other => format!("{other:?}"),
    };
    let mut text = format!("port {} as {asn} hold {}s", peer.port, peer.hold_time.as_secs());
    if let Some(local) = peer.local_address {
        let _ = write!(text, " from {local}");
    }
    match peer.ttl {
        Ttl::ByKind => {}
        Ttl::Multihop(hops) => text += &format!(" multihop {hops}"),
        Ttl::Security(hops) => text += &format!(" security {hops}"),
    }
    if let Some(bound) = peer.max_prefixes {
        let _ = write!(text, " at most {} prefixes", bound.limit);
    }
    if peer.role == Role::ReflectorClient {
        text += " reflector client";
    }
    if peer.password.is_some() {
        text += " with password";
    }
    for family in peer.families.iter() {
        let _ = write!(text, " {family}");
    }
    text
}

fn path(attributes: &Attributes) -> String {
    let mut text = format!("via {}", attributes.next_hop.global);
    if !attributes.as_path.is_empty() {
        let _ = write!(text, " path {}", attributes.as_path);
    }
    for community in &attributes.communities {
        let _ = write!(text, " community {community}");
    }
    if let Some(originator) = attributes.originator_id {
        let _ = write!(text, " originator {originator}");
    }
    for cluster in &attributes.cluster_list {
        let _ = write!(text, " cluster {cluster}");
    }
    text
}

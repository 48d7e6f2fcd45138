//! Networks of speakers without sockets: what one is to tell, the other is told at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::config::{GracefulRestart, RemoteAsn, Role};
use bgp::negotiated::PeerRestart;
use bgp::speaker::{Down, Event, Routing};
use bgp::{Asn, Attributes, Config, Families, Negotiated, PeerConfig, PeerKind, Speaker};
use ipnet::IpNet;

/// Address and router id of router `n`.
pub(crate) fn address(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

/// The `k`th prefix of router `n`.
pub(crate) fn prefix(n: u16, k: u8) -> IpNet {
    let [high, low] = n.to_be_bytes();
    IpNet::new(IpAddr::V4(Ipv4Addr::new(100 + k, high, low, 0)), 24).unwrap()
}

/// Whose path, and how it looks.
type Selected = (Option<IpAddr>, Arc<Attributes>);

/// A router.
pub(crate) struct Router {
    pub(crate) asn: u32,
    pub(crate) speaker: Speaker,
    config: Config,
    /// What is selected.
    pub(crate) selected: BTreeMap<IpNet, Vec<Selected>>,
}

/// Routers and the sessions between them.
pub(crate) struct Network {
    pub(crate) routers: BTreeMap<u16, Router>,
    up: BTreeSet<(u16, u16)>,
    pub(crate) now: Instant,
    /// Messages told since the beginning.
    pub(crate) messages: usize,
}

impl Network {
    pub(crate) fn new() -> Self {
        Network { routers: BTreeMap::new(), up: BTreeSet::new(), now: Instant::now(), messages: 0 }
    }

    /// Adds a router with a prefix of its own.
    pub(crate) fn add(&mut self, n: u16, asn: u32) {
        self.add_waiting(n, asn, None);
        self.announce(n, 0);
    }

    /// Adds a router that follows one that restarted, if `deferral` is given.
    pub(crate) fn add_waiting(&mut self, n: u16, asn: u32, deferral: Option<Duration>) {
        let config = Config {
            asn: Asn::new(asn).unwrap(),
            router_id: address(n),
            cluster_id: None,
            listen: Vec::new(),
            graceful_restart: Some(GracefulRestart {
                restart_time: Duration::from_secs(120),
                deferral: deferral.unwrap_or_default(),
                stale_time: Duration::from_secs(300),
                restarting: deferral.is_some(),
                forwarding_kept: Families::all(),
            }),
            peers: BTreeMap::new(),
        };
        let routing = Routing { external_needs_policy: false, ..Routing::default() };
        let speaker = Speaker::new(&config, routing, self.now);
        self.routers.insert(n, Router { asn, speaker, config, selected: BTreeMap::new() });
    }

    pub(crate) fn announce(&mut self, n: u16, k: u8) {
        let own = Attributes::local(IpAddr::V4(address(n)));
        self.routers.get_mut(&n).unwrap().speaker.announce(prefix(n, k), own);
    }

    pub(crate) fn withdraw(&mut self, n: u16, k: u8) {
        self.routers.get_mut(&n).unwrap().speaker.withdraw(prefix(n, k));
    }

    /// Brings up a session; `role` is how `a` treats `b`.
    pub(crate) fn connect(&mut self, a: u16, b: u16, role: Role) {
        self.configure(a, b, role);
        self.configure(b, a, Role::Plain);
        self.up(a, b);
    }

    fn configure(&mut self, a: u16, b: u16, role: Role) {
        let router = self.routers.get_mut(&a).unwrap();
        let peer = PeerConfig { role, ..PeerConfig::new(RemoteAsn::Any) };
        router.config.peers.insert(IpAddr::V4(address(b)), peer);
        router.speaker.apply(&router.config, self.now);
    }

    pub(crate) fn up(&mut self, a: u16, b: u16) {
        for (here, there) in [(a, b), (b, a)] {
            let (here_asn, there_asn) = (self.routers[&here].asn, self.routers[&there].asn);
            let session = Negotiated {
                local_asn: Asn::new(here_asn).unwrap(),
                local_router_id: address(here),
                local_address: IpAddr::V4(address(here)),
                peer_asn: Asn::new(there_asn).unwrap(),
                peer_router_id: address(there),
                peer_address: IpAddr::V4(address(there)),
                kind: if here_asn == there_asn { PeerKind::Internal } else { PeerKind::External },
                hold_time: Duration::from_secs(90),
                families: [bgp::Family::Ipv4Unicast].into_iter().collect(),
                four_octet_asn: true,
                route_refresh: true,
                enhanced_route_refresh: true,
                extended_next_hop: Families::NONE,
                graceful_restart: Some(PeerRestart {
                    restarting: false,
                    notification: true,
                    restart_time: Duration::from_secs(120),
                    families: Families::all(),
                    forwarding_kept: Families::all(),
                }),
            };
            let now = self.now;
            let router = self.routers.get_mut(&here).unwrap();
            router.speaker.peer_up(IpAddr::V4(address(there)), Arc::new(session), now);
        }
        self.up.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn down(&mut self, a: u16, b: u16, how: Down) {
        if self.up.remove(&(a.min(b), a.max(b))) {
            for (here, there) in [(a, b), (b, a)] {
                if let Some(router) = self.routers.get_mut(&here) {
                    router.speaker.peer_down(IpAddr::V4(address(there)), how, self.now);
                }
            }
        }
    }

    /// The router is gone, with all its sessions.
    pub(crate) fn kill(&mut self, n: u16, how: Down) {
        self.routers.remove(&n);
        let sessions: Vec<_> = self.up.iter().copied().filter(|(a, b)| *a == n || *b == n).collect();
        for (a, b) in sessions {
            self.down(a, b, how);
        }
    }

    /// Lets everybody tell everything, until nobody has news. Fails if that does not end.
    pub(crate) fn converge(&mut self) {
        for _round in 0..1000 {
            let mut mail = Vec::new();
            for (n, router) in &mut self.routers {
                for peer in router.speaker.wanting() {
                    loop {
                        let updates = router.speaker.pull(peer, 10_000);
                        if updates.is_empty() {
                            break;
                        }
                        mail.extend(updates.into_iter().map(|update| (*n, peer, update)));
                    }
                }
            }
            if mail.is_empty() {
                self.routers.values_mut().for_each(Router::read_events);
                return;
            }
            self.messages += mail.len();
            for (from, to, update) in mail {
                let IpAddr::V4(v4) = to else { unreachable!() };
                let [.., high, low] = v4.octets();
                if let Some(router) = self.routers.get_mut(&u16::from_be_bytes([high, low])) {
                    router.speaker.update(IpAddr::V4(address(from)), update, self.now);
                }
            }
        }
        panic!("the network does not come to rest");
    }

    /// Every router selects a path to this prefix with this router as next hop.
    pub(crate) fn assert_all_reach(&self, n: u16, k: u8) {
        for (at, router) in &self.routers {
            let paths = router.selected.get(&prefix(n, k));
            let next_hop = paths.and_then(|paths| paths.first()).map(|(_, path)| path.next_hop.global);
            assert_eq!(next_hop, Some(IpAddr::V4(address(n))), "from {at} to {n}");
        }
    }

    pub(crate) fn assert_none_reaches(&self, n: u16, k: u8) {
        for (at, router) in &self.routers {
            assert!(!router.selected.contains_key(&prefix(n, k)), "{at} still knows a way to {n}");
        }
    }
}

impl Router {
    fn read_events(&mut self) {
        while let Some(event) = self.speaker.next_event() {
            if let Event::Selected { prefix, paths } = event {
                if paths.is_empty() {
                    self.selected.remove(&prefix);
                } else {
                    let paths = paths.into_iter().map(|path| (path.peer, path.attributes)).collect();
                    self.selected.insert(prefix, paths);
                }
            }
        }
    }
}

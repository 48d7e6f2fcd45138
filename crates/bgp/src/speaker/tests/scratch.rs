//! Whatever happens in whatever order, a speaker ends where one ends that is told the outcome at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::world::*;
use crate::attributes::{Attributes, Origin};
use crate::community::Community;
use crate::config::Role;
use crate::family::Family;
use crate::policy::{
    Actions, CommunityAction, Condition, Conditions, Policy, PrefixRange, SetName, Statement, Verdict,
};
use crate::rib::{Multipath, Standing};
use crate::speaker::{Down, Routing, Speaker};

/// Peers 1 to 6 by kind: two external, two internal, two that may be reflector clients.
const PEERS: [(u16, u32); 6] = [(1, 65_001), (2, 65_002), (3, OURS), (4, OURS), (5, OURS), (6, OURS)];
const PREFIXES: [&str; 6] =
    ["10.96.0.1/32", "10.96.0.2/32", "192.0.2.0/24", "0.0.0.0/0", "2001:db8:1::/64", "fd00::1/128"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Up(usize),
    Down(usize, bool),
    Reach(usize, usize, usize),
    Unreach(usize, usize),
    EndOfRib(usize),
    Announce(usize, usize),
    Withdraw(usize),
    Hear(usize, usize),
    ReadEvents,
    Refresh(usize),
    Client(usize, bool),
    Rules(usize),
    InSet(usize, bool),
    Neighbour(usize, bool),
    Metric(usize, Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, prefix, look) = (0..PEERS.len(), 0..PREFIXES.len(), 0..LOOKS);
    prop_oneof![
        4 => peer.clone().prop_map(Step::Up),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, graceful)| Step::Down(peer, graceful)),
        10 => (peer.clone(), prefix.clone(), look.clone()).prop_map(|(p, at, look)| Step::Reach(p, at, look)),
        5 => (peer.clone(), prefix.clone()).prop_map(|(peer, at)| Step::Unreach(peer, at)),
        1 => peer.clone().prop_map(Step::EndOfRib),
        3 => (prefix.clone(), look).prop_map(|(at, look)| Step::Announce(at, look)),
        2 => prefix.clone().prop_map(Step::Withdraw),
        6 => (peer.clone(), 1usize..4).prop_map(|(peer, most)| Step::Hear(peer, most)),
        1 => Just(Step::ReadEvents),
        1 => peer.clone().prop_map(Step::Refresh),
        1 => (4..PEERS.len(), any::<bool>()).prop_map(|(peer, client)| Step::Client(peer, client)),
        1 => (0..RULES).prop_map(Step::Rules),
        1 => (prefix, any::<bool>()).prop_map(|(at, inside)| Step::InSet(at, inside)),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, inside)| Step::Neighbour(peer, inside)),
        1 => (peer, proptest::option::of(0u32..3)).prop_map(|(peer, metric)| Step::Metric(peer, metric)),
    ]
}

const LOOKS: usize = 8;

/// Paths that differ in what selection and export look at, some of them not to be used.
fn look(n: u16, asn: u32, family: Family, look: usize) -> Attributes {
    let first: Vec<u32> = if asn == OURS { vec![] } else { vec![asn] };
    let longer = [first.as_slice(), &[65_009]].concat();
    let plain = path(n, family, &first);
    match look {
        0 => plain,
        1 => path(n, family, &longer),
        2 => Attributes { med: Some(3), ..path(n, family, &[&first[..], &[65_010]].concat()) },
        3 => Attributes { local_pref: Some(200), ..plain },
        4 => Attributes { communities: vec![Community::NO_EXPORT], ..plain },
        5 => Attributes { origin: Origin::Incomplete, ..path(9, family, &longer) },
        6 => Attributes { communities: vec![Community(7)], ..path(9, family, &longer) },
        _ => path(n, family, &[&first[..], &[OURS]].concat()),
    }
}

const RULES: usize = 4;

fn rules(number: usize, sets: &BTreeMap<SetName, BTreeSet<PrefixRange>>) -> Routing {
    let statement = |prefixes: Option<&str>, neighbours: Option<&str>, then, verdict| Statement {
        name: String::new(),
        when: Conditions {
            prefixes: prefixes.map(SetName::from),
            neighbours: neighbours.map(SetName::from),
            ..Conditions::default()
        },
        then,
        verdict,
    };
    let add = Actions { communities: vec![CommunityAction::Add(vec![Community(7)])], ..Actions::default() };
    let tagged = Statement {
        when: Conditions { communities: Some(Condition::Any(vec![Community(7)])), ..Conditions::default() },
        ..statement(None, None, Actions::default(), Some(Verdict::Reject))
    };
    let policy = |statements| Some(Policy { statements, default: Verdict::Accept });
    let sets = sets.iter().map(|(name, ranges)| (name.clone(), ranges.iter().copied().collect())).collect();
    let plain = Routing { sets, ..World::routing() };
    match number {
        0 => plain,
        1 => Routing {
            import: policy(vec![statement(
                Some("prefixes"),
                None,
                Actions::default(),
                Some(Verdict::Reject),
            )]),
            export: policy(vec![statement(Some("prefixes"), Some("peers"), add, None)]),
            ..plain
        },
        2 => Routing {
            import: policy(vec![statement(None, Some("peers"), add, None)]),
            export: policy(vec![tagged]),
            multipath: Multipath { paths: 3, relaxed: true },
            ..plain
        },
        _ => Routing {
            export: policy(vec![
                statement(Some("prefixes"), None, Actions::default(), Some(Verdict::Accept)),
                statement(None, Some("peers"), Actions::default(), Some(Verdict::Reject)),
            ]),
            compare_med_always: true,
            ..plain
        },
    }
}

/// What is true after some steps, without tables.
#[derive(Default)]
struct Truth {
    up: BTreeSet<usize>,
    was_up: BTreeSet<usize>,
    /// Who has told something in its session.
    have_told: BTreeSet<usize>,
    clients: BTreeSet<usize>,
    /// By peer and prefix: the look, and whether it is stale.
    paths: BTreeMap<(usize, usize), (usize, bool)>,
    own: BTreeMap<usize, usize>,
    rules: usize,
    sets: BTreeMap<SetName, BTreeSet<PrefixRange>>,
    metrics: BTreeMap<usize, Option<u32>>,
}

fn family(prefix: usize) -> Family {
    Family::of(&net(PREFIXES[prefix]))
}

fn role(truth: &Truth, peer: usize) -> Role {
    if truth.clients.contains(&peer) { Role::ReflectorClient } else { Role::Plain }
}

fn tell(world: &mut World, (peer, prefix): (usize, usize), look_number: usize) {
    let (n, asn) = PEERS[peer];
    world.reach(n, &[PREFIXES[prefix]], look(n, asn, family(prefix), look_number));
}

fn announce(world: &mut World, prefix: usize, look_number: usize) {
    world.speaker.announce(net(PREFIXES[prefix]), look(250, OURS, family(prefix), look_number % 5));
}

impl Truth {
    /// Does a step to both, if it is possible.
    fn step(&mut self, world: &mut World, step: Step) {
        match step {
            Step::Up(peer) if !self.up.contains(&peer) => {
                let (n, asn) = PEERS[peer];
                world.up(n, asn, role(self, peer));
                self.up.insert(peer);
                self.was_up.insert(peer);
            }
            Step::Down(peer, graceful) if self.up.remove(&peer) => {
                world.down(PEERS[peer].0, if graceful { Down::Graceful } else { Down::Lost });
                let silent = !self.have_told.remove(&peer);
                self.paths.retain(|(of, _), (_, stale)| *of != peer || (graceful && (silent || !*stale)));
                self.paths.iter_mut().filter(|((of, _), _)| *of == peer).for_each(|(_, path)| path.1 = true);
            }
            Step::Reach(peer, prefix, look_number) if self.up.contains(&peer) => {
                tell(world, (peer, prefix), look_number);
                self.have_told.insert(peer);
                self.paths.insert((peer, prefix), (look_number, false));
            }
            Step::Unreach(peer, prefix) if self.up.contains(&peer) => {
                world.unreach(PEERS[peer].0, PREFIXES[prefix]);
                self.have_told.insert(peer);
                self.paths.remove(&(peer, prefix));
            }
            Step::EndOfRib(peer) if self.up.contains(&peer) => {
                world.end_of_rib(PEERS[peer].0);
                self.have_told.insert(peer);
                self.paths.retain(|(of, _), (_, stale)| *of != peer || !*stale);
            }
            Step::Announce(prefix, look_number) => {
                announce(world, prefix, look_number);
                self.own.insert(prefix, look_number);
            }
            Step::Withdraw(prefix) => {
                world.speaker.withdraw(net(PREFIXES[prefix]));
                self.own.remove(&prefix);
            }
            Step::Hear(peer, most) if self.up.contains(&peer) => {
                world.hear_some(PEERS[peer].0, most);
            }
            Step::ReadEvents => world.read_events(),
            Step::Refresh(peer) => {
                for family in Family::ALL {
                    world.speaker.refresh_requested(super::world::peer(PEERS[peer].0), family);
                }
            }
            Step::Client(peer, client) => {
                if client {
                    self.clients.insert(peer);
                } else {
                    self.clients.remove(&peer);
                }
                world.configure(PEERS[peer].0, role(self, peer));
            }
            Step::Rules(number) => {
                self.rules = number;
                world.speaker.set_routing(rules(number, &self.sets));
            }
            Step::InSet(prefix, inside) => {
                self.change_set(world, "prefixes", PrefixRange::exact(net(PREFIXES[prefix])), inside);
            }
            Step::Neighbour(peer, inside) => {
                let range = PrefixRange::from(super::world::peer(PEERS[peer].0));
                self.change_set(world, "peers", range, inside);
            }
            Step::Metric(peer, metric) => {
                self.metrics.insert(peer, metric);
                world.speaker.set_next_hop_metric(super::world::peer(PEERS[peer].0), metric);
            }
            _ => {}
        }
    }

    fn change_set(&mut self, world: &mut World, name: &str, range: PrefixRange, inside: bool) {
        let set = self.sets.entry(name.into()).or_default();
        let (add, remove): (&[_], &[_]) = if inside { (&[range], &[]) } else { (&[], &[range]) };
        if inside {
            set.insert(range);
        } else {
            set.remove(&range);
        }
        world.speaker.change_set(&name.into(), add, remove);
    }

    /// A new speaker that is told the outcome, the last first.
    fn told_at_once(&self) -> World {
        let mut world = World::new();
        for peer in self.was_up.iter().rev() {
            let (n, asn) = PEERS[*peer];
            world.up(n, asn, role(self, *peer));
            let mut tell_all = |stale: bool| {
                let of_peer = self.paths.iter().rev().filter(|((of, _), _)| of == peer);
                for (key, (look_number, _)) in of_peer.filter(|(_, (_, is))| *is == stale) {
                    tell(&mut world, *key, *look_number);
                }
            };
            tell_all(true);
            world.down(n, Down::Graceful);
            if self.up.contains(peer) {
                world.up(n, asn, role(self, *peer));
                let of_peer = self.paths.iter().rev().filter(|((of, _), (_, stale))| of == peer && !*stale);
                for (key, (look_number, _)) in of_peer {
                    tell(&mut world, *key, *look_number);
                }
            }
        }
        for (prefix, look_number) in self.own.iter().rev() {
            announce(&mut world, *prefix, *look_number);
        }
        world.speaker.set_routing(rules(self.rules, &self.sets));
        for (peer, metric) in &self.metrics {
            world.speaker.set_next_hop_metric(super::world::peer(PEERS[*peer].0), *metric);
        }
        world
    }
}

type Row = (ipnet::IpNet, Option<std::net::IpAddr>, Standing, bool, Option<Arc<Attributes>>);

fn table(speaker: &Speaker) -> Vec<Row> {
    let paths = Family::ALL.into_iter().flat_map(|family| speaker.paths(family));
    let mut rows: Vec<Row> =
        paths.map(|path| (path.prefix, path.peer, path.standing, path.stale, path.accepted)).collect();
    rows.sort_by_key(|row| (row.0, row.1));
    rows
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut world, mut truth) = (World::new(), Truth::default());
    for step in steps {
        truth.step(&mut world, step);
    }
    world.settle();
    let mut scratch = truth.told_at_once();
    scratch.settle();
    prop_assert_eq!(table(&world.speaker), table(&scratch.speaker));
    prop_assert_eq!(&world.heard, &scratch.heard);
    prop_assert_eq!(&world.ended, &scratch.ended);
    prop_assert_eq!(&world.selected, &scratch.selected);
    for n in world.heard.keys() {
        let told: BTreeMap<_, _> = Family::ALL
            .into_iter()
            .flat_map(|family| world.speaker.told(super::world::peer(*n), family))
            .collect();
        prop_assert_eq!(&told, &world.heard[n], "what the speaker thinks peer {} has heard", n);
    }
    // Nothing is left behind.
    let prefixes: BTreeSet<_> = table(&world.speaker).iter().map(|row| row.0).collect();
    prop_assert_eq!(world.speaker.destination_count(), prefixes.len());
    for (n, _) in PEERS {
        world.config.peers.remove(&super::world::peer(n));
    }
    world.speaker.apply(&world.config, world.now);
    for prefix in PREFIXES {
        world.speaker.withdraw(net(prefix));
    }
    while world.speaker.next_event().is_some() {}
    prop_assert_eq!((world.speaker.path_count(), world.speaker.destination_count()), (0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn any_order_ends_as_from_scratch(steps in proptest::collection::vec(step(), 0..120)) {
        check(steps)?;
    }
}

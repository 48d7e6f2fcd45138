//! Rules change while sessions are up: what is told are the differences.

use std::collections::BTreeMap;

use super::world::*;
use crate::attributes::Attributes;
use crate::community::Community;
use crate::config::Role::Plain;
use crate::family::Family;
use crate::policy::{
    Actions, CommunityAction, Conditions, NextHopAction, Policy, PrefixRange, PrefixSet, Prepend, SetName,
    Statement, Verdict,
};
use crate::rib::{Multipath, Refusal, Standing};
use crate::speaker::Routing;

const V4: Family = Family::Ipv4Unicast;

fn set(prefixes: &[&str]) -> PrefixSet {
    prefixes.iter().map(|prefix| PrefixRange::exact(net(prefix))).collect()
}

fn statement(prefixes: &str, neighbours: &str, then: Actions, verdict: Verdict) -> Statement {
    let when = Conditions {
        prefixes: Some(prefixes.into()),
        neighbours: Some(neighbours.into()),
        ..Conditions::default()
    };
    Statement { name: format!("{prefixes}{neighbours}"), when, then, verdict: Some(verdict) }
}

/// What an agent asks for: virtual addresses to external peers, pod prefixes to internal ones, neither imported.
fn agent() -> Routing {
    let tag = Actions {
        communities: vec![CommunityAction::Add(vec![Community(0xfc00_0001)])],
        prepend: Some(Prepend { asn: Some(65_100), times: 2 }),
        next_hop: Some(NextHopAction::Ours),
        ..Actions::default()
    };
    Routing {
        export: Some(Policy {
            statements: vec![
                statement("pods", "internal", Actions::default(), Verdict::Accept),
                statement("vips", "external", tag, Verdict::Accept),
            ],
            default: Verdict::Reject,
        }),
        import: Some(Policy {
            statements: vec![statement("vips", "all", Actions::default(), Verdict::Reject)],
            default: Verdict::Accept,
        }),
        sets: BTreeMap::from([
            ("pods".into(), set(&["10.244.0.0/24"])),
            ("vips".into(), set(&["10.96.0.1/32"])),
            ("internal".into(), set(&["10.0.0.2/32", "10.0.0.3/32"])),
            ("external".into(), set(&["10.0.0.1/32"])),
            ("all".into(), set(&["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"])),
        ]),
        ..World::routing()
    }
}

fn world() -> World {
    let mut world = World::restarted(agent(), None);
    world.up(1, 65_001, Plain);
    world.up(2, OURS, Plain);
    for prefix in ["10.244.0.0/24", "10.96.0.1/32", "10.96.0.2/32"] {
        world.speaker.announce(net(prefix), Attributes::local(ip("192.0.2.7")));
    }
    world.settle();
    world
}

#[test]
fn the_agents_policy() {
    let world = world();
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"]);
    assert_eq!(world.heard_of(2), ["10.244.0.0/24"]);
    let heard = world.heard(1, "10.96.0.1/32").unwrap();
    assert_eq!(heard.as_path.to_string(), format!("65100 65100 {OURS}"));
    assert_eq!(heard.communities, [Community(0xfc00_0001)]);
    assert_eq!(heard.next_hop.global, our_address());
    assert_eq!(world.heard(2, "10.244.0.0/24").unwrap().next_hop.global, ip("192.0.2.7"));
}

#[test]
fn a_service_comes_and_goes_at_the_cost_of_one() {
    let mut world = world();
    let vips: SetName = "vips".into();
    let second = PrefixRange::exact(net("10.96.0.2/32"));
    world.reach(2, &["10.96.0.2/32"], path(2, V4, &[]));
    world.settle();
    assert_eq!(world.standings("10.96.0.2/32").len(), 2);
    let before = world.heard_prefixes;
    world.speaker.change_set(&vips, &[second], &[]);
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.1/32", "10.96.0.2/32"]);
    assert_eq!(world.heard_prefixes, before + 1);
    let refused = (Some(peer(2)), Standing::Refused(Refusal::Policy));
    assert!(world.standings("10.96.0.2/32").contains(&refused), "the import policy looks again, too");
    world.speaker.change_set(&vips, &[], &[second]);
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"]);
    assert!(!world.standings("10.96.0.2/32").contains(&refused));

    // The whole wish at once comes to the same.
    let mut routing = agent();
    routing.sets.insert(vips, set(&["10.96.0.2/32"]));
    world.speaker.set_routing(routing);
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.2/32"]);
}

#[test]
fn neighbours_change_sets() {
    let mut world = world();
    let before = world.heard_prefixes;
    // A new peer that no set names hears nothing, since an empty match is no match.
    world.up(3, OURS, Plain);
    world.up(4, OURS, Plain);
    world.settle();
    assert_eq!((world.heard_of(3), world.heard_of(4)), (vec!["10.244.0.0/24".to_owned()], vec![]));
    world.speaker.change_set(&"internal".into(), &[PrefixRange::from(peer(4))], &[]);
    world.settle();
    assert_eq!(world.heard_of(4), ["10.244.0.0/24"]);
    world.speaker.change_set(&"internal".into(), &[], &[PrefixRange::from(peer(2))]);
    world.settle();
    assert_eq!(world.heard_of(2), Vec::<String>::new());
    assert_eq!(world.heard_prefixes, before + 3);
    // Import: the peer is not in "all", so its path to a virtual address is used until it is.
    world.reach(4, &["10.96.0.1/32"], path(4, V4, &[]));
    let refused = (Some(peer(4)), Standing::Refused(Refusal::Policy));
    assert!(!world.standings("10.96.0.1/32").contains(&refused));
    world.speaker.change_set(&"all".into(), &[PrefixRange::within(net("10.0.0.0/24"))], &[]);
    assert!(world.standings("10.96.0.1/32").contains(&refused));
}

#[test]
fn a_new_policy_is_applied_to_what_is_known() {
    let mut world = world();
    world.reach(1, &["192.0.2.0/24"], path(1, V4, &[65_001]));
    world.settle();
    assert_eq!(world.selected[&net("192.0.2.0/24")].len(), 1);
    let mut routing = agent();
    routing.import = Some(Policy::always(Verdict::Reject));
    world.speaker.set_routing(routing.clone());
    world.settle();
    assert!(!world.selected.contains_key(&net("192.0.2.0/24")));
    assert_eq!(world.standings("192.0.2.0/24"), [(Some(peer(1)), Standing::Refused(Refusal::Policy))]);

    // No refresh is needed to have it back, with what the policy does to it.
    let prefer = Actions { local_pref: Some(300), ..Actions::default() };
    routing.import = Some(Policy {
        statements: vec![Statement {
            name: "prefer".to_owned(),
            when: Conditions::default(),
            then: prefer,
            verdict: None,
        }],
        default: Verdict::Accept,
    });
    routing.export = None;
    let before = world.heard_prefixes;
    world.speaker.set_routing(routing.clone());
    world.settle();
    assert_eq!(world.selected[&net("192.0.2.0/24")][0].1.local_pref, Some(300));
    assert_eq!(world.heard(2, "192.0.2.0/24").unwrap().local_pref, Some(300));
    assert_eq!(world.heard_of(1).len(), 3);
    // Peer 1: two new, one in another form; peer 2: three new, one as before.
    assert_eq!(world.heard_prefixes, before + 6);
    world.speaker.set_routing(routing);
    world.settle();
    assert_eq!(world.heard_prefixes, before + 6, "the same rules again are no change");
}

#[test]
fn several_paths_at_once() {
    let routing = Routing { multipath: Multipath { paths: 4, relaxed: true }, ..World::routing() };
    let mut world = World::restarted(routing, None);
    for n in [1, 2, 3] {
        world.up(n, 65_000 + u32::from(n), Plain);
        world.reach(n, &["192.0.2.0/24"], path(n, V4, &[65_000 + u32::from(n)]));
    }
    world.settle();
    let hops = |world: &World| -> Vec<_> {
        world.selected[&net("192.0.2.0/24")].iter().map(|(peer, _)| peer.unwrap()).collect()
    };
    assert_eq!(hops(&world), [peer(1), peer(2), peer(3)]);
    world.unreach(2, "192.0.2.0/24");
    world.settle();
    assert_eq!(hops(&world), [peer(1), peer(3)]);
    world.speaker.set_routing(World::routing());
    world.settle();
    assert_eq!(hops(&world), [peer(1)]);
}

#[test]
fn next_hops_cost() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.up(2, 65_002, Plain);
    for n in [1, 2] {
        world.reach(n, &["192.0.2.0/24"], path(n, V4, &[65_000 + u32::from(n)]));
    }
    let best = |world: &mut World| {
        world.settle();
        world.selected.get(&net("192.0.2.0/24")).and_then(|paths| paths[0].0)
    };
    assert_eq!(best(&mut world), Some(peer(1)));
    world.speaker.set_next_hop_metric(peer(1), Some(10));
    assert_eq!(best(&mut world), Some(peer(2)));
    world.speaker.set_next_hop_metric(peer(2), None);
    assert_eq!(best(&mut world), Some(peer(1)));
    world.speaker.set_next_hop_metric(peer(1), None);
    assert_eq!(best(&mut world), None);
    world.speaker.forget_next_hop_metric(peer(2));
    assert_eq!(best(&mut world), Some(peer(2)));
}

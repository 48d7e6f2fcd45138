//! Announcing, reflecting, withdrawing: what each kind of peer hears.

use std::net::Ipv4Addr;

use super::world::*;
use crate::as_path::AsPath;
use crate::attributes::Attributes;
use crate::community::Community;
use crate::config::Role::{Plain, ReflectorClient};
use crate::families::Families;
use crate::family::Family;
use crate::rib::{Refusal, Standing, Step};
use crate::speaker::{Down, Event, Routing};

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

#[test]
fn own_paths_reach_everybody_with_the_right_looks() {
    let mut world = World::new();
    let explicit = Attributes { med: Some(5), ..Attributes::local(ip("192.0.2.7")) };
    world.speaker.announce(net("10.96.0.1/32"), explicit);
    world.speaker.announce(net("10.97.0.0/24"), Attributes::local(ip("0.0.0.0")));
    world.speaker.announce(net("fd00::/64"), Attributes::local(ip("::")));
    world.up(1, 65_001, Plain);
    world.up(2, OURS, Plain);
    world.settle();

    let external = world.heard(1, "10.96.0.1/32").unwrap();
    assert_eq!(external.next_hop.global, ip("192.0.2.7"));
    assert_eq!(external.as_path, AsPath::sequence([OURS]));
    assert_eq!((external.local_pref, external.med), (None, Some(5)));
    let internal = world.heard(2, "10.96.0.1/32").unwrap();
    assert_eq!(internal.next_hop.global, ip("192.0.2.7"));
    assert_eq!(internal.as_path, AsPath::default());
    assert_eq!((internal.local_pref, internal.originator_id), (Some(100), None));

    for n in [1, 2] {
        assert_eq!(world.heard(n, "10.97.0.0/24").unwrap().next_hop.global, our_address());
        assert_eq!(world.heard(n, "fd00::/64").unwrap().next_hop.global, our_v6());
        assert_eq!(world.ended[&n], Family::ALL);
    }
    world.speaker.withdraw(net("10.96.0.1/32"));
    world.settle();
    assert_eq!(world.heard_of(1), ["10.97.0.0/24", "fd00::/64"]);
}

#[test]
fn external_paths_are_passed_on() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.up(2, 65_002, Plain);
    world.up(3, OURS, Plain);
    let path = Attributes { med: Some(7), ..path(1, V4, &[65_001, 65_009]) };
    world.reach(1, &["192.0.2.0/24"], path);
    world.settle();
    assert_eq!(world.heard_of(1), Vec::<String>::new(), "nobody is told what it said itself");
    let external = world.heard(2, "192.0.2.0/24").unwrap();
    assert_eq!(external.as_path, AsPath::sequence([OURS, 65_001, 65_009]));
    assert_eq!(external.next_hop.global, our_address());
    assert_eq!((external.med, external.local_pref), (None, None));
    let internal = world.heard(3, "192.0.2.0/24").unwrap();
    assert_eq!(internal.as_path, AsPath::sequence([65_001, 65_009]));
    assert_eq!(internal.next_hop.global, peer(1));
    assert_eq!((internal.med, internal.local_pref), (Some(7), Some(100)));
    assert_eq!(world.selected[&net("192.0.2.0/24")][0].0, Some(peer(1)));

    world.down(1, Down::Lost);
    world.settle();
    assert_eq!(world.heard_of(2), Vec::<String>::new());
    assert!(world.selected.is_empty());
    assert_eq!(world.speaker.path_count(), 0);
}

/// RFC 4456 section 6: who is told whose paths.
#[test]
fn reflection() {
    let mut world = World::new();
    for (n, role) in [(1, Plain), (2, Plain), (3, ReflectorClient), (4, ReflectorClient)] {
        world.up(n, OURS, role);
    }
    world.up(5, 65_005, Plain);
    for n in 1..=5 {
        let systems: &[u32] = if n == 5 { &[65_005] } else { &[] };
        world.reach(n, &[&format!("192.0.2.{n}/32")], path(n, V4, systems));
    }
    world.settle();
    let hosts = |of: &[u16]| of.iter().map(|n| format!("192.0.2.{n}/32")).collect::<Vec<_>>();
    assert_eq!(world.heard_of(1), hosts(&[3, 4, 5]));
    assert_eq!(world.heard_of(2), hosts(&[3, 4, 5]));
    assert_eq!(world.heard_of(3), hosts(&[1, 2, 4, 5]));
    assert_eq!(world.heard_of(4), hosts(&[1, 2, 3, 5]));
    assert_eq!(world.heard_of(5), hosts(&[1, 2, 3, 4]));

    let reflected = world.heard(3, "192.0.2.1/32").unwrap();
    assert_eq!(reflected.originator_id, Some(router_id(1)));
    assert_eq!(*reflected.cluster_list, [router_id(0)]);
    assert_eq!(reflected.next_hop.global, peer(1), "the next hop stays");
    let from_outside = world.heard(3, "192.0.2.5/32").unwrap();
    assert_eq!((from_outside.originator_id, from_outside.cluster_list.len()), (None, 0));
    let to_outside = world.heard(5, "192.0.2.3/32").unwrap();
    assert_eq!((to_outside.originator_id, to_outside.cluster_list.len()), (None, 0));

    // Reflected once already: the originator stays, the list grows in front.
    let cluster = Ipv4Addr::new(1, 2, 3, 4);
    let twice =
        Attributes { originator_id: Some(router_id(9)), cluster_list: [cluster].into(), ..path(3, V4, &[]) };
    world.reach(3, &["192.0.2.33/32"], twice);
    world.settle();
    let heard = world.heard(1, "192.0.2.33/32").unwrap();
    assert_eq!(
        (heard.originator_id, &heard.cluster_list[..]),
        (Some(router_id(9)), &[router_id(0), cluster][..])
    );
}

/// A peer becomes a client while it is up: sessions stay, only differences are told.
#[test]
fn roles_change_live() {
    let mut world = World::new();
    world.up(1, OURS, Plain);
    world.up(2, OURS, Plain);
    world.up(3, OURS, Plain);
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.settle();
    assert_eq!(world.heard_of(2), ["10.96.0.1/32"]);
    let before = world.heard_prefixes;
    world.configure(2, ReflectorClient);
    world.settle();
    assert_eq!(world.heard_of(2), ["10.96.0.1/32", "192.0.2.1/32"]);
    assert_eq!(world.heard_of(3), ["10.96.0.1/32"]);
    assert_eq!(world.heard_prefixes, before + 1);
    world.configure(1, ReflectorClient);
    world.settle();
    assert_eq!(world.heard_of(3), ["10.96.0.1/32", "192.0.2.1/32"]);
    world.configure(1, Plain);
    world.configure(2, Plain);
    world.settle();
    for n in [2, 3] {
        assert_eq!(world.heard_of(n), ["10.96.0.1/32"]);
    }
}

#[test]
fn well_known_communities() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.up(2, 65_002, Plain);
    world.up(3, OURS, Plain);
    let with = |community| Attributes { communities: vec![community], ..path(1, V4, &[65_001]) };
    world.reach(1, &["192.0.2.1/32"], with(Community::NO_EXPORT));
    world.reach(1, &["192.0.2.2/32"], with(Community::NO_ADVERTISE));
    world.reach(1, &["192.0.2.3/32"], with(Community::NO_EXPORT_SUBCONFED));
    world.reach(1, &["192.0.2.4/32"], with(Community(0xfc00_0001)));
    world.settle();
    assert_eq!(world.heard_of(2), ["192.0.2.4/32"]);
    assert_eq!(world.heard_of(3), ["192.0.2.1/32", "192.0.2.3/32", "192.0.2.4/32"]);
    assert_eq!(world.selected.len(), 4);
}

#[test]
fn bad_paths_are_counted_and_change_nothing_else() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[65_001, OURS, 65_002]));
    world.reach(1, &["192.0.2.2/32", "192.0.2.3/32"], Attributes::local(ip("127.0.0.1")));
    world.reach(1, &["192.0.2.4/32"], Attributes::local(our_address()));
    world.reach(1, &["224.0.0.0/24", "192.0.2.5/32"], path(1, V4, &[65_001]));
    let own = Attributes { originator_id: Some(router_id(0)), ..path(1, V4, &[65_001]) };
    world.reach(1, &["192.0.2.6/32"], own);
    let cluster = Attributes { cluster_list: [router_id(0)].into(), ..path(1, V4, &[65_001]) };
    world.reach(1, &["192.0.2.7/32"], cluster);
    world.settle();
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("192.0.2.5/32")]);
    let counters = *world.speaker.counters(peer(1)).unwrap();
    for (refusal, count) in [
        (Refusal::OwnAs, 1),
        (Refusal::MartianNextHop, 3),
        (Refusal::MartianPrefix, 1),
        (Refusal::OwnOriginatorId, 1),
        (Refusal::OwnClusterId, 1),
        (Refusal::Policy, 0),
    ] {
        assert_eq!(counters.refused(refusal), count, "{refusal:?}");
    }
    assert_eq!(counters.announced, 8);
    assert_eq!(world.speaker.prefix_count(peer(1), V4), 8);
    // A good path in place of the bad one.
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[65_001]));
    world.settle();
    assert_eq!(world.standings("192.0.2.1/32"), [(Some(peer(1)), Standing::Best)]);
    assert_eq!(world.speaker.prefix_count(peer(1), V4), 8);
}

#[test]
fn losers_know_why() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.up(2, 65_002, Plain);
    world.reach(1, &["192.0.2.0/24"], path(1, V4, &[65_001, 65_009]));
    world.reach(2, &["192.0.2.0/24"], path(2, V4, &[65_002]));
    assert_eq!(
        world.standings("192.0.2.0/24"),
        [(Some(peer(1)), Standing::Lost(Step::AsPathLength)), (Some(peer(2)), Standing::Best)]
    );
    world.unreach(2, "192.0.2.0/24");
    assert_eq!(world.standings("192.0.2.0/24"), [(Some(peer(1)), Standing::Best)]);
}

#[test]
fn a_router_id_twice_is_reported() {
    let mut world = World::new();
    world.up(1, 65_001, Plain);
    world.configure(2, Plain);
    let mut twin = session(2, 65_001);
    twin.peer_router_id = router_id(1);
    world.up_with(2, twin.clone());
    world.read_events();
    let report = Event::DuplicateRouterId { router_id: router_id(1), peers: [peer(1), peer(2)] };
    assert!(world.other_events.contains(&report), "{:?}", world.other_events);
    // In another system the same number is another router.
    world.down(2, Down::Lost);
    world.other_events.clear();
    world.up_with(2, crate::Negotiated { peer_asn: crate::Asn::new(65_002).unwrap(), ..twin });
    world.read_events();
    assert_eq!(world.other_events, []);
}

/// RFC 8212.
#[test]
fn external_peers_need_a_policy_where_that_is_asked() {
    let mut world = World::restarted(Routing { external_needs_policy: true, ..World::routing() }, None);
    world.up(1, 65_001, Plain);
    world.up(2, OURS, Plain);
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[65_001]));
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.settle();
    assert_eq!(world.standings("192.0.2.1/32"), [(Some(peer(1)), Standing::Refused(Refusal::NoPolicy))]);
    assert_eq!(world.heard_of(1), Vec::<String>::new());
    assert_eq!(world.heard_of(2), ["10.96.0.1/32"]);
    world.speaker.set_routing(World::routing());
    world.settle();
    assert_eq!(world.standings("192.0.2.1/32"), [(Some(peer(1)), Standing::Best)]);
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"]);
    assert_eq!(world.heard_of(2), ["10.96.0.1/32", "192.0.2.1/32"]);
}

/// RFC 8950, and what happens without an address that would do.
#[test]
fn next_hops_of_the_other_family() {
    let mut world = World::restarted(Routing { addresses: vec![], ..World::routing() }, None);
    let v6_session = |n, extended: bool| {
        let mut session = session(n, 65_000 + u32::from(n));
        session.local_address = our_v6();
        session.extended_next_hop = if extended { Families::all() } else { Families::NONE };
        session
    };
    for n in [1, 2] {
        world.configure(n, Plain);
        world.up_with(n, v6_session(n, n == 1));
    }
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(ip("0.0.0.0")));
    world.speaker.announce(net("fd00::1/128"), Attributes::local(ip("::")));
    world.settle();
    assert_eq!(world.heard(1, "10.96.0.1/32").unwrap().next_hop.global, our_v6());
    assert_eq!(world.heard_of(2), ["fd00::1/128"]);
    // An address of the right family is better than one of the other.
    world.speaker.set_routing(World::routing());
    world.settle();
    assert_eq!(world.heard(1, "10.96.0.1/32").unwrap().next_hop.global, our_address());
    assert_eq!(world.heard(2, "10.96.0.1/32").unwrap().next_hop.global, our_address());
}

#[test]
fn families_that_were_not_negotiated_are_silent() {
    let mut world = World::new();
    world.configure(1, Plain);
    world.up_with(1, crate::Negotiated { families: [V6].into_iter().collect(), ..session(1, OURS) });
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.speaker.announce(net("fd00::1/128"), Attributes::local(our_v6()));
    world.settle();
    assert_eq!(world.heard_of(1), ["fd00::1/128"]);
    assert_eq!(world.ended[&1], [V6]);
}

#[test]
fn a_refresh_repeats_everything_once() {
    let mut world = World::new();
    world.up(1, OURS, Plain);
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.speaker.announce(net("10.96.0.2/32"), Attributes::local(our_address()));
    world.settle();
    assert_eq!(world.heard_prefixes, 2);
    assert!(world.speaker.refresh_requested(peer(1), V4), "marks go round it");
    world.settle();
    assert_eq!(world.heard_prefixes, 4);
    assert_eq!(world.ended[&1], Family::ALL, "End-of-RIB is said once in a session");
}

/// RFC 7313 section 4: no mark before End-of-RIB, which ends what was asked for in this case.
#[test]
fn who_asks_before_it_has_heard_everything_hears_it_from_the_beginning() {
    let mut world = World::new();
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.speaker.announce(net("10.96.0.2/32"), Attributes::local(our_address()));
    world.up(1, OURS, Plain);
    world.hear_some(1, 1);
    assert!(!world.speaker.refresh_requested(peer(1), V4));
    world.settle();
    assert_eq!((world.heard_prefixes, world.heard_of(1).len()), (3, 2), "the first one twice");
    assert_eq!(world.ended[&1], Family::ALL);
    assert!(world.speaker.refresh_requested(peer(1), V4));
}

/// RFC 7313: what is not repeated between the marks is gone.
#[test]
fn a_peer_repeats_itself_between_marks() {
    let mut world = World::new();
    world.up(1, OURS, Plain);
    world.reach(1, &["192.0.2.1/32", "192.0.2.2/32"], path(1, V4, &[]));
    world.end_of_rib(1);
    world.speaker.refresh_begins(peer(1), V4);
    world.reach(1, &["192.0.2.2/32"], path(1, V4, &[]));
    world.settle();
    assert_eq!(world.selected.len(), 2);
    world.speaker.refresh_ends(peer(1), V4);
    world.settle();
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("192.0.2.2/32")]);
}

/// The best path moves from one peer to another without looking different outside: only those two hear of it.
#[test]
fn a_change_of_source_that_shows_nowhere_is_not_told() {
    let mut world = World::new();
    for n in [1, 2, 3] {
        world.up(n, OURS, ReflectorClient);
    }
    world.up(4, 65_004, Plain);
    world.reach(1, &["192.0.2.1/32"], path(9, V4, &[]));
    world.reach(2, &["192.0.2.1/32"], path(9, V4, &[]));
    world.settle();
    let before = world.heard_prefixes;
    world.unreach(1, "192.0.2.1/32");
    world.settle();
    assert_eq!(world.selected[&net("192.0.2.1/32")][0].0, Some(peer(2)));
    // Clients hear of another originator, peer 2 that the path is gone, peer 4 nothing.
    assert_eq!(world.heard(3, "192.0.2.1/32").unwrap().originator_id, Some(router_id(2)));
    assert_eq!(world.heard(1, "192.0.2.1/32").unwrap().originator_id, Some(router_id(2)));
    assert_eq!(world.heard(2, "192.0.2.1/32"), None);
    assert!(world.heard(4, "192.0.2.1/32").is_some());
    assert_eq!(world.heard_prefixes, before + 3);
}

/// A peer that does not read costs a place in a log, not messages.
#[test]
fn a_slow_peer_hears_the_last_word_only() {
    let mut world = World::new();
    world.up(1, OURS, Plain);
    world.up(2, OURS, Plain);
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world.settle();
    let before = world.heard_prefixes;
    for med in 0..10_000 {
        let changed = Attributes { med: Some(med), ..Attributes::local(our_address()) };
        world.speaker.announce(net("10.96.0.1/32"), changed);
        if med % 2 == 0 {
            world.speaker.announce(net("10.96.0.2/32"), Attributes::local(our_address()));
        } else {
            world.speaker.withdraw(net("10.96.0.2/32"));
        }
    }
    assert!(world.speaker.attributes_count() < 3000, "{}", world.speaker.attributes_count());
    world.settle();
    assert_eq!(world.heard_prefixes, before + 2);
    assert_eq!(world.heard(2, "10.96.0.1/32").unwrap().med, Some(9_999));
}

/// The peer is back under another router id, its old paths not yet confirmed: they are reflected under the new one.
#[test]
fn a_peer_changes_its_router_id() {
    let mut world = World::new();
    world.up(1, OURS, ReflectorClient);
    world.up(2, OURS, ReflectorClient);
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.settle();
    world.down(1, Down::Graceful);
    let mut other = session(1, OURS);
    other.peer_router_id = router_id(77);
    world.up_with(1, other);
    world.settle();
    assert_eq!(world.heard(2, "192.0.2.1/32").unwrap().originator_id, Some(router_id(77)));
}

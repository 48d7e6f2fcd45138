//! Graceful restart, theirs and ours (RFC 4724), in virtual time.

use std::time::Duration;

use super::world::*;
use crate::Negotiated;
use crate::attributes::Attributes;
use crate::config::Role::Plain;
use crate::families::Families;
use crate::family::Family;
use crate::negotiated::PeerRestart;
use crate::rib::Standing;
use crate::speaker::{ABSENT_PEERS_WAIT, Down, Event};

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

fn with_restart(n: u16, change: impl FnOnce(&mut PeerRestart)) -> Negotiated {
    let mut session = session(n, OURS);
    change(session.graceful_restart.as_mut().unwrap());
    session
}

fn two_paths() -> World {
    let mut world = World::new();
    world.up(1, OURS, Plain);
    world.up(2, 65_002, Plain);
    world.reach(1, &["192.0.2.1/32", "192.0.2.2/32"], path(1, V4, &[]));
    world.reach(1, &["2001:db8:1::/64"], path(1, V6, &[]));
    world.settle();
    assert_eq!(world.selected.len(), 3);
    world
}

fn stale(world: &World) -> usize {
    Family::ALL.iter().map(|family| world.speaker.paths(*family).filter(|path| path.stale).count()).sum()
}

#[test]
fn paths_stay_while_the_peer_restarts() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.settle();
    assert_eq!((world.selected.len(), stale(&world)), (3, 3));
    assert_eq!(world.heard_of(2).len(), 3, "nobody else notices");
    assert_eq!(world.speaker.next_deadline(world.now), Some(world.now + RESTART_TIME));

    world.pass(RESTART_TIME - Duration::from_secs(1));
    world.up_with(1, session(1, OURS));
    assert_eq!(world.speaker.next_deadline(world.now), Some(world.now + STALE_TIME));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.settle();
    assert_eq!((world.selected.len(), stale(&world)), (3, 2));
    world.end_of_rib(1);
    world.settle();
    assert_eq!((world.selected.len(), stale(&world)), (1, 0));
    assert_eq!(world.heard_of(2), ["192.0.2.1/32"]);
    assert_eq!(world.speaker.next_deadline(world.now), None);
}

/// RFC 7313 section 4: marks of one that restarts gracefully count once it has told everything, or the end of a refresh
/// would take what it kept and has not told again.
#[test]
fn marks_before_the_end_of_the_first_telling_are_none() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.up_with(1, session(1, OURS));
    world.speaker.refresh_begins(peer(1), V4);
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.speaker.refresh_ends(peer(1), V4);
    world.settle();
    assert_eq!((world.selected.len(), stale(&world)), (3, 2));
    world.end_of_rib(1);
    world.settle();
    assert_eq!((world.selected.len(), stale(&world)), (1, 0));
    // An end without a beginning is none either.
    world.speaker.refresh_begins(peer(1), V4);
    world.speaker.refresh_ends(peer(1), V6);
    world.settle();
    assert_eq!(stale(&world), 1);
    world.speaker.refresh_ends(peer(1), V4);
    world.settle();
    assert!(world.selected.is_empty());
}

#[test]
fn paths_go_if_the_peer_stays_away() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.pass(RESTART_TIME);
    world.settle();
    assert!(world.selected.is_empty());
    assert_eq!(world.heard_of(2), Vec::<String>::new());
}

#[test]
fn paths_go_if_the_peer_is_back_and_does_not_confirm_them() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.up_with(1, session(1, OURS));
    world.pass(STALE_TIME - Duration::from_secs(1));
    world.settle();
    assert_eq!(world.selected.len(), 3);
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(world.selected.is_empty());
}

#[test]
fn a_peer_that_lost_its_state_has_its_paths_removed_at_once() {
    for session in [
        with_restart(1, |restart| restart.forwarding_kept = [V6].into_iter().collect()),
        Negotiated { families: [V6].into_iter().collect(), ..session(1, OURS) },
        with_restart(1, |restart| restart.families = [V6].into_iter().collect()),
    ] {
        let mut world = two_paths();
        world.down(1, Down::Graceful);
        world.up_with(1, session);
        world.settle();
        assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("2001:db8:1::/64")]);
    }
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.up_with(1, Negotiated { graceful_restart: None, ..session(1, OURS) });
    world.settle();
    assert!(world.selected.is_empty());
    assert_eq!(world.speaker.next_deadline(world.now), None);
}

#[test]
fn only_promised_families_stay() {
    let mut world = World::new();
    world.configure(1, Plain);
    world.up_with(1, with_restart(1, |restart| restart.families = [V4].into_iter().collect()));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.reach(1, &["2001:db8:1::/64"], path(1, V6, &[]));
    world.down(1, Down::Graceful);
    world.settle();
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("192.0.2.1/32")]);
}

/// RFC 4724 section 4.2: what was stale already goes with the second restart.
#[test]
fn two_restarts_in_a_row() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.up_with(1, session(1, OURS));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.down(1, Down::Graceful);
    world.settle();
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("192.0.2.1/32")]);
}

/// A peer that dies again before its first word has not been back, so it has as long as it had, and no longer.
#[test]
fn a_session_in_which_nothing_was_told_is_none() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    let back_by = world.now + RESTART_TIME;
    for _ in 0..3 {
        world.pass(Duration::from_secs(1));
        world.up_with(1, session(1, OURS));
        world.pass(Duration::from_secs(1));
        world.down(1, Down::Graceful);
        world.settle();
        assert_eq!((world.selected.len(), stale(&world)), (3, 3));
        assert_eq!(world.speaker.next_deadline(world.now), Some(back_by));
    }
    // One word makes it a session, and what was not confirmed in it goes.
    world.up_with(1, session(1, OURS));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.down(1, Down::Graceful);
    world.settle();
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("192.0.2.1/32")]);
    assert_eq!(world.speaker.next_deadline(world.now), Some(world.now + RESTART_TIME));

    // Back in time, and silent until the time is over.
    world.pass(RESTART_TIME - Duration::from_secs(1));
    world.up_with(1, session(1, OURS));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.selected.len(), 1);
    world.down(1, Down::Graceful);
    world.speaker.tick(world.now);
    world.settle();
    assert!(world.selected.is_empty());
}

/// What the peer says of itself in a silent session counts: it has lost what it forwarded by.
#[test]
fn a_silent_session_without_a_promise_keeps_nothing() {
    for down in [Down::Lost, Down::Graceful] {
        let mut world = two_paths();
        world.down(1, Down::Graceful);
        world.up_with(1, with_restart(1, |restart| restart.families = Families::NONE));
        world.down(1, down);
        world.settle();
        assert!(world.selected.is_empty());
        assert_eq!(world.speaker.next_deadline(world.now), None);
    }
}

#[test]
fn a_peer_removed_while_away_leaves_nothing() {
    let mut world = two_paths();
    world.down(1, Down::Graceful);
    world.config.peers.remove(&peer(1));
    world.speaker.apply(&world.config, world.now);
    world.settle();
    assert!(world.selected.is_empty());
    assert_eq!((world.speaker.path_count(), world.speaker.next_deadline(world.now)), (0, None));
}

const DEFERRAL: Duration = Duration::from_secs(360);

fn restarted(peers: &[u16]) -> World {
    let mut world = World::with_peers(World::routing(), Some(DEFERRAL), peers);
    world.speaker.announce(net("10.96.0.1/32"), Attributes::local(our_address()));
    world
}

fn began(world: &mut World) -> Vec<Family> {
    world.settle();
    let events = std::mem::take(&mut world.other_events);
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::SelectionBegan(family) => Some(family),
            _ => None,
        })
        .collect()
}

#[test]
fn without_a_restart_selection_begins_at_once() {
    assert_eq!(began(&mut World::new()), Family::ALL);
}

#[test]
fn without_peers_nothing_is_waited_for() {
    assert_eq!(began(&mut restarted(&[])), Family::ALL);
}

#[test]
fn our_restart_waits_for_the_peers() {
    let mut world = restarted(&[1, 2]);
    world.up_with(1, session(1, OURS));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.end_of_rib(1);
    assert_eq!(began(&mut world), []);
    assert_eq!(world.selected.keys().collect::<Vec<_>>(), [&net("10.96.0.1/32")]);
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"], "what is our own does not wait");
    assert!(world.ended[&1].is_empty());
    world.up_with(2, session(2, 65_002));
    world.reach(2, &["192.0.2.2/32"], path(2, V4, &[65_002]));
    assert_eq!(began(&mut world), []);
    world.end_of_rib(2);
    assert_eq!(began(&mut world), Family::ALL);
    assert_eq!(world.selected.len(), 3);
    assert_eq!(world.heard_of(1), ["10.96.0.1/32", "192.0.2.2/32"]);
    assert_eq!(world.heard_of(2), ["10.96.0.1/32", "192.0.2.1/32"]);
    assert_eq!(world.heard_prefixes, 4, "each path is told once");
    for n in [1, 2] {
        assert_eq!(world.ended[&n], Family::ALL, "End-of-RIB comes after the wait");
    }
}

/// Whoever removes what is not selected once selection has begun must know by then what is.
#[test]
fn what_is_selected_is_said_before_selection_began() {
    let mut world = restarted(&[1]);
    world.up_with(1, session(1, OURS));
    world.reach(1, &["192.0.2.1/32"], path(1, V4, &[]));
    world.reach(1, &["2001:db8:1::/64"], path(1, V6, &[]));
    for family in Family::ALL {
        world.speaker.update(peer(1), crate::Update::EndOfRib(family), world.now);
    }
    let events: Vec<Event> = std::iter::from_fn(|| world.speaker.next_event()).collect();
    let (selected, began) = events.split_at(3);
    assert!(selected.iter().all(|event| matches!(event, Event::Selected { .. })), "{events:?}");
    assert!(began.iter().all(|event| matches!(event, Event::SelectionBegan(_))), "{events:?}");
    assert_eq!(began.len(), 2);
}

/// A peer that keeps our paths while we restart drops them if we die a second time without having told them.
#[test]
fn our_own_paths_come_and_go_while_selection_waits() {
    let mut world = restarted(&[1, 2]);
    world.up_with(1, session(1, OURS));
    world.reach(1, &["10.96.0.1/32"], path(1, V4, &[]));
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"]);
    world.speaker.announce(net("10.96.0.2/32"), Attributes::local(our_address()));
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.1/32", "10.96.0.2/32"]);
    world.speaker.withdraw(net("10.96.0.1/32"));
    world.settle();
    assert_eq!(world.heard_of(1), ["10.96.0.2/32"], "the peer's own path waits to be chosen");
    assert_eq!(world.standings("10.96.0.1/32"), [(Some(peer(1)), Standing::Waiting)]);
    assert!(world.ended[&1].is_empty());
    world.end_of_rib(1);
    world.pass(DEFERRAL);
    world.settle();
    assert_eq!(world.selected.len(), 2);
    assert_eq!(world.ended[&1], Family::ALL);
}

/// The wait ends without those who will never say End-of-RIB.
#[test]
fn nobody_is_waited_for_in_vain() {
    for (what, second) in [
        ("no graceful restart", Negotiated { graceful_restart: None, ..session(2, OURS) }),
        ("restarting, too", with_restart(2, |restart| restart.restarting = true)),
        ("promised for no family", with_restart(2, |restart| restart.families = Families::NONE)),
    ] {
        let mut world = restarted(&[1, 2]);
        world.up_with(1, session(1, OURS));
        world.end_of_rib(1);
        world.up_with(2, second);
        assert_eq!(began(&mut world), Family::ALL, "{what}");
    }
    // A family that the peer does not carry does not wait; the other one does.
    let mut world = restarted(&[1]);
    world.up_with(1, Negotiated { families: [V4].into_iter().collect(), ..session(1, OURS) });
    assert_eq!(began(&mut world), [V6]);
    world.speaker.update(peer(1), crate::Update::EndOfRib(V4), world.now);
    assert_eq!(began(&mut world), [V4]);
    // A peer that goes again is not waited for.
    let mut world = restarted(&[1]);
    world.up_with(1, session(1, OURS));
    assert_eq!(began(&mut world), []);
    world.down(1, Down::Lost);
    assert_eq!(began(&mut world), Family::ALL);
}

#[test]
fn absent_peers_are_waited_for_half_a_minute_others_for_the_deferral() {
    let mut world = restarted(&[1, 2]);
    world.up_with(1, session(1, OURS));
    world.end_of_rib(1);
    assert_eq!(world.speaker.next_deadline(world.now), Some(world.now + ABSENT_PEERS_WAIT));
    world.pass(ABSENT_PEERS_WAIT);
    assert_eq!(began(&mut world), Family::ALL);

    let mut world = restarted(&[1]);
    world.up_with(1, session(1, OURS));
    world.pass(ABSENT_PEERS_WAIT);
    assert_eq!(began(&mut world), []);
    let rest = DEFERRAL - ABSENT_PEERS_WAIT;
    assert_eq!(world.speaker.next_deadline(world.now), Some(world.now + rest));
    world.pass(rest);
    assert_eq!(began(&mut world), Family::ALL);
    assert_eq!(world.heard_of(1), ["10.96.0.1/32"]);
}

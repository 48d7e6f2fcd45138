//! Whole networks of speakers: meshes, reflectors, systems in a ring. Virtual time, no sockets.
#![allow(clippy::indexing_slicing)] // a panic is how a test fails

mod common;

use std::time::Duration;

use bgp::config::Role::{Plain, ReflectorClient};
use bgp::speaker::Down;
use common::Network;

const OURS: u32 = 64_512;

fn mesh(size: u16) -> Network {
    let mut network = Network::new();
    for n in 1..=size {
        network.add(n, OURS);
        for other in 1..n {
            network.connect(n, other, Plain);
        }
    }
    network.converge();
    network
}

#[test]
fn full_mesh() {
    let mut network = mesh(12);
    for n in 1..=12 {
        network.assert_all_reach(n, 0);
    }
    // One message and one End-of-RIB for each direction of each session.
    assert_eq!(network.messages, 12 * 11 * 2);

    network.announce(3, 1);
    network.converge();
    network.assert_all_reach(3, 1);
    network.withdraw(3, 1);
    network.kill(7, Down::Lost);
    network.converge();
    network.assert_none_reaches(3, 1);
    network.assert_none_reaches(7, 0);
    network.add(7, OURS);
    for other in [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12] {
        network.connect(7, other, Plain);
    }
    network.converge();
    network.assert_all_reach(7, 0);
    network.assert_all_reach(1, 0);
}

/// A node is killed and comes back with graceful restart: nobody loses a path for a moment, and the node does not
/// select or tell before its peers have told it everything.
#[test]
fn restart_in_a_mesh() {
    let mut network = mesh(5);
    network.kill(2, Down::Graceful);
    network.converge();
    for n in 1..=5 {
        network.assert_all_reach(n, 0);
    }
    network.now += Duration::from_secs(20);
    network.add_waiting(2, OURS, Some(Duration::from_secs(60)));
    network.announce(2, 0);
    for other in [1, 3, 4, 5] {
        network.connect(2, other, Plain);
        network.assert_all_reach_but(2);
    }
    network.converge();
    for n in 1..=5 {
        network.assert_all_reach(n, 0);
    }
    assert!(network.routers.values().all(|router| router.speaker.next_deadline(network.now).is_none()));
}

/// Two reflectors, every node a client of both: any one of them may go.
#[test]
fn redundant_reflectors() {
    let mut network = Network::new();
    network.add(1, OURS);
    network.add(2, OURS);
    network.connect(1, 2, Plain);
    for n in 10..60 {
        network.add(n, OURS);
        network.connect(1, n, ReflectorClient);
        network.connect(2, n, ReflectorClient);
    }
    network.converge();
    for n in (10..60).chain([1, 2]) {
        network.assert_all_reach(n, 0);
    }
    network.kill(1, Down::Lost);
    network.converge();
    for n in (10..60).chain([2]) {
        network.assert_all_reach(n, 0);
    }
    network.assert_none_reaches(1, 0);
}

/// Reflectors of reflectors, with a loop among them: paths go everywhere and not in circles.
#[test]
fn reflectors_in_two_tiers_and_a_loop() {
    let mut network = Network::new();
    for n in 1..=4 {
        network.add(n, OURS);
    }
    // 1 and 2 are on top, each a client of the other, too; 3 and 4 below are clients of both.
    network.connect(1, 2, ReflectorClient);
    for below in [3, 4] {
        network.connect(1, below, ReflectorClient);
        network.connect(2, below, ReflectorClient);
    }
    for n in 10..20 {
        network.add(n, OURS);
        network.connect(if n % 2 == 0 { 3 } else { 4 }, n, ReflectorClient);
    }
    network.converge();
    for n in (1..=4).chain(10..20) {
        network.assert_all_reach(n, 0);
    }
    network.withdraw(11, 0);
    network.kill(12, Down::Lost);
    network.converge();
    network.assert_none_reaches(11, 0);
    network.assert_none_reaches(12, 0);
}

/// Systems in a ring: each hears of every other the shorter way round, and a withdrawal is not hunted for ever.
#[test]
fn a_ring_of_systems() {
    let mut network = Network::new();
    for n in 1..=9 {
        network.add(n, 65_000 + u32::from(n));
        if n > 1 {
            network.connect(n - 1, n, Plain);
        }
    }
    network.connect(9, 1, Plain);
    network.converge();
    for (at, router) in &network.routers {
        for to in 1..=9u16 {
            let paths = &router.selected[&common::prefix(to, 0)];
            let around = (i32::from(*at) - i32::from(to)).rem_euclid(9);
            assert_eq!(paths[0].1.as_path.length() as i32, around.min(9 - around), "from {at} to {to}");
        }
    }
    network.down(9, 1, Down::Lost);
    network.withdraw(5, 0);
    network.converge();
    network.assert_none_reaches(5, 0);
    let longest = &network.routers[&1].selected[&common::prefix(9, 0)];
    assert_eq!(longest[0].1.as_path.length(), 8);
}

impl Network {
    /// All but the one that restarts know the ways.
    fn assert_all_reach_but(&self, restarting: u16) {
        for (at, router) in self.routers.iter().filter(|(at, _)| **at != restarting) {
            for n in 1..=5 {
                assert!(router.selected.contains_key(&common::prefix(n, 0)), "from {at} to {n}");
            }
        }
    }
}

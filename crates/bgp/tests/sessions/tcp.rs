//! What a session asks of TCP: passwords, hops, one connection of two.

use std::time::Duration;

use bgp::Password;
use bgp::config::Ttl;

use crate::setup::{A, A6, B, B6, Router, connections, eventually, in_namespace, ip, pair, pause};

#[test]
fn both_families_over_either() {
    in_namespace(|| async {
        for (ours, theirs) in [(A, B), (A6, B6)] {
            let mut a = Router::new(65_001, &[A, A6]);
            let mut b = Router::new(65_002, &[B, B6]);
            a.peer(ours, theirs, 65_002);
            b.peer(theirs, ours, 65_001);
            a.go();
            b.go();
            a.announce("10.1.0.0/24", A);
            a.announce("fd01::/48", A6);
            for (prefix, next_hop) in [("10.1.0.0/24", A), ("fd01::/48", A6)] {
                let path = b.learns(prefix, ours).await;
                assert_eq!(path.learned.next_hop.global, ip(next_hop));
                assert_eq!(path.learned.as_path.to_string(), "65001");
            }
            a.handle.withdraw("10.1.0.0/24".parse().unwrap());
            b.learns_many(ours, 1).await;
            a.handle.stop("");
            b.handle.stop("");
            eventually("all connections are closed", || connections() == 0).await;
        }
    });
}

/// Both dial at the same time, again and again: there is one session and one connection, and it stays.
#[test]
fn one_connection_of_two() {
    in_namespace(|| async {
        let (a, b) = pair();
        a.go();
        b.go();
        for round in 0..10 {
            a.up(B).await;
            b.up(A).await;
            eventually("one connection is left, with two ends", || connections() == 2).await;
            let before = (a.report(B).await, b.report(A).await);
            for _ in 0..20 {
                pause().await;
            }
            let after = (a.report(B).await, b.report(A).await);
            assert_eq!(before.0.status.history.established, after.0.status.history.established, "{round}");
            assert_eq!(before.1.status.history.established, after.1.status.history.established, "{round}");
            if round % 2 == 0 {
                a.handle.reset_peer(ip(B), "again");
            } else {
                b.handle.reset_peer(ip(A), "again");
            }
            a.up_again(B, after.0.status.history.established).await;
        }
    });
}

/// A wrong password keeps the session down; the right one, put in force live, brings it up.
#[test]
fn passwords() {
    in_namespace(|| async {
        for (ours, theirs) in [(A, B), (A6, B6)] {
            let mut a = Router::new(65_001, &[A, A6]);
            let mut b = Router::new(65_002, &[B, B6]);
            a.peer(ours, theirs, 65_002).password = Some(Password::new("sesame").unwrap());
            b.peer(theirs, ours, 65_001).password = Some(Password::new("simsim").unwrap());
            a.go();
            b.go();
            stays_down(&a, theirs).await;
            b.config.peers.get_mut(&ip(ours)).unwrap().password = None;
            b.go();
            stays_down(&a, theirs).await;
            b.config.peers.get_mut(&ip(ours)).unwrap().password = Some(Password::new("sesame").unwrap());
            b.go();
            a.up(theirs).await;
            a.handle.stop("");
            b.handle.stop("");
            eventually("all connections are closed", || connections() == 0).await;
        }
    });
}

/// Packets that could have come from further away than allowed do not count.
#[test]
fn hops() {
    in_namespace(|| async {
        for (ours, theirs) in [(A, B), (A6, B6)] {
            let mut a = Router::new(65_001, &[A, A6]);
            let mut b = Router::new(65_002, &[B, B6]);
            a.peer(ours, theirs, 65_002).ttl = Ttl::Security(1);
            b.peer(theirs, ours, 65_001).ttl = Ttl::Multihop(254);
            a.go();
            b.go();
            stays_down(&a, theirs).await;
            b.config.peers.get_mut(&ip(ours)).unwrap().ttl = Ttl::Security(1);
            b.go();
            a.up(theirs).await;
            b.up(ours).await;
            a.handle.stop("");
            b.handle.stop("");
            eventually("all connections are closed", || connections() == 0).await;
        }
    });
}

/// Long enough for a dozen attempts at a session that would be up at the first.
async fn stays_down(router: &Router, peer: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < end {
        assert!(!router.is_up(peer).await, "{peer} is up");
        pause().await;
    }
}

//! Changes while others are at work.

use std::time::Duration;

use bgp::config::{GracefulRestart, MaxPrefixes};
use bgp::{Asn, Families};

use crate::setup::{A, B, C, Router, connections, eventually, in_namespace, ip, pair, pause};

/// Peers come, change and go; the one that stays notices nothing.
#[test]
fn peers_come_and_go_beside_one_that_stays() {
    in_namespace(|| async {
        let (mut a, mut b) = pair();
        let mut c = Router::new(65_003, &[C]);
        c.peer(C, A, 65_001);
        a.go();
        b.go();
        c.go();
        a.up(B).await;
        b.announce("10.2.0.0/24", B);
        c.announce("10.3.0.0/24", C);

        a.peer(A, C, 65_003);
        a.go();
        a.learns("10.3.0.0/24", C).await;
        b.learns("10.3.0.0/24", A).await;

        let established = a.report(C).await.status.history.established;
        a.peer(A, C, 65_003).hold_time = Duration::from_secs(30);
        a.go();
        a.up_again(C, established).await;

        a.config.peers.remove(&ip(C));
        a.go();
        b.learns_many(A, 0).await;
        c.not_up(A).await;
        assert_eq!(c.report(A).await.status.history.last_received.unwrap().subcode, 3);

        assert_eq!(a.report(B).await.status.history.established, 1);
        assert_eq!(b.report(A).await.status.history.established, 1);

        // Another AS number of our own is another speaker: sessions begin anew.
        a.config.asn = Asn::new(65_009).unwrap();
        b.config.peers.clear();
        b.peer(B, A, 65_009);
        a.go();
        b.go();
        a.up_again(B, 1).await;
        b.up(A).await;
    });
}

#[test]
fn a_peer_that_tells_too_much_is_left_until_its_time_is_up() {
    in_namespace(|| async {
        let (mut a, b) = pair();
        a.peer(A, B, 65_002).max_prefixes =
            Some(MaxPrefixes { limit: 20, restart_after: Some(Duration::from_secs(2)) });
        for i in 0..20 {
            b.announce(&format!("10.2.{i}.0/24"), B);
        }
        a.go();
        b.go();
        a.learns_many(B, 20).await;
        b.announce("10.2.20.0/24", B);
        // First, because who tries again is told something else.
        b.told(A, 6, 1).await;
        a.not_up(B).await;
        b.handle.withdraw("10.2.20.0/24".parse().unwrap());
        a.learns_many(B, 20).await;
    });
}

/// A speaker that ends and comes back with graceful restart on: its paths stay, and what it no longer announces goes.
#[test]
fn paths_survive_a_restart() {
    in_namespace(|| async {
        let restart = GracefulRestart {
            restart_time: Duration::from_secs(60),
            deferral: Duration::from_secs(60),
            stale_time: Duration::from_secs(60),
            restarting: false,
            forwarding_kept: Families::all(),
        };
        let (mut a, mut b) = pair();
        a.config.graceful_restart = Some(restart);
        b.config.graceful_restart = Some(restart);
        a.announce("10.1.0.0/24", A);
        b.announce("10.2.0.0/24", B);
        b.announce("10.2.1.0/24", B);
        a.go();
        b.go();
        a.learns_many(B, 2).await;
        b.learns_many(A, 1).await;
        b.handle.stop("");
        a.not_up(B).await;
        assert!(a.learns("10.2.0.0/24", B).await.stale && a.learns("10.2.1.0/24", B).await.stale);
        eventually("the old connection is closed", || connections() == 0).await;

        let mut b = Router::new(65_002, &[B]);
        b.peer(B, A, 65_001);
        b.config.graceful_restart = Some(GracefulRestart { restarting: true, ..restart });
        b.announce("10.2.0.0/24", B);
        b.go();
        a.learns_many(B, 1).await;
        assert!(!a.learns("10.2.0.0/24", B).await.stale);
        b.learns("10.1.0.0/24", A).await;
    });
}

#[test]
fn a_shutdown_says_why_and_lasts() {
    in_namespace(|| async {
        let (a, b) = pair();
        a.go();
        b.go();
        a.up(B).await;
        a.handle.stop_peer(ip(B), "new switch, back at noon");
        b.not_up(A).await;
        let told = b.report(A).await.status.history.last_received.unwrap();
        assert_eq!(told.text().unwrap(), "new switch, back at noon");
        for _ in 0..100 {
            assert!(!a.is_up(B).await);
            pause().await;
        }
        a.handle.start_peer(ip(B));
        a.up(B).await;
    });
}

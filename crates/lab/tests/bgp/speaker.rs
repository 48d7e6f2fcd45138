//! Our speaker with each of the four, by the same checks.

use lab::router::Software::{self, Bird, ExaBgp, Frr, GoBgp, Speaker};

use crate::setup::{Over, each};
use crate::{checks, malformed};

#[test]
fn routes_are_exchanged() {
    each(&Software::FOREIGN, |peer| checks::exchange(Speaker, peer, Over::V4));
}

#[test]
fn routes_are_exchanged_over_ipv6() {
    each(&Software::FOREIGN, |peer| checks::exchange(peer, Speaker, Over::V6));
}

#[test]
fn others_tell_everything_again() {
    each(&Software::FOREIGN, |peer| checks::refresh(Speaker, peer, Over::V4));
}

#[test]
fn others_are_told_everything_again() {
    each(&[Frr, Bird, Speaker], |peer| checks::refresh(peer, Speaker, Over::V6));
}

#[test]
fn sessions_are_signed() {
    each(&Software::FOREIGN, |peer| match peer {
        Frr | ExaBgp => checks::signature(Speaker, peer, Over::V4),
        _ => checks::signature(Speaker, peer, Over::V6),
    });
}

#[test]
fn sessions_are_signed_as_others_want_it() {
    each(&[Frr, Bird, GoBgp], |peer| match peer {
        Frr => checks::signature(peer, Speaker, Over::V6),
        _ => checks::signature(peer, Speaker, Over::V4),
    });
}

#[test]
fn sessions_are_secured_by_ttl() {
    each(&[Frr, Bird, GoBgp], |peer| match peer {
        Frr => checks::ttl_security(Speaker, peer, Over::V4),
        _ => checks::ttl_security(Speaker, peer, Over::V6),
    });
    each(&[Frr, Bird, GoBgp], |peer| match peer {
        Frr => checks::ttl_security(peer, Speaker, Over::V6),
        _ => checks::ttl_security(peer, Speaker, Over::V4),
    });
}

#[test]
fn the_speaker_reflects() {
    each(&[Frr, Bird, GoBgp], |client| match client {
        Frr => checks::reflection(Speaker, Frr, Bird, Over::V4),
        Bird => checks::reflection(Speaker, Bird, GoBgp, Over::V6),
        _ => checks::reflection(Speaker, GoBgp, Speaker, Over::V4),
    });
}

#[test]
fn the_speaker_is_a_client_and_none() {
    each(&[Frr, Bird, GoBgp], |reflector| match reflector {
        Frr => checks::reflection(Frr, Speaker, Speaker, Over::V6),
        Bird => checks::reflection(Bird, Speaker, Frr, Over::V4),
        _ => checks::reflection(GoBgp, Speaker, Bird, Over::V4),
    });
}

#[test]
fn paths_of_a_restarting_neighbour_stay() {
    each(&[Frr, Bird, GoBgp], |peer| checks::restart(Speaker, peer, Over::V4));
}

#[test]
fn others_keep_our_paths_while_we_restart() {
    each(&[Frr, Bird, GoBgp, Speaker], |peer| checks::restart(peer, Speaker, Over::V6));
}

#[test]
fn paths_of_a_neighbour_that_stays_away_go() {
    each(&Software::FOREIGN, |peer| checks::no_return(Speaker, peer, Over::V4));
}

#[test]
fn a_neighbour_that_stops_is_noticed() {
    each(&Software::FOREIGN, |peer| checks::frozen(Speaker, peer, Over::V4));
}

#[test]
fn prefixes_are_limited() {
    each(&Software::FOREIGN, |peer| checks::max_prefixes(Speaker, peer, Over::V4));
}

#[test]
fn limits_of_others_are_understood() {
    each(&[Frr, Bird, GoBgp], |peer| checks::max_prefixes(peer, Speaker, Over::V4));
}

#[test]
fn shutdown_says_why() {
    // ExaBGP 4.2.21 fails at reading a text.
    each(&[Frr, Bird, GoBgp], |peer| checks::shutdown(Speaker, peer, Over::V4));
}

#[test]
fn shutdown_of_others_is_understood() {
    each(&[Frr, Bird, GoBgp], |peer| checks::shutdown(peer, Speaker, Over::V4));
}

#[test]
fn ipv4_has_ipv6_next_hops() {
    each(&Software::FOREIGN, |peer| checks::extended_next_hop(Speaker, peer));
}

#[test]
fn malformed_messages_cost_what_the_rfc_says() {
    let otherwise = [malformed::updates(Speaker), malformed::openings(Speaker)].concat();
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

#[test]
fn the_hold_time_is_kept_to_the_second() {
    malformed::hold_time(Speaker);
}

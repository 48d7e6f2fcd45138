//! The harness proved on implementations that are known to work with each other.

use lab::router::Software::{Bird, ExaBgp, Frr, GoBgp};

use crate::checks;
use crate::setup::{Over, each};

#[test]
fn foreign_pairs_exchange_routes() {
    for over in [Over::V4, Over::V6] {
        each(&[Frr, GoBgp], |one| match one {
            Frr => checks::exchange(Frr, Bird, over),
            _ => checks::exchange(GoBgp, ExaBgp, over),
        });
    }
}

#[test]
fn foreign_pairs_tell_everything_again() {
    each(&[Frr, Bird], |one| match one {
        Frr => checks::refresh(Frr, Bird, Over::V4),
        _ => checks::refresh(Bird, GoBgp, Over::V6),
    });
}

#[test]
fn foreign_pairs_sign() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::signature(Frr, Bird, Over::V6),
        Bird => checks::signature(Bird, ExaBgp, Over::V4),
        _ => checks::signature(GoBgp, Frr, Over::V4),
    });
}

#[test]
fn foreign_pairs_secure_by_ttl() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::ttl_security(Frr, Bird, Over::V4),
        Bird => checks::ttl_security(Bird, GoBgp, Over::V6),
        _ => checks::ttl_security(GoBgp, Frr, Over::V4),
    });
}

#[test]
fn foreign_routers_reflect() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::reflection(Frr, Bird, GoBgp, Over::V4),
        Bird => checks::reflection(Bird, GoBgp, Frr, Over::V6),
        _ => checks::reflection(GoBgp, Frr, Bird, Over::V4),
    });
}

#[test]
#[ignore = "by hand: two foreign routers do not always keep each other's routes; nothing of ours is in it"]
fn foreign_pairs_restart() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::restart(Frr, Bird, Over::V4),
        Bird => checks::restart(Bird, Frr, Over::V6),
        _ => checks::restart(Bird, GoBgp, Over::V4),
    });
}

#[test]
fn foreign_pairs_give_up_waiting() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::no_return(Frr, GoBgp, Over::V4),
        Bird => checks::no_return(Bird, ExaBgp, Over::V4),
        _ => checks::no_return(GoBgp, Bird, Over::V4),
    });
}

#[test]
fn foreign_pairs_limit_prefixes() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::max_prefixes(Frr, Bird, Over::V4),
        Bird => checks::max_prefixes(Bird, Frr, Over::V4),
        _ => checks::max_prefixes(GoBgp, ExaBgp, Over::V4),
    });
}

#[test]
fn foreign_pairs_say_why_they_close() {
    each(&[Frr, Bird, GoBgp], |one| match one {
        Frr => checks::shutdown(Frr, Bird, Over::V4),
        Bird => checks::shutdown(Bird, GoBgp, Over::V4),
        _ => checks::shutdown(GoBgp, Frr, Over::V4),
    });
}

#[test]
fn foreign_pairs_have_ipv6_next_hops_for_ipv4() {
    each(&[Frr, GoBgp], |one| match one {
        Frr => checks::extended_next_hop(Frr, Bird),
        _ => checks::extended_next_hop(GoBgp, ExaBgp),
    });
}

#[test]
fn foreign_pairs_notice_who_stops() {
    each(&[Frr, GoBgp], |one| match one {
        Frr => checks::frozen(Frr, Bird, Over::V4),
        _ => checks::frozen(GoBgp, ExaBgp, Over::V6),
    });
}

//! The harness proved on implementations that are known to work with each other.

use lab::router::Software::{Bird, ExaBgp, Frr, GoBgp};

use crate::checks;
use crate::setup::Over;

#[test]
fn frr_and_bird_exchange_routes() {
    checks::exchange(Frr, Bird, Over::V4);
}

#[test]
fn frr_and_bird_exchange_routes_over_ipv6() {
    checks::exchange(Frr, Bird, Over::V6);
}

#[test]
fn gobgp_and_exabgp_exchange_routes() {
    checks::exchange(GoBgp, ExaBgp, Over::V4);
}

#[test]
fn gobgp_and_exabgp_exchange_routes_over_ipv6() {
    checks::exchange(GoBgp, ExaBgp, Over::V6);
}

//! Ways of packets on a real kernel; `ip route get` is the judge.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::net::IpAddr;

use common::{eventually, in_netns, run, sysctl};
use linux::netlink::Error;
use linux::route::lookup::{Asked, Way, Ways};
use linux::row::RouteKind;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A bridge with pods, an uplink with another node behind it, and a table that only pods look into.
fn node() {
    for line in [
        "ip link add br0 type bridge",
        "ip link add up0 type veth peer name far0",
        "ip addr add 10.244.1.1/24 dev br0",
        "ip addr add fd44:1::1/64 dev br0 nodad",
        "ip addr add 10.0.0.1/24 dev up0",
        "ip addr add fd00::1/64 dev up0 nodad",
        "ip link add in0 type veth peer name pod0",
        "ip link set in0 master br0 up",
        "ip link set pod0 up",
        "ip link set br0 up",
        "ip link set up0 up",
        "ip link set far0 up",
        "ip route add 10.244.2.0/24 via 10.0.0.2 dev up0",
        "ip -6 route add fd44:2::/64 via fd00::2 dev up0",
        "ip route add unreachable 10.244.3.0/24",
        "ip route add 10.0.0.2/32 dev br0 table 77",
        "ip rule add from 10.244.1.0/24 lookup 77",
    ] {
        run(&line.split(' ').collect::<Vec<_>>());
    }
    sysctl("net/ipv4/ip_forward", "1");
    sysctl("net/ipv6/conf/all/forwarding", "1");
    eventually("IPv6 routes", || run(&["ip", "-6", "route"]).contains("fd44:2::/64").then_some(()));
}

fn way(source: Option<&str>, destination: &str) -> Result<Way, Error> {
    let asked = Asked { destination: ip(destination), source: source.map(ip), forwarded: source.is_some() };
    Ways::open().expect("rtnetlink").of(&asked)
}

#[test]
fn ways_are_those_that_ip_route_get_tells() {
    in_netns(|| {
        node();
        for (source, destination) in [
            (None, "10.244.2.7"),
            (None, "fd44:2::7"),
            (None, "10.0.0.2"),
            (Some("10.244.1.9"), "10.244.2.7"),
            (Some("10.244.1.9"), "10.0.0.2"),
            (Some("fd44:1::9"), "fd44:2::7"),
            (None, "10.244.1.1"),
        ] {
            let found = way(source, destination).expect("a way");
            let mut command = vec!["ip", "-j", "route", "get", destination];
            if let Some(source) = source {
                command.extend(["from", source, "iif", "br0"]);
            }
            let said: serde_json::Value = serde_json::from_str(&run(&command)).expect("JSON");
            let said = said.get(0).expect("a route");
            let text = |key: &str| said.get(key).and_then(|value| value.as_str()).map(str::to_owned);
            let about = format!("{source:?} to {destination}: {found:?} against {said}");
            assert_eq!(found.via.map(|via| via.to_string()), text("gateway"), "{about}");
            assert_eq!(found.link.as_deref().map(str::to_owned), text("dev"), "{about}");
            assert_eq!(found.kind == RouteKind::Local, text("type").as_deref() == Some("local"), "{about}");
        }
        assert_eq!(way(Some("10.244.1.9"), "10.0.0.2").expect("a way").table, Some(77));
        assert_eq!(way(None, "10.0.0.2").expect("a way").table, Some(254));
    });
}

#[test]
fn what_the_kernel_would_not_send_has_its_reason() {
    in_netns(|| {
        node();
        let errno = |outcome: Result<Way, Error>| outcome.expect_err("no way").errno();
        assert_eq!(errno(way(None, "10.244.3.1")), Some(libc::EHOSTUNREACH));
        assert_eq!(errno(way(None, "192.0.2.1")), Some(libc::ENETUNREACH));
        sysctl("net/ipv4/ip_forward", "0");
        assert_eq!(
            errno(way(Some("10.244.1.9"), "10.244.2.7")),
            Some(libc::EHOSTUNREACH),
            "forwarding is off"
        );
    });
}

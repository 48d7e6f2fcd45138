//! The kernel's packet log: a rule made by `nft` logs real datagrams, and what is told of them is what was sent.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::{in_netns, run};
use linux::nflog::{Error, Logged, PacketLog};

const GROUP: u16 = 100;

/// Waits for one packet, with a bound.
fn next(log: &mut PacketLog) -> Logged {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let heard = log.listen(Duration::from_millis(100)).expect("the packet log");
        if let Some(logged) = heard.packets.into_iter().next() {
            return logged;
        }
        assert!(Instant::now() < deadline, "nothing was logged within 10 s");
    }
}

#[test]
fn what_a_rule_logs_is_told_at_once_with_its_ends() {
    in_netns(|| {
        run(&["ip", "addr", "add", "fd00:7::1/128", "dev", "lo", "nodad"]);
        run(&[
            "nft",
            "add table inet t; add chain inet t out { type filter hook output priority 0; }; \
             add rule inet t out udp dport 4711 log prefix \"in ABCDEFGHIJKLMNOP\" group 100",
        ]);
        let mut log = PacketLog::open(GROUP).expect("the packet log");
        assert!(log.listen(Duration::from_millis(1)).expect("quiet").packets.is_empty());
        for address in ["127.0.0.1", "fd00:7::1"] {
            let ip: IpAddr = address.parse().expect("an address");
            let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).expect("a socket");
            let from = socket.local_addr().expect("bound");
            // The quickest of several: other work may keep the processor from any one of them.
            let took = (0..5).map(|_| {
                let begun = Instant::now();
                socket.send_to(b"hello", SocketAddr::new(ip, 4711)).expect("sent");
                let Logged { prefix, packet } = next(&mut log);
                assert_eq!(prefix, "in ABCDEFGHIJKLMNOP");
                assert_eq!((packet.source, packet.destination, packet.protocol), (ip, ip, 17));
                assert_eq!(packet.ports, Some((from.port(), 4711)));
                begun.elapsed()
            });
            let quickest = took.min().expect("five");
            assert!(
                quickest < Duration::from_millis(900),
                "packets are collected for a second: {quickest:?}"
            );
        }
    });
}

#[test]
fn a_group_has_one_reader_and_is_free_again_after_it() {
    in_netns(|| {
        let first = PacketLog::open(GROUP).expect("the packet log");
        assert!(matches!(PacketLog::open(GROUP), Err(Error::Taken(GROUP))));
        PacketLog::open(GROUP + 1).expect("another group");
        drop(first);
        PacketLog::open(GROUP).expect("free again");
    });
}

use proptest::prelude::*;

use super::recorded::{self, bytes};
use super::*;
use crate::netlink::generic;
use crate::row::Name;

fn message(fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
    let mut message = generic::message(command::NEW_SERVICE, 1);
    fill(&mut message);
    message.finish().unwrap()
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn any_key() -> impl Strategy<Value = VirtualServerKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        (any_ip(), protocol, any::<u16>()).prop_map(|(ip, protocol, port)| VirtualServerKey::Address {
            ip,
            protocol,
            port
        }),
        (family, any::<u32>()).prop_map(|(family, mark)| VirtualServerKey::Mark { family, mark }),
    ]
}

fn any_server() -> impl Strategy<Value = VirtualServer> {
    let flags = prop::sample::select(vec![0u8, 0x08, 0x10, 0x18, 0x20, 0x38]);
    let scheduler = prop::sample::select(vec!["rr", "lc", "sh", "dh", "mh", "wrr", "sed"]);
    (scheduler, flags, any::<Option<u32>>()).prop_map(|(name, scheduler_flags, persistence)| VirtualServer {
        scheduler: Scheduler::named(name),
        scheduler_flags,
        persistence,
    })
}

fn any_real_server() -> impl Strategy<Value = RealServer> {
    let forwarding = prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::Local),
        Just(Forwarding::Tunnel),
        Just(Forwarding::DirectRoute)
    ];
    (any::<u32>(), forwarding).prop_map(|(weight, forwarding)| RealServer { weight, forwarding })
}

proptest! {
    #[test]
    fn a_virtual_server_reads_as_written(key in any_key(), server in any_server()) {
        let bytes = message(|message| put_service(message, &key, &server));
        let read = parse_service(&bytes).unwrap();
        prop_assert_eq!((read.key, read.server), (key, server));
    }

    #[test]
    fn a_real_server_reads_as_written(ip in any_ip(), port: u16, server in any_real_server()) {
        let bytes = message(|message| put_destination(message, ip, port, &server));
        let read = parse_destination(&bytes, Family::V4).unwrap();
        prop_assert_eq!((read.ip, read.port, read.server), (ip, port, Some(server)));
    }

    #[test]
    fn timeouts_read_as_written(tcp: u32, tcp_fin: u32, udp: u32) {
        let timeouts = IpvsTimeouts { tcp, tcp_fin, udp };
        prop_assert_eq!(parse_timeouts(&message(|message| put_timeouts(message, &timeouts))), timeouts);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_service(&bytes);
        let _ = parse_destination(&bytes, Family::V6);
        let _ = parse_timeouts(&bytes);
    }

    #[test]
    fn no_damage_panics(key in any_key(), server in any_server(), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut bytes = message(|message| put_service(message, &key, &server));
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let _ = parse_service(&bytes);
        let _ = parse_destination(&bytes, Family::V4);
    }
}

#[test]
fn every_truncation_of_a_record_is_no_record_or_the_whole() {
    let key = VirtualServerKey::Address { ip: [10, 0, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
    let server = VirtualServer { scheduler: Scheduler::Maglev, scheduler_flags: 0x18, persistence: Some(60) };
    let bytes = message(|message| put_service(message, &key, &server));
    for length in 0..bytes.len() {
        assert_eq!(parse_service(&bytes[..length]), None, "cut to {length} bytes");
    }
    assert_eq!(parse_service(&bytes).unwrap().server, server);
}

/// The kernel's own bits: `hashed` (2) and one-packet (4) are not ours, and a scheduler we have no name for is kept.
#[test]
fn foreign_flags_and_schedulers_read_without_harm() {
    let bytes = message(|message| {
        message.nest(top::SERVICE, |inner| {
            inner.put_u16(service::FAMILY, 2).put_u32(service::MARK, 9).put_str(service::SCHEDULER, "twos");
            inner.put(service::FLAGS, &[0x4e, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        });
    });
    let record = parse_service(&bytes).unwrap();
    let scheduler = Scheduler::Other(Name::from("twos"));
    assert_eq!(record.server, VirtualServer { scheduler, scheduler_flags: 0x08, persistence: None });
    assert_eq!(record.counters, Counters::default());
}

#[test]
fn records_that_cannot_be_ours_are_none() {
    let with = |family: u16, protocol: u16| {
        message(|message| {
            message.nest(top::SERVICE, |inner| {
                inner.put_u16(service::FAMILY, family).put_u16(service::PROTOCOL, protocol);
                inner.put(service::ADDRESS, &[1; 16]).put_be16(service::PORT, 1);
                inner.put_str(service::SCHEDULER, "rr").put(service::FLAGS, &[0; 8]);
            });
        })
    };
    assert!(parse_service(&with(2, 6)).is_some());
    assert_eq!(parse_service(&with(2, 51)), None, "AH is no transport protocol of ours");
    assert_eq!(parse_service(&with(2, 262)), None, "not TCP after losing its high byte");
    assert_eq!(parse_service(&with(7, 6)), None, "neither IPv4 nor IPv6");
}

/// Before Linux 3.18 a real server has no family of its own.
#[test]
fn a_real_server_without_a_family_has_its_services() {
    let bytes = message(|message| {
        message.nest(top::DEST, |inner| {
            inner.put(destination::ADDRESS, &[10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            inner.put_be16(destination::PORT, 8080).put_u32(destination::FORWARDING, 0x100);
            inner.put_u32(destination::WEIGHT, 1);
        });
    });
    let v4 = parse_destination(&bytes, Family::V4).unwrap();
    assert_eq!((v4.ip, v4.port), (IpAddr::from([10, 1, 2, 3]), 8080));
    assert_eq!(v4.server, Some(RealServer { weight: 1, forwarding: Forwarding::Masquerade }));
    let v6 = parse_destination(&bytes, Family::V6).unwrap();
    assert_eq!(v6.ip, "a01:203::".parse::<IpAddr>().unwrap());
}

#[test]
fn an_unknown_forwarding_method_keeps_its_connection_counts() {
    let bytes = message(|message| {
        message.nest(top::DEST, |inner| {
            inner.put_u16(destination::FAMILY, 2).put(destination::ADDRESS, &[1; 16]);
            inner.put_be16(destination::PORT, 1).put_u32(destination::FORWARDING, 4);
            inner.put_u32(destination::WEIGHT, 1);
            inner.put_u32(destination::ACTIVE, 3).put_u32(destination::INACTIVE, 5);
        });
    });
    let record = parse_destination(&bytes, Family::V4).unwrap();
    assert_eq!(record.server, None);
    assert_eq!(record.connections, ConnectionCount { active: 3, inactive: 5 });
}

#[test]
fn counters_are_taken_in_the_kernels_order() {
    let bytes = message(|message| {
        message.nest(top::SERVICE, |inner| {
            inner.put_u16(service::FAMILY, 10).put_u32(service::MARK, 1).put_str(service::SCHEDULER, "rr");
            inner.put(service::FLAGS, &[0; 8]);
            inner.nest(service::STATS64, |stats| {
                for kind in 1..=10u16 {
                    stats.put(kind, &(u64::from(kind) << 33).to_ne_bytes());
                }
            });
        });
    });
    let counters = parse_service(&bytes).unwrap().counters;
    assert_eq!(
        (counters.connections, counters.packets_in, counters.packets_out),
        (1 << 33, 2 << 33, 3 << 33)
    );
    assert_eq!((counters.bytes_in, counters.bytes_out), (4 << 33, 5 << 33));
    assert_eq!((counters.connections_per_second, counters.bytes_out_per_second), (6 << 33, 10 << 33));
}

#[test]
fn recorded_messages_of_linux_6_1_are_read() {
    let udp = parse_service(&bytes(recorded::UDP_SERVICE)).unwrap();
    let ip = [10, 0, 0, 1].into();
    assert_eq!(udp.key, VirtualServerKey::Address { ip, protocol: Protocol::Udp, port: 53 });
    let maglev =
        VirtualServer { scheduler: Scheduler::Maglev, scheduler_flags: 0x18, persistence: Some(10_800) };
    assert_eq!(udp.server, maglev);

    let mark = parse_service(&bytes(recorded::MARK_SERVICE)).unwrap();
    assert_eq!(mark.key, VirtualServerKey::Mark { family: Family::V6, mark: 5 });
    let hashed =
        VirtualServer { scheduler: Scheduler::DestinationHash, scheduler_flags: 0, persistence: None };
    assert_eq!(mark.server, hashed);

    let nat = parse_destination(&bytes(recorded::NAT_DESTINATION), Family::V4).unwrap();
    assert_eq!((nat.ip, nat.port), (IpAddr::from([10, 1, 0, 1]), 5300));
    assert_eq!(nat.server, Some(RealServer { weight: 7, forwarding: Forwarding::Masquerade }));

    // ipvsadm gives a tunnelled real server the port of its virtual server.
    let tunnel = parse_destination(&bytes(recorded::TUNNEL_DESTINATION), Family::V4).unwrap();
    assert_eq!((tunnel.ip, tunnel.port), ("fd00::1".parse().unwrap(), 53));
    assert_eq!(tunnel.server, Some(RealServer { weight: 7, forwarding: Forwarding::Tunnel }));

    let timeouts = IpvsTimeouts { tcp: 900, tcp_fin: 120, udp: 300 };
    assert_eq!(parse_timeouts(&bytes(recorded::TIMEOUTS)), timeouts);
}

#[test]
fn recorded_messages_cut_anywhere_are_no_record() {
    for recording in [recorded::UDP_SERVICE, recorded::MARK_SERVICE] {
        let whole = bytes(recording);
        for length in 0..whole.len() {
            assert_eq!(parse_service(&whole[..length]), None, "cut to {length} bytes");
        }
    }
    let whole = bytes(recorded::NAT_DESTINATION);
    for length in 0..whole.len() {
        assert_eq!(parse_destination(&whole[..length], Family::V4), None, "cut to {length} bytes");
    }
}

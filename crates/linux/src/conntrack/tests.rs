use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn matching(payload: &[u8], flows: &Flows) -> Option<Found> {
    parse_matching(payload, |sent, answered| flows.has(sent, answered))
}

fn wanted() -> Flows {
    Flows {
        destination: [10, 0, 0, 1].into(),
        protocol: Protocol::Udp,
        port: 53,
        reply_source: Some(([10, 1, 0, 1].into(), 5300)),
    }
}

fn put_ends(
    message: &mut MessageBuilder,
    kind: u16,
    protocol: Protocol,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
) {
    message.nest(kind, |ends| {
        ends.nest(tuple::IP, |ip| {
            let v4 = from.0.is_ipv4();
            ip.put_ip(if v4 { tuple::V4_SOURCE } else { tuple::V6_SOURCE }, from.0);
            ip.put_ip(if v4 { tuple::V4_DESTINATION } else { tuple::V6_DESTINATION }, to.0);
        });
        ends.nest(tuple::PROTO, |proto| {
            proto.put_u8(tuple::PROTO_NUMBER, protocol.number());
            proto.put_be16(tuple::SOURCE_PORT, from.1).put_be16(tuple::DESTINATION_PORT, to.1);
        });
    });
}

/// A flow as the kernel dumps it: the client at port 4000, answered by `backend`.
fn dumped(flows: &Flows, backend: (IpAddr, u16), zone: Option<u16>) -> Vec<u8> {
    let client = (IpAddr::from([10, 2, 0, 9]), 4000);
    let mut message = header(Family::of(&flows.destination), 0);
    put_ends(&mut message, flow::ORIGINAL, flows.protocol, client, (flows.destination, flows.port));
    put_ends(&mut message, flow::REPLY, flows.protocol, backend, client);
    message.put_be32(flow::ID, 0xfeed_beef);
    if let Some(zone) = zone {
        message.put_be16(flow::ZONE, zone);
    }
    message.finish().unwrap()
}

#[test]
fn only_the_flows_meant_match() {
    let flows = wanted();
    let ours = dumped(&flows, ([10, 1, 0, 1].into(), 5300), None);
    assert_eq!(matching(&ours, &flows).unwrap().id, Some(0xfeed_beef));
    let any_backend = Flows { reply_source: None, ..flows };
    assert!(matching(&ours, &any_backend).is_some());

    for other in [
        Flows { port: 54, ..flows },
        Flows { protocol: Protocol::Tcp, ..flows },
        Flows { destination: [10, 0, 0, 2].into(), ..flows },
        Flows { reply_source: Some(([10, 1, 0, 2].into(), 5300)), ..flows },
        Flows { reply_source: Some(([10, 1, 0, 1].into(), 5301)), ..flows },
    ] {
        assert_eq!(matching(&ours, &other), None, "{other:?}");
    }
    assert_eq!(matching(&dumped(&flows, ([10, 1, 0, 1].into(), 5300), Some(7)), &flows), None);
}

#[test]
fn a_flow_without_ports_is_passed_over() {
    let flows = wanted();
    let mut message = header(Family::of(&flows.destination), 0);
    for kind in [flow::ORIGINAL, flow::REPLY] {
        message.nest(kind, |ends| {
            ends.nest(tuple::IP, |ip| {
                ip.put_ip(tuple::V4_SOURCE, flows.destination)
                    .put_ip(tuple::V4_DESTINATION, flows.destination);
            });
            ends.nest(tuple::PROTO, |proto| {
                proto.put_u8(tuple::PROTO_NUMBER, 1);
            });
        });
    }
    assert_eq!(matching(&message.finish().unwrap(), &flows), None);
}

#[test]
fn an_ipv6_filter_names_no_address_flags() {
    let flags_of = |flows: &Flows| {
        let mut message = header(Family::of(&flows.destination), 0);
        put_filter(&mut message, flows);
        let bytes = message.finish().unwrap();
        let nest = Attributes::after(&bytes, HEADER).get(flow::FILTER).unwrap().nested();
        (nest.get(filter::ORIGINAL_FLAGS).unwrap().u32(), nest.get(filter::REPLY_FLAGS).unwrap().u32())
    };
    assert_eq!(flags_of(&wanted()), (Some(0b10_1010), Some(0b01_1001)));
    let v6 = Flows {
        destination: "fd00::1".parse().unwrap(),
        reply_source: Some(("fd00::2".parse().unwrap(), 5300)),
        ..wanted()
    };
    assert_eq!(flags_of(&v6), (Some(0b10_1000), Some(0b01_1000)));
    assert_eq!(flags_of(&Flows { reply_source: None, ..wanted() }), (Some(0b10_1010), Some(0)));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = matching(&bytes, &wanted());
    }

    #[test]
    fn no_damage_panics_or_matches_a_cut_flow(at: prop::sample::Index, byte: u8) {
        let whole = dumped(&wanted(), ([10, 1, 0, 1].into(), 5300), None);
        let at = at.index(whole.len());
        let mut bytes = whole.clone();
        bytes[at] = byte;
        let _ = matching(&bytes, &wanted());
        if let Some(found) = matching(&whole[..at], &wanted()) {
            prop_assert_eq!(found.original, matching(&whole, &wanted()).unwrap().original);
        }
    }
}

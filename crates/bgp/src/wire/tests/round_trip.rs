//! What is written is read back, and no message is longer than one may be.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::as_path::{AsPath, Segment, SegmentKind};
use crate::attributes::Attributes;

/// Reads an update back, its messages put together again.
fn read_back(update: &Update, codec: &Codec) -> Update {
    let mut whole: Option<Update> = None;
    for frame in frames(&encoded(update, codec)) {
        assert_eq!(frame.kind, Kind::Update);
        assert!(frame.body.len() + HEADER <= MESSAGE_MAX);
        let received = super::update::decode(&frame.body, codec).unwrap();
        assert_eq!(received.faults, []);
        for part in received.updates {
            match (&mut whole, part) {
                (None, part) => whole = Some(part),
                (
                    Some(Update::Reach { attributes, prefixes, .. }),
                    Update::Reach { attributes: more, prefixes: next, .. },
                ) => {
                    assert_eq!(*attributes, more);
                    prefixes.extend(next);
                }
                (Some(Update::Unreach { prefixes, .. }), Update::Unreach { prefixes: next, .. }) => {
                    prefixes.extend(next);
                }
                (whole, part) => panic!("{whole:?} and {part:?}"),
            }
        }
    }
    whole.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn updates(update in arbitrary::update(true)) {
        prop_assert_eq!(read_back(&update, &codec(true)), update);
    }

    #[test]
    fn updates_of_external_peers(update in arbitrary::update(false)) {
        prop_assert_eq!(read_back(&update, &codec(false)), update);
    }

    /// Numbers of four octets survive a speaker of two, sequences joined.
    #[test]
    fn updates_through_two_octets(update in arbitrary::update(true)) {
        let narrow = Codec { four_octet_asn: false, ..codec(true) };
        let back = read_back(&update, &narrow);
        if let (Update::Reach { attributes, .. }, Update::Reach { attributes: read, .. }) = (&update, &back) {
            prop_assert_eq!(read.as_path.to_string(), attributes.as_path.to_string());
            prop_assert_eq!(read.aggregator, attributes.aggregator);
        }
    }

    #[test]
    fn opens(open in arbitrary::open()) {
        let mut octets = Vec::new();
        open.encode(&mut octets);
        prop_assert_eq!(Open::decode(&frames(&octets)[0].body), Ok(open));
    }

    #[test]
    fn notifications(code: u8, subcode: u8, data in proptest::collection::vec(any::<u8>(), 0..4075)) {
        let notification = Notification { code, subcode, data };
        let mut octets = Vec::new();
        notification.encode(&mut octets);
        prop_assert_eq!(Notification::decode(&frames(&octets)[0].body), notification);
    }
}

#[test]
fn attributes_that_leave_no_room_are_an_error() {
    let mut attributes = Attributes::local(std::net::IpAddr::from([192, 0, 2, 1]));
    attributes.cluster_list = [[10, 0, 0, 1].into(); 1015].into();
    let prefixes = vec!["10.0.0.0/8".parse().unwrap()];
    let update = Update::Reach { family: Family::Ipv4Unicast, attributes: Arc::new(attributes), prefixes };
    let mut out = vec![1, 2, 3];
    assert!(matches!(encode_update(&update, &codec(true), &mut out), Err(EncodeError::TooLong(_))));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn next_hops_of_the_wrong_kind_are_an_error() {
    let reach = |family, next_hop: &str, prefix: &str| Update::Reach {
        family,
        attributes: Arc::new(Attributes::local(next_hop.parse::<std::net::IpAddr>().unwrap())),
        prefixes: vec![prefix.parse().unwrap()],
    };
    let plain = Codec { extended_next_hop: Families::NONE, ..codec(true) };
    let over_ipv6 = reach(Family::Ipv4Unicast, "2001:db8::1", "10.0.0.0/8");
    assert!(encode_update(&over_ipv6, &plain, &mut Vec::new()).is_err());
    assert!(encode_update(&over_ipv6, &codec(true), &mut Vec::new()).is_ok());
    let over_ipv4 = reach(Family::Ipv6Unicast, "192.0.2.1", "2001:db8::/32");
    assert!(encode_update(&over_ipv4, &codec(true), &mut Vec::new()).is_err());
}

/// An AS between that knows two octets only has put itself in front (RFC 6793 section 4.2.3).
#[test]
fn merges_what_an_old_speaker_passed_on() {
    let narrow = Codec { four_octet_asn: false, ..codec(false) };
    let attributes = |as4_path: &[u8]| {
        let mut block = vec![0x40, 1, 1, 0, 0x40, 2, 8, 2, 3, 0, 100, 0x5b, 0xa0, 0, 200];
        block.extend_from_slice(&[0x40, 3, 4, 192, 0, 2, 2]);
        block.extend_from_slice(as4_path);
        let mut body = vec![0, 0, 0, u8::try_from(block.len()).unwrap()];
        body.extend_from_slice(&block);
        body.extend_from_slice(&[8, 10]);
        let received = super::update::decode(&body, &narrow).unwrap();
        let Update::Reach { attributes, .. } = &received.updates[0] else { panic!("{received:?}") };
        attributes.as_path.clone()
    };
    let as4 = [0xc0, 17, 10, 2, 2, 0, 1, 0x11, 0x70, 0, 0, 0, 200];
    assert_eq!(attributes(&as4), AsPath::sequence([100, 70_000, 200]));
    // Longer than AS_PATH: somebody lost numbers, so it says nothing.
    let longer = [0xc0, 17, 18, 2, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
    assert_eq!(attributes(&longer), AsPath::sequence([100, 23_456, 200]));
    assert_eq!(attributes(&[]), AsPath::sequence([100, 23_456, 200]));
}

#[test]
fn confederation_segments_stay_at_home() {
    let mut attributes = Attributes::local(std::net::IpAddr::from([192, 0, 2, 1]));
    attributes.as_path = AsPath::new([
        Segment { kind: SegmentKind::ConfedSequence, asns: vec![65_100] },
        Segment { kind: SegmentKind::Sequence, asns: vec![1, 2] },
    ]);
    let prefixes = vec!["10.0.0.0/8".parse().unwrap()];
    let update = Update::Reach { family: Family::Ipv4Unicast, attributes: Arc::new(attributes), prefixes };
    let Update::Reach { attributes, .. } = read_back(&update, &codec(false)) else { panic!("not reachable") };
    assert_eq!(attributes.as_path, AsPath::sequence([1, 2]));
}

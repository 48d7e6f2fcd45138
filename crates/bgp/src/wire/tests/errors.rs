//! The table of RFC 7606: one malformed attribute in an otherwise good UPDATE, one outcome.

use std::net::IpAddr;

use ipnet::IpNet;

use super::*;
use crate::wire::notification::UpdateError;

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 2];
const PREFIX: &[u8] = &[24, 10, 1, 0];

fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let block = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&block);
    body.extend_from_slice(nlri);
    body
}

/// What an UPDATE of the three well-known attributes and these comes to.
fn with(attributes: &[&[u8]], internal: bool) -> Result<Received, Notification> {
    let all: Vec<&[u8]> = [ORIGIN, AS_PATH, NEXT_HOP].into_iter().chain(attributes.iter().copied()).collect();
    update::decode(&body(&[], &all, PREFIX), &codec(internal))
}

fn prefix() -> IpNet {
    "10.1.0.0/24".parse().unwrap()
}

fn is_announced(received: &Received) -> bool {
    matches!(received.updates.as_slice(), [Update::Reach { prefixes, .. }] if *prefixes == [prefix()])
}

fn is_withdrawn(received: &Received) -> bool {
    let withdrawn = Update::Unreach { family: Family::Ipv4Unicast, prefixes: vec![prefix()] };
    received.updates == [withdrawn]
}

/// Checks the outcome, and that only this attribute is named.
fn check(received: &Result<Received, Notification>, outcome: Outcome, code: u8, what: &str) {
    match (received, outcome) {
        (Err(_), Outcome::SessionReset) => {}
        (Ok(received), Outcome::TreatAsWithdraw) => {
            assert!(is_withdrawn(received), "{what}: {received:?}");
            assert_eq!(received.faults.len(), 1, "{what}: {received:?}");
            assert_eq!((received.faults[0].attribute, received.faults[0].outcome), (code, outcome), "{what}");
        }
        (Ok(received), Outcome::AttributeDiscard) => {
            assert!(is_announced(received), "{what}: {received:?}");
            assert_eq!(received.faults.len(), 1, "{what}: {received:?}");
            assert_eq!((received.faults[0].attribute, received.faults[0].outcome), (code, outcome), "{what}");
        }
        (other, _) => panic!("{what}: {other:?}"),
    }
}

#[test]
fn optional_attributes() {
    use Outcome::{AttributeDiscard, SessionReset, TreatAsWithdraw};
    for (attribute, outcome, what) in [
        (&[0x80, 4, 3, 0, 0, 1][..], TreatAsWithdraw, "MED of three octets"),
        (&[0x40, 4, 4, 0, 0, 0, 1], TreatAsWithdraw, "MED with the flags of a well-known one"),
        (&[0x40, 5, 2, 0, 1], TreatAsWithdraw, "LOCAL_PREF of two octets"),
        (&[0xc0, 5, 4, 0, 0, 0, 1], TreatAsWithdraw, "LOCAL_PREF that says it is optional"),
        (&[0x40, 6, 1, 0], AttributeDiscard, "ATOMIC_AGGREGATE with a value"),
        (&[0xc0, 7, 6, 0xfd, 0xe9, 10, 0, 0, 1], AttributeDiscard, "AGGREGATOR of six octets"),
        (&[0xc0, 7, 8, 0, 0, 0, 0, 10, 0, 0, 1], AttributeDiscard, "AGGREGATOR of AS 0"),
        (&[0xc0, 8, 0], TreatAsWithdraw, "no COMMUNITIES"),
        (&[0xc0, 8, 6, 0, 0, 0, 1, 0, 0], TreatAsWithdraw, "COMMUNITIES and a half"),
        (&[0x80, 9, 5, 10, 0, 0, 1, 0], TreatAsWithdraw, "ORIGINATOR_ID of five octets"),
        (&[0x80, 10, 0], TreatAsWithdraw, "no CLUSTER_LIST"),
        (&[0x80, 10, 3, 10, 0, 0], TreatAsWithdraw, "CLUSTER_LIST of three octets"),
        (&[0xc0, 16, 7, 0, 2, 0, 0, 0, 0, 0], TreatAsWithdraw, "extended community of seven octets"),
        (&[0xc0, 32, 11, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0], TreatAsWithdraw, "large community of eleven"),
        (&[0x80, 14, 3, 0, 2, 1], SessionReset, "MP_REACH_NLRI of three octets"),
        (&[0x80, 14, 5, 0, 2, 1, 4, 0], SessionReset, "MP_REACH_NLRI, next hop cut off"),
        (&[0x80, 15, 2, 0, 2], SessionReset, "MP_UNREACH_NLRI of two octets"),
        (&[0x80, 15, 5, 0, 2, 1, 129, 0], SessionReset, "MP_UNREACH_NLRI, prefix too long"),
        (&[0x40, 200, 0], SessionReset, "a well-known attribute nobody knows"),
    ] {
        check(&with(&[attribute], true), outcome, attribute[1], what);
    }
}

#[test]
fn well_known_attributes() {
    let others = |without: u8| {
        [ORIGIN, AS_PATH, NEXT_HOP].into_iter().filter(move |attribute| attribute[1] != without)
    };
    for (attribute, what) in [
        (&[0x40, 1, 1, 3][..], "ORIGIN of a kind there is not"),
        (&[0x40, 1, 2, 0, 0], "ORIGIN of two octets"),
        (&[0xc0, 1, 1, 0], "ORIGIN that says it is optional"),
        (&[0x40, 2, 6, 2, 0, 0, 0, 0, 1], "AS_PATH with an empty segment"),
        (&[0x40, 2, 6, 2, 2, 0, 0, 0, 1], "AS_PATH that ends in a segment"),
        (&[0x40, 2, 6, 9, 1, 0, 0, 0, 1], "AS_PATH with a segment of a kind there is not"),
        (&[0x40, 2, 6, 3, 1, 0, 0, 0, 1], "AS_PATH with a confederation, where there is none"),
        (&[0x40, 2, 6, 2, 1, 0, 0, 0, 0], "AS_PATH through AS 0"),
        (&[0x40, 2, 1, 2], "AS_PATH of one octet"),
        (&[0x40, 3, 5, 192, 0, 2, 2, 0], "NEXT_HOP of five octets"),
    ] {
        let code = attribute[1];
        let all: Vec<&[u8]> = std::iter::once(attribute).chain(others(code)).collect();
        let received = update::decode(&body(&[], &all, PREFIX), &codec(true));
        check(&received, Outcome::TreatAsWithdraw, code, what);
    }
    for code in 1..=3 {
        let all: Vec<&[u8]> = others(code).collect();
        let received = update::decode(&body(&[], &all, PREFIX), &codec(true));
        check(&received, Outcome::TreatAsWithdraw, code, "missing");
    }
}

#[test]
fn lists_that_do_not_add_up() {
    // The second attribute runs over the end of the list; the prefix behind the list is still found.
    let over = with(&[&[0x80, 4, 200, 0]], true).unwrap();
    assert!(is_withdrawn(&over));
    assert_eq!(over.faults[0].error, UpdateError::MalformedAttributeList);
    // Twice the same: the first counts. Twice prefixes: nobody knows which.
    let med = |value: u8| [0x80, 4, 4, 0, 0, 0, value];
    let twice = with(&[&med(1), &med(2)], true).unwrap();
    assert!(is_announced(&twice));
    assert!(matches!(&twice.updates[0], Update::Reach { attributes, .. } if attributes.med == Some(1)));
    let unreach: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    assert_eq!(with(&[unreach, unreach], true).unwrap_err().subcode, 1);
    // Lengths beyond the message.
    for body in [&[0, 5, 0, 0][..], &[0, 0, 0, 9, 1], &[0, 0, 0], &[]] {
        assert_eq!(update::decode(body, &codec(true)).unwrap_err().subcode, 1, "{body:?}");
    }
    // Prefixes that cannot be read.
    for nlri in [&[33, 10, 0, 0, 0, 0][..], &[24, 10, 1], &[32]] {
        let all = [ORIGIN, AS_PATH, NEXT_HOP];
        assert_eq!(update::decode(&body(&[], &all, nlri), &codec(true)).unwrap_err().subcode, 10);
        assert_eq!(update::decode(&body(nlri, &[], &[]), &codec(true)).unwrap_err().subcode, 10);
    }
}

#[test]
fn an_error_without_prefixes_cannot_be_borne() {
    let bad_origin: &[u8] = &[0x40, 1, 1, 7];
    let received = update::decode(&body(&[], &[bad_origin, AS_PATH], &[]), &codec(true));
    assert_eq!(received.unwrap_err().subcode, UpdateError::InvalidOrigin as u8);
    // Withdrawals in MP_UNREACH_NLRI alone need no other attribute.
    let unreach: &[u8] = &[0x80, 15, 6, 0, 2, 1, 16, 0x20, 1];
    let received = update::decode(&body(&[], &[unreach], &[]), &codec(true)).unwrap();
    assert!(matches!(received.updates.as_slice(), [Update::Unreach { family: Family::Ipv6Unicast, .. }]));
}

#[test]
fn external_peers_do_not_set_what_is_ours() {
    let received = with(&[&[0x40, 5, 4, 0, 0, 0, 9], &[0x80, 9, 1, 0], &[0x80, 10, 1, 0]], false).unwrap();
    assert_eq!(received.faults, []);
    let Update::Reach { attributes, .. } = &received.updates[0] else { panic!("{received:?}") };
    assert_eq!((attributes.local_pref, attributes.originator_id), (None, None));
}

#[test]
fn prefixes_of_other_families_are_passed_over() {
    let multicast: &[u8] = &[0x80, 14, 9, 0, 1, 2, 4, 192, 0, 2, 2, 0];
    assert!(is_announced(&with(&[multicast], true).unwrap()));
    let ipv6_only = Codec { families: [Family::Ipv6Unicast].into_iter().collect(), ..codec(true) };
    let received = update::decode(&body(PREFIX, &[ORIGIN, AS_PATH, NEXT_HOP], PREFIX), &ipv6_only).unwrap();
    assert_eq!(received.updates, []);
    // An IPv6 next hop for IPv4 is for those who agreed on it.
    let mut over_ipv6 = vec![0x80, 14, 25, 0, 1, 1, 16];
    over_ipv6.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 24, 10, 2, 0]);
    let all = [ORIGIN, AS_PATH, &over_ipv6];
    let received = update::decode(&body(&[], &all, &[]), &codec(true)).unwrap();
    let Update::Reach { attributes, .. } = &received.updates[0] else { panic!("{received:?}") };
    assert_eq!(attributes.next_hop.global, "2001:db8::1".parse::<IpAddr>().unwrap());
    let plain = Codec { extended_next_hop: Families::NONE, ..codec(true) };
    assert!(update::decode(&body(&[], &all, &[]), &plain).is_err());
}

#[test]
fn what_is_withdrawn_and_announced_at_once_is_announced() {
    let received = update::decode(&body(PREFIX, &[ORIGIN, AS_PATH, NEXT_HOP], PREFIX), &codec(true)).unwrap();
    assert!(matches!(received.updates.as_slice(), [Update::Unreach { .. }, Update::Reach { .. }]));
}

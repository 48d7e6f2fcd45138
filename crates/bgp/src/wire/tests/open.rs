//! OPEN, well and badly formed (RFC 4271 section 6.2, RFC 5492, RFC 9072).

use super::*;
use crate::wire::notification::OpenError;

/// The fixed part and the length of no parameters.
const PLAIN: [u8; 10] = [4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 0];

fn with_parameters(parameters: &[u8]) -> Vec<u8> {
    let mut body = PLAIN[..9].to_vec();
    body.push(u8::try_from(parameters.len()).unwrap());
    body.extend_from_slice(parameters);
    body
}

fn with_capabilities(capabilities: &[u8]) -> Open {
    let mut parameter = vec![2, u8::try_from(capabilities.len()).unwrap()];
    parameter.extend_from_slice(capabilities);
    Open::decode(&with_parameters(&parameter)).unwrap()
}

#[test]
fn one_without_capabilities_carries_ipv4() {
    let open = Open::decode(&PLAIN).unwrap();
    assert_eq!((open.asn, open.hold_time), (65_001, 90));
    let ipv4: Families = [Family::Ipv4Unicast].into_iter().collect();
    assert_eq!(open.capabilities, Capabilities { families: ipv4, ..Capabilities::default() });
}

#[test]
fn strange_capabilities_cost_nothing() {
    let open = with_capabilities(&[
        73, 3, 1, b'a', 0, // FQDN
        1, 4, 0, 1, 0, 1, // IPv4 unicast
        1, 4, 0x40, 4, 0, 71, // BGP-LS
        69, 4, 0, 1, 1, 3, // ADD-PATH
        // graceful restart: a family nobody knows between two that count
        64, 14, 0xc0, 120, 0, 1, 1, 0x80, 0x99, 0x99, 200, 0x80, 0, 2, 1, 0, 2, 1,
        9, // route refresh of a wrong length is as if it were not there
        65, 4, 0, 1, 0, 0, // four-octet number 65536
        6, 0, 200, 0, // extended message, and one that does not exist
    ]);
    assert_eq!(open.asn, 65_536);
    let can = &open.capabilities;
    assert!(can.four_octet_asn && !can.route_refresh && !can.enhanced_route_refresh);
    assert_eq!(can.families.iter().collect::<Vec<_>>(), [Family::Ipv4Unicast]);
    let restart = can.graceful_restart.unwrap();
    assert!(restart.restarting && restart.notification);
    assert_eq!(restart.restart_time, 120);
    assert_eq!(restart.families, Families::all());
    assert_eq!(restart.forwarding_kept.iter().collect::<Vec<_>>(), [Family::Ipv4Unicast]);
}

#[test]
fn errors_have_their_subcodes() {
    let change = |at: usize, value: u8| {
        let mut body = PLAIN.to_vec();
        body[at] = value;
        body
    };
    let mut no_asn = PLAIN.to_vec();
    no_asn[1..3].fill(0);
    let mut no_id = PLAIN.to_vec();
    no_id[5..9].fill(0);
    for (body, error, data) in [
        (change(0, 3), OpenError::UnsupportedVersion, vec![0, 4]),
        (change(4, 2), OpenError::UnacceptableHoldTime, vec![0, 2]),
        (no_asn, OpenError::BadPeerAs, vec![]),
        (no_id, OpenError::BadIdentifier, vec![0; 4]),
        (with_parameters(&[1, 1, 0]), OpenError::UnsupportedOptionalParameter, vec![1]),
        (with_parameters(&[2, 5, 1, 4]), OpenError::Unspecific, vec![]),
        (with_parameters(&[2, 3, 1, 4, 0]), OpenError::Unspecific, vec![]),
        (with_parameters(&[2]), OpenError::Unspecific, vec![]),
        (change(9, 7), OpenError::Unspecific, vec![]),
        (PLAIN[..9].to_vec(), OpenError::Unspecific, vec![]),
    ] {
        assert_eq!(Open::decode(&body), Err(Notification::with(error, data)), "{body:?}");
    }
}

#[test]
fn parameters_may_have_long_lengths() {
    let mut body = PLAIN[..9].to_vec();
    body.extend_from_slice(&[255, 255, 0, 9, 2, 0, 6, 1, 4, 0, 2, 0, 1]);
    let open = Open::decode(&body).unwrap();
    assert_eq!(open.capabilities.families.iter().collect::<Vec<_>>(), [Family::Ipv6Unicast]);
}

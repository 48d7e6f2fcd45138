//! Headers (RFC 4271 sections 4.1 and 6.1).

use super::*;

fn header(length: u16, kind: u8) -> Vec<u8> {
    let mut octets = MARKER.to_vec();
    octets.extend_from_slice(&length.to_be_bytes());
    octets.push(kind);
    octets
}

fn error(octets: &[u8]) -> Notification {
    let mut framer = Framer::default();
    framer.push(octets);
    framer.next_frame().unwrap_err()
}

#[test]
fn bad_headers_are_named_and_quoted() {
    let mut marker = header(19, 4);
    marker[7] = 0;
    assert_eq!(error(&marker), Notification::new(HeaderError::ConnectionNotSynchronized));
    for (length, kind) in [(18, 4), (4097, 2), (20, 4), (28, 1), (22, 2), (20, 3), (0, 4), (65_535, 2)] {
        let expected = Notification::with(HeaderError::BadMessageLength, u16::to_be_bytes(length));
        assert_eq!(error(&header(length, kind)), expected, "length {length} type {kind}");
    }
    for kind in [0, 6, 255] {
        assert_eq!(error(&header(19, kind)), Notification::with(HeaderError::BadMessageType, [kind]));
    }
}

#[test]
fn never_holds_more_than_a_message_and_what_was_just_given() {
    let mut framer = Framer::default();
    let mut stream = Vec::new();
    for _ in 0..1000 {
        encode_keepalive(&mut stream);
    }
    let mut seen = 0;
    for chunk in stream.chunks(700) {
        framer.push(chunk);
        while framer.next_frame().unwrap().is_some() {
            seen += 1;
        }
        assert!(framer.waiting() < HEADER, "{}", framer.waiting());
    }
    assert_eq!(seen, 1000);
    // A message that never ends: the header is judged at once, so 4,096 octets are all that can gather.
    framer.push(&header(4096, 2));
    while framer.next_frame().unwrap().is_none() {
        framer.push(&[0; 100]);
        assert!(framer.waiting() < MESSAGE_MAX + 100);
    }
}

#[test]
fn refresh_lengths_and_subtypes() {
    let family = Family::Ipv6Unicast;
    for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
        let refresh = Refresh { family, kind };
        let mut octets = Vec::new();
        refresh.encode(&mut octets);
        assert_eq!(Refresh::decode(&frames(&octets)[0].body, true), Ok(Some(refresh)));
    }
    // Marks mean nothing to who did not agree on them; strange families and subtypes are ignored.
    let plain = Refresh { family, kind: RefreshKind::Request };
    assert_eq!(Refresh::decode(&[0, 2, 1, 1], false), Ok(Some(plain)));
    assert_eq!(Refresh::decode(&[0, 2, 9, 1], true), Ok(None));
    assert_eq!(Refresh::decode(&[0, 25, 0, 65], true), Ok(None));
    let long = Refresh::decode(&[0, 2, 1, 1, 0], true).unwrap_err();
    assert_eq!((long.code, long.subcode, long.data.len()), (7, 1, 24));
    let long = Refresh::decode(&[0, 2, 0, 1, 0], true).unwrap_err();
    assert_eq!((long.code, long.subcode), (1, 2));
}

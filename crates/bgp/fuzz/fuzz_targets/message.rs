//! Octets as messages: nothing panics, and what is understood is written and read back as the same.
#![no_main]

use bgp::Families;
use bgp::wire::{Codec, Framer, Kind, Notification, Open, Refresh, encode_update, update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let mut framer = Framer::default();
    framer.push(octets);
    while let Ok(Some(frame)) = framer.next_frame() {
        match frame.kind {
            Kind::Open => {
                if let Ok(open) = Open::decode(&frame.body) {
                    let mut again = Vec::new();
                    open.encode(&mut again);
                    // One that names strange families only cannot be written: it would say IPv4 by saying nothing.
                    if !open.capabilities.families.is_empty() {
                        assert_eq!(Open::decode(&again[19..]), Ok(open));
                    }
                }
            }
            Kind::Update => {
                for (internal, four_octet_asn) in [(true, true), (true, false), (false, true), (false, false)] {
                    let families = Families::all();
                    let codec = Codec { four_octet_asn, internal, families, extended_next_hop: families };
                    if let Ok(received) = update::decode(&frame.body, &codec) {
                        for update in &received.updates {
                            let _ = encode_update(update, &codec, &mut Vec::new());
                        }
                    }
                }
            }
            Kind::Notification => drop(Notification::decode(&frame.body).to_string()),
            Kind::RouteRefresh => drop(Refresh::decode(&frame.body, true)),
            Kind::Keepalive => {}
        }
    }
});

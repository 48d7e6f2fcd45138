//! The wire, held to the RFCs' tables, to itself (what is written is read back) and to hostile octets.

mod arbitrary;
mod corpus;
mod errors;
mod frames;
mod open;
mod round_trip;

use super::*;
use crate::family::Family;
use crate::update::Update;

/// A session between speakers of four-octet numbers, both families, all next hops.
fn codec(internal: bool) -> Codec {
    Codec {
        four_octet_asn: true,
        internal,
        families: Families::all(),
        extended_next_hop: [Family::Ipv4Unicast].into_iter().collect(),
    }
}

/// Cuts octets into messages, all of them whole.
fn frames(octets: &[u8]) -> Vec<Frame> {
    let mut framer = Framer::default();
    framer.push(octets);
    let mut frames = Vec::new();
    while let Some(frame) = framer.next_frame().unwrap() {
        frames.push(frame);
    }
    assert_eq!(framer.waiting(), 0);
    frames
}

fn encoded(update: &Update, codec: &Codec) -> Vec<u8> {
    let mut octets = Vec::new();
    encode_update(update, codec, &mut octets).unwrap();
    octets
}

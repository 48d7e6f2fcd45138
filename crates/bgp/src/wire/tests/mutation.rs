//! Valid messages with octets changed, added and taken away: nothing panics, nothing grows, and what is understood can be
//! written again. `crates/bgp/fuzz` does the same for as long as one likes.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// How many mutations `cargo test` tries.
const ROUNDS: usize = 60_000;

/// Valid messages of every kind.
fn seeds(runner: &mut TestRunner) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for _ in 0..40 {
        let open = arbitrary::open().new_tree(runner).unwrap().current();
        let mut octets = Vec::new();
        open.encode(&mut octets);
        seeds.push(octets);
        for internal in [true, false] {
            let update = arbitrary::update(internal).new_tree(runner).unwrap().current();
            let first = encoded(&update, &codec(internal));
            // The first of its messages: mutations of long lists of prefixes find nothing new.
            let length = usize::from(u16::from_be_bytes([first[16], first[17]]));
            seeds.push(first[..length].to_vec());
        }
    }
    for kind in [RefreshKind::Request, RefreshKind::Begin] {
        let mut octets = Vec::new();
        Refresh { family: Family::Ipv6Unicast, kind }.encode(&mut octets);
        Notification::with_text(notification::Cease::AdministrativeShutdown, "bye").encode(&mut octets);
        encode_keepalive(&mut octets);
        seeds.push(octets);
    }
    seeds
}

fn mutate(octets: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..6) {
        if octets.is_empty() {
            return;
        }
        let at = random.usize(..octets.len());
        match random.u8(..6) {
            0 => octets[at] = random.u8(..),
            1 => octets[at] ^= 1 << random.u8(..8),
            2 => drop(octets.remove(at)),
            3 => octets.insert(at, random.u8(..)),
            4 => octets.truncate(at),
            _ => octets[at] = *random.choice([0, 1, 4, 0x40, 0x80, 0xff].iter()).unwrap(),
        }
    }
    // Otherwise most would end at the length.
    if octets.len() > HEADER && octets.len() <= MESSAGE_MAX && random.u8(..4) != 0 {
        let length = u16::try_from(octets.len()).unwrap();
        octets[..16].fill(0xff);
        octets[16..18].copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads octets as a session would, under every agreement there can be. Says how many messages were understood.
fn read(octets: &[u8]) -> usize {
    let mut framer = Framer::default();
    framer.push(octets);
    let mut understood = 0;
    while let Ok(Some(frame)) = framer.next_frame() {
        match frame.kind {
            Kind::Open => {
                if let Ok(open) = Open::decode(&frame.body) {
                    let mut again = Vec::new();
                    open.encode(&mut again);
                    // One that names strange families only cannot be written: it would say IPv4 by saying nothing.
                    if !open.capabilities.families.is_empty() {
                        assert_eq!(Open::decode(&frames(&again)[0].body), Ok(open));
                    }
                    understood += 1;
                }
            }
            Kind::Update => {
                for internal in [true, false] {
                    for four_octet_asn in [true, false] {
                        let codec = Codec { four_octet_asn, ..codec(internal) };
                        if let Ok(received) = update::decode(&frame.body, &codec) {
                            for update in &received.updates {
                                // Attributes from a full message can be too long beside a prefix; no more than that.
                                let _ = encode_update(update, &codec, &mut Vec::new());
                            }
                            understood += 1;
                        }
                    }
                }
            }
            Kind::Notification => drop(format!("{:?}", Notification::decode(&frame.body))),
            Kind::RouteRefresh => understood += usize::from(Refresh::decode(&frame.body, true).is_ok()),
            Kind::Keepalive => {}
        }
    }
    assert!(framer.waiting() <= octets.len());
    understood
}

#[test]
fn survives_mutations() {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let seeds = seeds(&mut runner);
    let mut random = fastrand::Rng::with_seed(4271);
    let mut understood = 0;
    for round in 0..ROUNDS {
        let mut octets = seeds[round % seeds.len()].clone();
        mutate(&mut octets, &mut random);
        understood += read(&octets);
    }
    // If nearly all were refused, nothing behind the first checks would have been tried.
    assert!(understood > ROUNDS / 4, "only {understood} were understood");
}

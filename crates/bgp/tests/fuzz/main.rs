//! Octets of strangers: the corpus of `crates/bgp/fuzz` mutated, on any compiler, within bounds that suit a test run.
//!
//! A million cases in all by default; `KUBE_ROUTER_FUZZ_CASES` asks for another number and `KUBE_ROUTER_FUZZ_SEED` for
//! other mutations. A case that fails is printed in hexadecimal, so that it can become a test or a file of the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

mod mutation;
#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code, unreachable_pub)]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use mutation::mutate;

/// Cases of all targets together.
const CASES: usize = 1_000_000;

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// The files of one target, in a fixed order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The first mutation that a target does not survive, if there is one among so many, and what all targets' returns add
/// up to.
fn hunt(
    seeds: &[Vec<u8>],
    cases: usize,
    seed: u64,
    target: impl Fn(&[u8]) -> usize,
) -> (Option<Vec<u8>>, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut reached = 0;
    for case in 0..cases {
        let mut octets = seeds[case % seeds.len()].clone();
        // Each seed as it is, first.
        if case >= seeds.len() {
            mutate(&mut octets, seeds, &mut random);
        }
        match catch_unwind(AssertUnwindSafe(|| target(&octets))) {
            Ok(count) => reached += count,
            Err(_) => return (Some(octets), reached),
        }
    }
    (None, reached)
}

/// `share` of a hundred cases go to this target; at least so many of a hundred have to get through.
fn survives(name: &str, seeds: &[Vec<u8>], share: usize, through: usize, target: fn(&[u8]) -> usize) {
    let cases = number("KUBE_ROUTER_FUZZ_CASES", CASES) * share / 100;
    let seed = number("KUBE_ROUTER_FUZZ_SEED", 4271) as u64;
    let start = std::time::Instant::now();
    let (failed, reached) = hunt(seeds, cases, seed, target);
    if let Some(octets) = failed {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        panic!("{name} does not survive {hex}");
    }
    let rate = cases as f64 / start.elapsed().as_secs_f64() * 60.0 / 1e6;
    println!("{name}: {cases} cases, {reached} got through, {rate:.1} million a minute");
    // If nearly all were refused, nothing behind the first checks would have been tried.
    assert!(reached * 100 >= cases * through, "{name}: only {reached} of {cases} got through");
}

#[test]
fn messages() {
    survives("message", &corpus("message"), 60, 25, targets::message);
}

#[test]
fn sessions() {
    survives("session", &corpus("session"), 20, 10, targets::session);
}

#[test]
fn speakers() {
    survives("speaker", &corpus("message"), 20, 3, targets::speaker);
}

/// The hunt finds what hides behind several checks: defects planted where only a mutation of a valid message comes.
#[test]
fn planted_defects_are_found() {
    let with_faults = |octets: &[u8], planted: &dyn Fn(&bgp::wire::Fault) -> bool| {
        let mut framer = bgp::wire::Framer::default();
        framer.push(octets);
        while let Ok(Some(frame)) = framer.next_frame() {
            let families = bgp::Families::all();
            let codec = bgp::wire::Codec {
                four_octet_asn: false,
                internal: true,
                families,
                extended_next_hop: families,
            };
            if frame.kind == bgp::wire::Kind::Update
                && let Ok(received) = bgp::wire::update::decode(&frame.body, &codec)
            {
                assert!(!received.faults.iter().any(planted), "planted");
            }
        }
        0
    };
    // In an otherwise good message: a CLUSTER_LIST of a bad length; an AS4_PATH that is bad or
    // comes twice; an AGGREGATOR of a bad length.
    for (what, code, withdraw) in
        [("cluster list", 10, true), ("second path", 17, false), ("aggregator", 7, false)]
    {
        let target = |octets: &[u8]| {
            with_faults(octets, &|fault| {
                let outcome = match withdraw {
                    true => bgp::wire::Outcome::TreatAsWithdraw,
                    false => bgp::wire::Outcome::AttributeDiscard,
                };
                fault.attribute == code && fault.outcome == outcome
            })
        };
        let (found, _) = hunt(&corpus("message"), 500_000, 1, target);
        assert!(found.is_some(), "{what}: not found");
    }
}

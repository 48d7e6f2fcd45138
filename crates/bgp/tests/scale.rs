//! Large tables and many clients: memory for each path, and that effort does not explode.
//!
//! One test, since it measures the resident memory of its process. Times are bounded generously, for unoptimised
//! builds on busy machines; the bench `tables` measures.

#[path = "../benches/tables/load.rs"]
mod load;

use std::time::Instant;

use load::{Load, resident};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[test]
fn large_tables() {
    // The first tables, thrown away, show the allocator's own need.
    drop(Load::new(2, 10_000, true));

    for (what, peers, prefixes, shared, budget) in [
        ("ten peers tell the same", 10, 20_000, true, 200),
        ("one peer tells a full table", 1, 300_000, false, 200),
    ] {
        let before = resident();
        let mut load = Load::new(peers, prefixes, shared);
        load.announce_all();
        let heard = load.hear_all();
        let each = (resident() - before) / (peers * prefixes);
        assert_eq!(load.speaker.path_count(), peers * prefixes);
        assert_eq!(heard, prefixes, "{what}: the observer hears of each prefix once");
        assert!(each <= budget, "{what}: {each} octets for each path");

        load.lose(1);
        load.withdraw_all();
        load.hear_all();
        assert_eq!((load.speaker.path_count(), load.speaker.destination_count()), (0, 0), "{what}");
    }

    let start = Instant::now();
    let (told, _) = load::reflect(200, 3);
    assert_eq!(told, 200 * 199 * 3);
    println!("{:?} for 200 clients", start.elapsed());
}

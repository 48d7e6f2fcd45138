//! How long tables of Internet size take, and what they weigh: `cargo bench -p bgp --bench tables`.
//! In one process and one thread, without sockets and wire. `quick` as an argument takes a tenth of the
//! size.

mod load;

use std::time::Instant;

use load::{Load, resident};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo test --benches` runs this, too; then it only has to be shown that it works.
    let arguments: Vec<String> = std::env::args().collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let divisor = match (has("--bench"), has("quick")) {
        (false, _) => 1000,
        (true, true) => 10,
        (true, false) => 1,
    };
    println!(
        "{:44} {:>10} {:>9} {:>8} {:>9} {:>9}",
        "tables", "paths", "learn", "B/path", "churn", "withdraw"
    );
    tables("10 peers, the same 100,000 prefixes", 10, 100_000 / divisor, true);
    tables("10 peers, 100,000 other prefixes each", 10, 100_000 / divisor, false);
    tables("1 peer, 1,000,000 prefixes", 1, 1_000_000 / divisor, false);
    println!("{:44} {:>10} {:>9}", "reflection", "told", "time");
    for clients in [1000, 5000] {
        let clients = clients / if divisor > 10 { 50 } else { 1 };
        let start = Instant::now();
        let told = load::reflect(clients, 3);
        println!("{:44} {told:>10} {:>7.2} s", format!("{clients} clients, 3 prefixes each"), seconds(start));
    }
}

/// Learns, replaces and withdraws tables, with an observer who hears everything.
fn tables(what: &str, peers: usize, prefixes: usize, shared: bool) {
    let before = resident();
    let mut load = Load::new(peers, prefixes, shared);
    let start = Instant::now();
    load.announce_all();
    load.hear_all();
    let learn = seconds(start);
    let paths = load.speaker.path_count();
    let weight = resident().saturating_sub(before) / paths.max(1);
    let start = Instant::now();
    load.announce_longer(1);
    load.hear_all();
    let churn = seconds(start);
    let start = Instant::now();
    load.lose(1);
    load.withdraw_all();
    load.hear_all();
    println!("{what:44} {paths:>10} {learn:>7.2} s {weight:>8} {churn:>7.2} s {:>7.2} s", seconds(start));
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

//! How long tables of Internet size and clusters of thousands of nodes take, and what they weigh:
//! `cargo bench -p bgp --bench tables`. In one thread, without sockets and wire; each case in a process of its own, so that
//! none uses memory that another has left. `quick` as an argument takes a tenth of the size.

mod load;

use std::time::Instant;

use load::{Load, resident};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A line of the table, made for a divisor of its sizes.
type Case = fn(usize) -> String;

const CASES: [Case; 8] = [
    |divisor| tables("10 peers, the same 100,000 prefixes", 10, 100_000 / divisor, true),
    |divisor| tables("10 peers, 100,000 other prefixes each", 10, 100_000 / divisor, false),
    |divisor| tables("1 peer, 1,000,000 prefixes", 1, 1_000_000 / divisor, false),
    |divisor| reflection(1_000, divisor),
    |divisor| reflection(5_000, divisor),
    |divisor| node("a node in a full mesh of 1,000", divisor, |divisor| load::meshed(1_000 / divisor, 3)),
    |divisor| node("a node in a full mesh of 5,000", divisor, |divisor| load::meshed(5_000 / divisor, 3)),
    |divisor| {
        node("a node of 5,000 below two reflectors", divisor, |divisor| load::client(5_000 / divisor, 3))
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    // `cargo test --benches` runs this, too; then it only has to be shown that it works.
    let divisor = match (has("--bench"), has("quick")) {
        (false, _) => 1000,
        (true, true) => 10,
        (true, false) => 1,
    };
    let chosen = arguments.iter().find_map(|argument| argument.strip_prefix("case=")?.parse::<usize>().ok());
    if let Some(case) = chosen.and_then(|number| CASES.get(number)) {
        println!("{}", case(divisor));
        return;
    }
    println!(
        "{:44} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "tables", "paths", "learn", "B/path", "churn", "withdraw"
    );
    for number in 0..CASES.len() {
        by_itself(&arguments, number);
    }
}

/// Runs a case in a process of its own.
#[allow(
    clippy::disallowed_methods,
    reason = "a bench, not the agent; only a new process has not used memory yet"
)]
fn by_itself(arguments: &[String], number: usize) {
    let Some((program, given)) = arguments.split_first() else { return };
    let status = std::process::Command::new(program).args(given).arg(format!("case={number}")).status();
    match status {
        Ok(status) if status.success() => {}
        other => {
            eprintln!("case {number}: {other:?}");
            std::process::exit(1);
        }
    }
}

/// Learns, replaces and withdraws tables, with an observer who hears everything.
fn tables(what: &str, peers: usize, prefixes: usize, shared: bool) -> String {
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
    format!("{what:44} {paths:>10} {learn:>7.2} s {weight:>9} {churn:>7.2} s {:>7.2} s", seconds(start))
}

/// A reflector: its clients come up, tell, and hear each other's prefixes.
fn reflection(clients: usize, divisor: usize) -> String {
    let clients = (clients / divisor).max(2) as u32;
    let (before, start) = (resident(), Instant::now());
    let (told, speaker) = load::reflect(clients, 3);
    let (time, grown) = (seconds(start), resident().saturating_sub(before));
    let paths = speaker.path_count();
    let what = format!("a reflector of {clients} clients, 3 prefixes each");
    format!("{what:44} {paths:>10} {time:>7.2} s {:>9}   {told} prefixes told", grown / paths.max(1))
}

/// A node of a large cluster, from nothing to knowing everybody.
fn node(what: &str, divisor: usize, make: impl Fn(u32) -> bgp::Speaker) -> String {
    let (before, start) = (resident(), Instant::now());
    let mut speaker = make(divisor as u32);
    while speaker.next_event().is_some() {}
    let (time, grown) = (seconds(start), resident().saturating_sub(before));
    let paths = speaker.path_count();
    format!("{what:44} {paths:>10} {time:>7.2} s {:>9}   {} KiB in all", grown / paths.max(1), grown / 1024)
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

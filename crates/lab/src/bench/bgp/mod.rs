//! BGP: our speaker beside BIRD and GoBGP, from the same senders, over TCP between namespaces.
//!
//! Decided here: the sizes, the order, and what is held to what. Speakers take turns, one at a time, several times over;
//! of each figure the best one counts, since what else the machine does can only make it worse. Nothing goes into the
//! kernel's routing table, and nobody logs routes.
//!
//! | file | has |
//! |---|---|
//! | `message` | the octets |
//! | `table` | who tells what, and how an observer knows the outcome |
//! | `session` | a peer made of octets |
//! | `subject` | a speaker as a process |
//! | `race`, `reflection` | the measurements side by side |
//! | `route` | the agent: from an UPDATE to the kernel's route |
//! | `nodes` | agents of two nodes: a deleted route, a node that comes |

mod message;
mod nodes;
mod race;
mod reflection;
mod route;
mod session;
mod subject;
mod table;

use std::time::Duration;

use super::report::{Line, mebibytes, seconds};
use super::{Error, Lab};
use crate::router::Software;
use race::{Taken, Times};
use reflection::{Clients, Reflected};
use subject::Wire;
use table::Tables;

/// Ours first: the others are what it is held to.
const SPEAKERS: [Software; 3] = [Software::Speaker, Software::Bird, Software::GoBgp];
/// Octets a path may take.
const WEIGHT: u64 = 200;
/// How long a thousand clients may take to hear of each other.
const REFLECTION: Duration = Duration::from_secs(5);

/// Sizes of a run.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    shared: Tables,
    full: Tables,
    clients: Clients,
    /// Routes of the agent, one at a time.
    routes: u32,
    /// How often a route of an agent is deleted.
    deletions: usize,
    /// How often a node comes.
    arrivals: usize,
    /// How often every speaker's turn comes.
    rounds: usize,
}

impl Sizes {
    pub(super) fn of(quick: bool) -> Sizes {
        let scale = if quick { 20 } else { 1 };
        Sizes {
            shared: Tables { peers: 10, prefixes: 100_000 / scale },
            full: Tables { peers: 1, prefixes: 1_000_000 / scale },
            clients: Clients { count: if quick { 100 } else { 1_000 }, prefixes: 3 },
            routes: if quick { 100 } else { 1_000 },
            deletions: if quick { 20 } else { 200 },
            arrivals: if quick { 3 } else { 20 },
            rounds: if quick { 1 } else { 3 },
        }
    }
}

/// Measures everything.
pub(super) fn measure(lab: &Lab<'_>, sizes: &Sizes) -> Result<Vec<Line>, Error> {
    let wire = Wire::new(sizes.clients.count)?;
    let mut lines = Vec::new();
    for tables in [sizes.shared, sizes.full] {
        let what = match tables.peers {
            1 => format!("BGP, one peer with {} prefixes", tables.prefixes),
            peers => format!("BGP, {peers} peers with the same {} prefixes", tables.prefixes),
        };
        let times =
            turns(lab, sizes, &what, Times::least, |software| race::run(lab, &wire, software, tables))?;
        lines.extend(tables_lines(&what, &times));
    }
    let Clients { count, prefixes } = sizes.clients;
    let what = format!("BGP, {count} reflector clients with {prefixes} prefixes each");
    let times = turns(lab, sizes, &what, Reflected::least, |software| {
        reflection::run(lab, &wire, software, sizes.clients)
    })?;
    lines.extend(reflection_lines(&what, &times));
    lines.extend(route::measure(lab, sizes.routes)?);
    lines.extend(nodes::measure(lab, sizes.deletions, sizes.arrivals)?);
    Ok(lines)
}

/// What each speaker did at best, in the order of [`SPEAKERS`]; none for GoBGP if it was not done within its time, which
/// is no reason to tell nothing of the others.
type Best<T> = [Option<T>; 3];

/// Lets the speakers take turns. GoBGP has one: it takes its time, and nothing is held to it.
fn turns<T: Copy>(
    lab: &Lab<'_>,
    sizes: &Sizes,
    what: &str,
    least: impl Fn(T, T) -> T,
    run: impl Fn(Software) -> Result<T, Error>,
) -> Result<Best<T>, Error> {
    let mut all = [None; 3];
    for round in 1..=sizes.rounds {
        for (software, best) in SPEAKERS.into_iter().zip(&mut all) {
            if software == Software::GoBgp && round > 1 {
                continue;
            }
            lab.say(format!("{what}: {software}, run {round} of {}", sizes.rounds));
            match run(software) {
                Ok(times) => *best = Some(best.map_or(times, |best| least(best, times))),
                Err(error @ Error::TooLate { .. }) if software == Software::GoBgp => {
                    lab.say(format!("{error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all)
}

/// What one phase took.
type Phase = fn(&Times) -> Taken;

fn tables_lines(what: &str, times: &Best<Times>) -> Vec<Line> {
    let mut lines = Vec::new();
    let parts: [(&str, Phase); 3] = [
        ("told", |times| times.converge),
        ("each path replaced", |times| times.churn),
        ("withdrawn", |times| times.withdraw),
    ];
    for (name, part) in parts {
        let [ours, bird, _] = times.each_ref().map(|times| times.as_ref().map(|times| part(times).clock));
        let limit = format!("<= {} s (BIRD)", seconds(bird.unwrap_or_default()));
        let clock = side_by_side(times, |times| seconds(part(times).clock));
        lines.push(Line::gate(format!("{what}: {name}, s"), clock, limit, ours.is_some() && ours <= bird));
        let processor = side_by_side(times, |times| seconds(part(times).processor));
        lines.push(Line::plain(format!("{what}: {name}, processor s"), processor));
    }
    let [ours, ..] = times;
    let holds = ours.is_some_and(|ours| ours.weight <= WEIGHT);
    let weights = side_by_side(times, |times| times.weight.to_string());
    lines.push(Line::gate(
        format!("{what}: memory for each path, B"),
        weights,
        format!("<= {WEIGHT} B"),
        holds,
    ));
    lines
}

fn reflection_lines(what: &str, times: &Best<Reflected>) -> Vec<Line> {
    let [ours, ..] = times;
    let holds = ours.is_some_and(|ours| ours.taken.clock < REFLECTION);
    let clock = side_by_side(times, |times| seconds(times.taken.clock));
    let limit = format!("< {} s", REFLECTION.as_secs());
    vec![
        Line::gate(format!("{what}: all have heard all, s"), clock, limit, holds),
        Line::plain(
            format!("{what}: processor s"),
            side_by_side(times, |times| seconds(times.taken.processor)),
        ),
        Line::plain(
            format!("{what}: growth, MiB"),
            side_by_side(times, |times| mebibytes(times.growth / 1024)),
        ),
    ]
}

fn side_by_side<T>(all: &Best<T>, show: impl Fn(&T) -> String) -> String {
    let [ours, bird, gobgp] =
        all.each_ref().map(|one| one.as_ref().map_or_else(|| "not in time".to_owned(), &show));
    format!("{ours}; BIRD {bird}, GoBGP {gobgp}")
}

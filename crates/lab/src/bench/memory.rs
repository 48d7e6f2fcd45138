//! Resident memory: with nothing to do, and with much.

use std::time::Duration;

use super::agent::{Agent, Memory};
use super::report::{Line, mebibytes};
use super::world::World;
use super::{Error, Lab};

/// Most anonymous memory, in KiB.
const ANONYMOUS: u64 = 100 * 1024;
/// The most that was ever resident, in terms of what is resident in the end.
const PEAK: u64 = 2;

/// Reads memory `settle` after the last row: with no Service, then with `services` of `endpoints` endpoints.
pub(super) fn measure(
    lab: &Lab<'_>,
    services: usize,
    endpoints: usize,
    settle: Duration,
) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for (services, endpoints) in [(0, 0), (services, endpoints)] {
        lab.say(format!("memory: {services} services x {endpoints} endpoints"));
        let memory = after(lab, services, endpoints, settle)?;
        let what = |text: &str| format!("memory, {services} services x {endpoints}: {text}");
        if services == 0 {
            lines.extend(told(&what, memory));
        } else {
            lines.extend(judged(&what, memory, settle, ANONYMOUS));
        }
    }
    Ok(lines)
}

/// The lines about a reading that is held to nothing: where an agent has little to do, most of `VmHWM` is its own program.
pub(super) fn told(what: &dyn Fn(&str) -> String, memory: Memory) -> [Line; 2] {
    [Line::plain(what("RssAnon"), size(memory.anonymous)), Line::plain(what("VmHWM"), size(memory.peak))]
}

/// The lines about a reading `settle` after the last row; at most `most` KiB may be anonymous.
pub(super) fn judged(
    what: &dyn Fn(&str) -> String,
    Memory { anonymous, peak }: Memory,
    settle: Duration,
    most: u64,
) -> [Line; 2] {
    let limit = PEAK * anonymous;
    let text = format!("RssAnon {} s after the last row", settle.as_secs());
    [
        Line::gate(what(&text), size(anonymous), format!("<= {}", size(most)), anonymous <= most),
        Line::gate(
            what("VmHWM"),
            size(peak),
            format!("<= {} ({PEAK} x RssAnon)", size(limit)),
            peak <= limit,
        ),
    ]
}

fn size(kibibytes: u64) -> String {
    format!("{} MiB", mebibytes(kibibytes))
}

fn after(lab: &Lab<'_>, services: usize, endpoints: usize, settle: Duration) -> Result<Memory, Error> {
    let world = World::new(lab, services, endpoints)?;
    let mut agent = Agent::start(lab, &world)?;
    agent.ready()?;
    std::thread::sleep(settle);
    agent.memory()
}

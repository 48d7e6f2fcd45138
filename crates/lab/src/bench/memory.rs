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
        let Memory { anonymous, peak } = after(lab, services, endpoints, settle)?;
        let what = |text: &str| format!("memory, {services} services x {endpoints}: {text}");
        let (now, most) = (format!("{} MiB", mebibytes(anonymous)), format!("{} MiB", mebibytes(peak)));
        let limit = PEAK * anonymous;
        if services == 0 {
            lines.push(Line::plain(what("RssAnon"), now));
            lines.push(Line::plain(what("VmHWM"), most));
        } else {
            let text = format!("RssAnon {} s after the last row", settle.as_secs());
            let most_anonymous = format!("<= {} MiB", mebibytes(ANONYMOUS));
            lines.push(Line::gate(what(&text), now, most_anonymous, anonymous <= ANONYMOUS));
            let limit_text = format!("<= {} MiB ({PEAK} x RssAnon)", mebibytes(limit));
            lines.push(Line::gate(what("VmHWM"), most, limit_text, peak <= limit));
        }
    }
    Ok(lines)
}

fn after(lab: &Lab<'_>, services: usize, endpoints: usize, settle: Duration) -> Result<Memory, Error> {
    let world = World::new(lab, services, endpoints)?;
    let mut agent = Agent::start(lab, &world)?;
    agent.ready()?;
    std::thread::sleep(settle);
    agent.memory()
}

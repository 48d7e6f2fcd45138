//! One endpoint replaced: from the watch event to the row in the kernel, and what it costs in requests.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::ipvs::Connections;
use linux::row::{Protocol, VirtualServerKey};

use super::agent::Agent;
use super::report::{Line, milliseconds, percentile};
use super::trace::{Counts, Trace};
use super::world::World;
use super::{Error, Lab, objects};
use crate::api_server::{Handle, Resource};

/// Changes whose requests are counted, apart from those that are timed: counting is not free.
const COUNTED: usize = 20;
/// Most countings until none has an audit in it: audits are a minute apart.
const COUNTINGS: usize = 3;
/// Most kernel-writing requests for one change.
const REQUESTS: u64 = 3;
/// Most that the larger cluster may take, in terms of the smaller one.
const GROWTH: f64 = 1.5;
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at the kernel, so that looking does not take the processor from those looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Between two changes: a change is measured from rest.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Changed {
    pub(super) lines: Vec<Line>,
    pub(super) median: Duration,
}

/// Replaces one endpoint of one Service `changes` times, each time of another Service.
pub(super) fn measure(
    lab: &Lab<'_>,
    world: &World,
    agent: &Agent,
    endpoints: usize,
    changes: usize,
    smaller: Option<(usize, Duration)>,
) -> Result<Changed, Error> {
    let services = world.services;
    lab.say(format!("one change: {changes} changes at {services} services"));
    let chosen = spread(services, changes + COUNTED * COUNTINGS);
    let (timed, counted) = chosen.split_at(changes.min(chosen.len()));
    let mut latencies = replace(world, timed, endpoints)?;
    let counts = count(world, agent, endpoints, counted)?;
    latencies.sort();
    let (median, slowest) = (percentile(&latencies, 50), percentile(&latencies, 99));
    let what = |text: &str| format!("one endpoint replaced, {services} services: {text}");
    let limit = smaller.map(|(services, smaller)| {
        let most = smaller.mul_f64(GROWTH);
        (format!("<= {} ms ({GROWTH} x p50 at {services})", milliseconds(most)), median <= most)
    });
    let latency = format!("{} ms", milliseconds(median));
    let writes = counts.writes as f64 / COUNTED as f64;
    let lines = vec![
        match limit {
            Some((limit, holds)) => Line::gate(what("event to row, p50"), latency, limit, holds),
            None => Line::plain(what("event to row, p50"), latency),
        },
        Line::plain(what("event to row, p99"), format!("{} ms", milliseconds(slowest))),
        Line::gate(
            what("netlink requests that write, per change"),
            format!("{writes:.1}"),
            format!("<= {REQUESTS}"),
            counts.writes <= REQUESTS * COUNTED as u64,
        ),
        Line::gate(
            what(&format!("processes started by {COUNTED} changes")),
            counts.programs_text(),
            "0",
            counts.programs.is_empty(),
        ),
    ];
    Ok(Changed { lines, median })
}

/// What [`COUNTED`] changes cost. An audit in between reads everything and starts `iptables-save`, a change does neither:
/// when something was read, others are changed and counted anew.
fn count(world: &World, agent: &Agent, endpoints: usize, services: &[usize]) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    for services in services.chunks(COUNTED) {
        let trace = Trace::start()?;
        let threads = agent.threads()?;
        replace(world, services, endpoints)?;
        // The last change's other requests are behind its row; so is what only happens after a while.
        std::thread::sleep(Duration::from_secs(1));
        counts = trace.stop(agent.pid(), &threads)?;
        if counts.reads == 0 {
            break;
        }
    }
    Ok(counts)
}

/// `count` Services spread evenly over all of them.
fn spread(services: usize, count: usize) -> Vec<usize> {
    let step = (services / count.max(1)).max(1);
    (0..services).step_by(step).take(count).collect()
}

/// Replaces the last endpoint of each of these Services, one after the other; the time each took.
fn replace(world: &World, of: &[usize], endpoints: usize) -> Result<Vec<Duration>, Error> {
    let (handle, of) = (world.handle(), of.to_vec());
    let work = move || -> Result<Vec<Duration>, Error> {
        let mut kernel = Connections::open().map_err(|error| Error::Ipvs(error.to_string()))?;
        of.iter().map(|index| replace_one(&handle, &mut kernel, *index, endpoints)).collect()
    };
    match world.namespace.enter(work)?.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn replace_one(
    handle: &Handle,
    kernel: &mut Connections,
    index: usize,
    endpoints: usize,
) -> Result<Duration, Error> {
    std::thread::sleep(PAUSE);
    let newcomer = objects::endpoint_ip(index, 32 + endpoints);
    let stay = objects::endpoints(index, endpoints.saturating_sub(1));
    let slice = objects::slice(index, stay.chain([newcomer]));
    let server = VirtualServerKey::Address {
        ip: objects::cluster_ip(index),
        protocol: Protocol::Tcp,
        port: objects::PORT,
    };
    let wanted = [(server, newcomer, objects::TARGET_PORT)];
    let start = Instant::now();
    handle.update(Resource::EndpointSlices, slice)?;
    while !is_there(kernel, &wanted)? {
        if start.elapsed() > LIMIT {
            let what = format!("the new real server of service {index}");
            return Err(Error::TooLate { what, seconds: LIMIT.as_secs(), said: String::new() });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(start.elapsed())
}

fn is_there(kernel: &mut Connections, wanted: &[(VirtualServerKey, IpAddr, u16)]) -> Result<bool, Error> {
    let counts = kernel.of(wanted).map_err(|error| Error::Ipvs(error.to_string()))?;
    Ok(counts.iter().all(Option::is_some))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_is_chosen_twice() {
        for (services, count) in [(200, 160), (1_000, 260), (10_000, 260)] {
            let mut chosen = spread(services, count);
            assert_eq!(chosen.len(), count);
            chosen.dedup();
            assert_eq!(chosen.len(), count);
            assert!(chosen.iter().all(|index| *index < services));
        }
    }
}

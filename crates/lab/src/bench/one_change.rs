//! One endpoint replaced: from the watch event to the row in the kernel, and what it costs in requests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::ipvs::Connections;
use linux::row::{Protocol, VirtualServerKey};

use super::agent::Agent;
use super::report::{Line, milliseconds, percentile};
use super::trace::Trace;
use super::world::World;
use super::{Error, Lab, objects};
use crate::api_server::{Handle, Resource};

/// Changes whose requests are counted, apart from those that are timed: counting is not free.
const COUNTED: usize = 20;
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
    let timed = spread(services, changes, 0);
    let counted = spread(services, COUNTED, changes);
    let mut latencies = replace(world, timed, endpoints)?;
    let trace = Trace::start()?;
    let threads = agent.threads()?;
    replace(world, counted, endpoints)?;
    // The last change's other requests are behind its row; so is what only happens after a while.
    std::thread::sleep(Duration::from_secs(1));
    let counts = trace.stop(agent.pid(), &threads)?;
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

/// `count` Services spread over all, starting from the `skip`th.
fn spread(services: usize, count: usize, skip: usize) -> Vec<usize> {
    let step = (services / (count + skip + 1)).max(1);
    let chosen: BTreeSet<usize> = (skip..skip + count).map(|number| (number * step) % services.max(1)).collect();
    chosen.into_iter().collect()
}

/// Replaces the last endpoint of each of these Services, one after the other; the time each took.
fn replace(world: &World, of: Vec<usize>, endpoints: usize) -> Result<Vec<Duration>, Error> {
    let handle = world.handle();
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
    let server =
        VirtualServerKey::Address { ip: objects::cluster_ip(index), protocol: Protocol::Tcp, port: objects::PORT };
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
    fn timed_and_counted_services_are_different_ones() {
        let (timed, counted) = (spread(1000, 200, 0), spread(1000, 20, 200));
        assert_eq!((timed.len(), counted.len()), (200, 20));
        assert!(counted.iter().all(|index| !timed.contains(index)), "{counted:?}");
    }
}

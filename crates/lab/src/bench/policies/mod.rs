//! Network policy: cold start against the floor, one pod that becomes a peer, memory; with either packet filter.
//!
//! Decided here: what is measured and what it is held to. [`objects`] has the cluster, [`filter`] the floor. Needs no IPVS, so
//! it runs natively.

mod filter;
mod newcomers;
mod objects;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::memory;
use super::report::{Line, milliseconds, percentile, seconds};
use super::world::{World, get, wait_for};
use super::{Error, Lab};
use crate::api_server::Resource;
use crate::node::Namespace;
pub(super) use filter::Filter;

/// Held to: the median and the 99th percentile of a change, and how much more the larger cluster may take.
const MEDIAN: Duration = Duration::from_millis(5);
const SLOWEST: Duration = Duration::from_millis(10);
const GROWTH: f64 = 1.5;
/// Requests that write, for one change.
const REQUESTS: f64 = 2.0;
/// Most anonymous memory in KiB, up to 2,000 policies and at 10,000.
const ANONYMOUS: u64 = 64 * 1024;
const ANONYMOUS_AT_MOST: u64 = 150 * 1024;
const LISTED: Duration = Duration::from_secs(20);
const METRICS: &str = "127.0.0.1:20241";

/// All of it, with one packet filter, at each size: policies and pods.
pub(super) fn measure(
    lab: &Lab<'_>,
    filter: Filter,
    sizes: [(usize, usize); 2],
    changes: usize,
    settle: Duration,
) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let mut smaller: Option<(usize, Duration)> = None;
    for (policies, pods) in sizes {
        let (world, mut agent) = start(lab, filter, policies, pods)?;
        let listed = first_list(&world)?;
        let took = agent.ready()? - listed;
        let what = |text: &str| described(filter, policies, pods, text);
        std::thread::sleep(settle);
        let resident = agent.memory()?;
        let (floor, parts) = filter.floor(&world.namespace)?;
        lines.push(Line::gate(
            what("cold start, first byte listed to last row"),
            format!("{} s", seconds(took)),
            format!("<= {} s ({parts})", seconds(floor)),
            took <= floor,
        ));
        let (mut times, writes) = newcomers::change(&world, filter, changes)?;
        times.sort_unstable();
        let median = percentile(&times, 50);
        lines.extend(changed(&what, &times, smaller));
        lines.push(Line::gate(
            what("requests that write, per change"),
            format!("{writes:.1}"),
            format!("<= {REQUESTS:.0}"),
            writes <= REQUESTS,
        ));
        lines.extend(match smaller {
            None => memory::told(&what, resident),
            Some(_) => memory::judged(&what, resident, settle, ANONYMOUS),
        });
        smaller = Some((policies, median));
    }
    Ok(lines)
}

/// Memory alone, in a cluster as large as they come.
pub(super) fn memory_at(
    lab: &Lab<'_>,
    filter: Filter,
    (policies, pods): (usize, usize),
    settle: Duration,
) -> Result<Vec<Line>, Error> {
    let (_world, mut agent) = start(lab, filter, policies, pods)?;
    agent.ready()?;
    std::thread::sleep(settle);
    let what = |text: &str| described(filter, policies, pods, text);
    Ok(memory::judged(&what, agent.memory()?, settle, ANONYMOUS_AT_MOST).into())
}

fn described(filter: Filter, policies: usize, pods: usize, text: &str) -> String {
    format!("{}, {policies} policies, {pods} pods: {text}", filter.name())
}

fn start(lab: &Lab<'_>, filter: Filter, policies: usize, pods: usize) -> Result<(World, Agent), Error> {
    let name = filter.name();
    lab.say(format!("{name}: {policies} policies, {pods} pods"));
    let world = world(lab, policies, pods)?;
    let flags = [
        "--run-service-proxy=false".to_owned(),
        "--run-firewall=true".to_owned(),
        "--run-router=false".to_owned(),
        format!("--firewall-backend={name}"),
        format!("--metrics-port={}", METRICS.rsplit(':').next().unwrap_or_default()),
    ];
    let agent = Agent::start_with(lab, &world, &flags)?;
    Ok((world, agent))
}

/// The lines about one more peer; `times` are sorted, `smaller` is the cluster before and its median.
fn changed(
    what: &dyn Fn(&str) -> String,
    times: &[Duration],
    smaller: Option<(usize, Duration)>,
) -> [Line; 2] {
    let figures = |time| format!("{} ms", milliseconds(time));
    let (median, slowest) = (percentile(times, 50), percentile(times, 99));
    let (limit, held) = match smaller {
        Some((before, time)) => {
            let limit = time.mul_f64(GROWTH).min(MEDIAN);
            let why = format!("{GROWTH} x p50 at {before}, {} at most", figures(MEDIAN));
            (limit, format!("<= {} ({why})", figures(limit)))
        }
        None => (MEDIAN, format!("<= {}", figures(MEDIAN))),
    };
    [
        Line::gate(what("one more peer, event to kernel, p50"), figures(median), held, median <= limit),
        Line::gate(
            what("one more peer, p99"),
            figures(slowest),
            format!("<= {}", figures(SLOWEST)),
            slowest <= SLOWEST,
        ),
    ]
}

/// A node on a link that leads nowhere, of a kind that every kernel has.
fn bare_node() -> Result<Arc<Namespace>, Error> {
    let namespace = Namespace::machine(objects::NODE)?;
    let address = objects::NODE_ADDRESS;
    namespace.ip(&format!(
        "link add eth0 type veth peer name far0\naddr add {address}/24 dev eth0\nlink set far0 up\nlink set eth0 up\n"
    ))?;
    Ok(Arc::new(namespace))
}

fn world(lab: &Lab<'_>, policies: usize, pods: usize) -> Result<World, Error> {
    let world = World::around(lab, bare_node()?, objects::NODE_ADDRESS.into(), objects::PODS_HERE)?;
    let handle = world.handle();
    for number in 0..objects::NAMESPACES {
        handle.create(Resource::Namespaces, objects::namespace(number))?;
    }
    for number in 0..pods {
        handle.create(Resource::Pods, objects::pod(number, pods))?;
    }
    for number in 0..policies {
        handle.create(Resource::NetworkPolicies, objects::policy(number))?;
    }
    // Writing every object's JSON once is the server's work.
    for path in ["/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies"] {
        get(&world.namespace, world.address, path)?;
    }
    world.faults().reset_requests();
    Ok(world)
}

fn first_list(world: &World) -> Result<Instant, Error> {
    let faults = world.faults();
    wait_for("the agent's first list", LISTED, Duration::from_millis(1), || {
        let wanted = |resource| matches!(resource, Resource::Pods | Resource::NetworkPolicies);
        let asked = faults.requests().into_keys().any(|(_, resource)| wanted(resource));
        Ok(asked.then(Instant::now))
    })
}

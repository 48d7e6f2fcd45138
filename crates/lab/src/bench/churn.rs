//! Connections through one Service while others come and go.
//!
//! Two pods of the node answer, a third asks by the ClusterIP. A control run first: the rate asked is the highest at
//! which this machine loses nothing by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::report::{Line, milliseconds};
use super::world::World;
use super::{Error, Lab, io, objects};
use crate::api_server::{ApiError, Handle, Resource};
use crate::node::{Fabric, Families, Node, Pod};
use crate::probe::{Probe, Protocol, Rate, Server};

/// Connections a second that are tried, the highest first.
const RATES: [u32; 5] = [200, 100, 50, 20, 5];
/// Services that change in a second.
const CHANGES: u32 = 100;
/// Length of a control run.
const CONTROL: Duration = Duration::from_secs(10);
/// A control run slower than this at p99 is no control: the machine falls behind by itself, and would lose by itself.
const CONTROL_P99: Duration = Duration::from_millis(500);
/// How long a connection may take: a slow one is not a lost one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Churns among `services` Services for `during`.
pub(super) fn measure(lab: &Lab<'_>, services: usize, during: Duration) -> Result<Vec<Line>, Error> {
    lab.say(format!("churn: {CHANGES} of {services} services a second for {} s", during.as_secs()));
    let fabric = Arc::new(Fabric::new(Families::V4, 1)?);
    let node = Arc::new(Node::new(&fabric, 0, 1)?);
    node.configure_cni(false)?;
    let pods =
        (0..3).map(|number| Pod::new(&node, &format!("pod-{number}"))).collect::<Result<Vec<_>, _>>()?;
    let [client, servers @ ..] = pods.as_slice() else {
        return Err(Error::Wrong("no pods".to_owned()));
    };
    let world = cluster(lab, &node, servers, services)?;
    let mut agent = Agent::start(lab, &world)?;
    agent.ready()?;
    let _listening = listen(lab, servers)?;
    let to = SocketAddr::new(objects::cluster_ip(services), objects::PORT);
    let probe = Probe::new("client", client.namespace()).patience(PATIENCE);
    let ask =
        |rate, time| lab.runtime.block_on(async { probe.rate(Protocol::Tcp, to, rate, time).finish().await });

    let mut control = None;
    for rate in RATES {
        lab.say(format!("churn: control run at {rate} connections a second"));
        let outcome = ask(rate, CONTROL.min(during));
        let in_time = outcome.percentile(99).is_some_and(|slowest| slowest <= CONTROL_P99);
        if outcome.failed.is_empty() && in_time {
            control = Some((rate, outcome));
            break;
        }
    }
    let (rate, control) = control.ok_or_else(|| {
        Error::Wrong("even the lowest rate is too high for this machine without churn".to_owned())
    })?;
    lab.say(format!("churn: {rate} connections a second, with churn"));
    let churning = Churning::start(world.handle(), services)?;
    let outcome = ask(rate, during);
    let changed = churning.stop()?;
    Ok(lines(rate, during, &control, &outcome, changed))
}

/// The lines of the table.
fn lines(rate: u32, during: Duration, control: &Rate, outcome: &Rate, changed: f64) -> Vec<Line> {
    let latency = |rate: &Rate| {
        let at = |percent| rate.percentile(percent).map_or_else(|| "?".to_owned(), milliseconds);
        format!("p50 {} ms, p99 {} ms", at(50), at(99))
    };
    let what = |text: &str| format!("probe at {rate}/s through a service: {text}");
    let failed = outcome.failed.first().map(|(at, failure)| format!(", first {failure} after {at:.1?}"));
    vec![
        Line::plain(
            what("control without churn"),
            format!("{} asked, {} lost; {}", control.asked, control.failed.len(), latency(control)),
        ),
        Line::gate(
            what(&format!("{} s with {changed:.0} services a second churning", during.as_secs())),
            format!(
                "{} asked, {} lost{}; {}",
                outcome.asked,
                outcome.failed.len(),
                failed.unwrap_or_default(),
                latency(outcome)
            ),
            "0 lost",
            outcome.failed.is_empty() && outcome.asked > 0,
        ),
    ]
}

/// The node's cluster: `services` to churn, and one more whose endpoints are these pods.
fn cluster(lab: &Lab<'_>, node: &Node, pods: &[Pod], services: usize) -> Result<World, Error> {
    let (addresses, ranges) = (node.addresses(), node.pod_ranges());
    let (Some(address), Some(range)) = (addresses.first(), ranges.first()) else {
        return Err(Error::Wrong("the node has no address".to_owned()));
    };
    let world = World::around(lab, Arc::clone(node.namespace()), *address, &range.to_string())?;
    let handle = world.handle();
    let endpoints = pods.iter().flat_map(|pod| pod.addresses().first());
    let endpoints = endpoints.map(|ip| SocketAddr::new(*ip, objects::TARGET_PORT));
    handle.create(Resource::Services, objects::service(services))?;
    handle.create(Resource::EndpointSlices, objects::slice_on(services, endpoints, objects::NODE))?;
    world.fill(services, 4)
}

fn listen(lab: &Lab<'_>, pods: &[Pod]) -> Result<Vec<Server>, Error> {
    let serve = |pod: &Pod| {
        let probe = Probe::new(pod.name(), pod.namespace());
        lab.runtime.block_on(async { probe.serve(Protocol::Tcp, objects::TARGET_PORT).await })
    };
    pods.iter().map(|pod| serve(pod).map_err(io(format!("listening in {}", pod.name())))).collect()
}

/// A thread that changes Services at a steady rate: of every three turns one replaces endpoints, one takes a Service
/// away, one brings it back.
struct Churning {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    started: Instant,
    thread: std::thread::JoinHandle<Result<(), ApiError>>,
}

impl Churning {
    fn start(handle: Handle, services: usize) -> Result<Churning, Error> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count, started) = (Arc::clone(&stop), Arc::clone(&done), Instant::now());
        let run = move || {
            let period = Duration::from_secs(1) / CHANGES;
            for turn in 0u32.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                change(&handle, turn as usize, services)?;
                count.fetch_add(1, Ordering::Relaxed);
                // Late turns are made up for: the rate is what is promised.
                let next = started + period * (turn + 1);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("churn".to_owned()).spawn(run);
        let thread = thread.map_err(io("starting the churn"))?;
        Ok(Churning { stop, done, started, thread })
    }

    /// Ends it; changes a second.
    fn stop(self) -> Result<f64, Error> {
        let rate = self.done.load(Ordering::Relaxed) as f64 / self.started.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(outcome) => outcome?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(rate)
    }
}

fn change(handle: &Handle, turn: usize, services: usize) -> Result<(), ApiError> {
    let (round, step) = (turn / 3, turn % 3);
    let index = (round * 7) % services;
    match step {
        0 => {
            let first = 32 * ((round / services.max(1) + 1) % 2);
            let endpoints = (first..first + 4).map(|endpoint| objects::endpoint_ip(index, endpoint));
            handle.update(Resource::EndpointSlices, objects::slice(index, endpoints)).map(drop)
        }
        1 => handle.delete(Resource::Services, Some("default"), &objects::service_name(index), None),
        _ => handle.create(Resource::Services, objects::service(index)).map(drop),
    }
}

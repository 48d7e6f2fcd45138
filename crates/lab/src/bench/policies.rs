//! Network policy: cold start against the floor, one pod that becomes a peer, memory; with either packet filter.
//!
//! Decided here: the cluster (2,000 policies, 20,000 pods, 100 of them on the node, at full size), and what the floor is:
//! the tools that do nothing else write the same final state into an empty node. Needs no IPVS, so it runs natively.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use linux::ipset::Sets;
use linux::netlink::OwnPorts;
use linux::nftables::Names;
use linux::nftables::monitor::Monitor;
use linux::row::Member;

use super::agent::Agent;
use super::policy_objects as objects;
use super::report::{Line, mebibytes, milliseconds, percentile, seconds};
use super::world::{World, get, wait_for};
use super::{Error, Lab};
use crate::api_server::Resource;
use crate::node::Namespace;
use crate::process::{command, run, run_with_input};

/// Held to: the median and the 99th percentile of a change, and how much more the larger cluster may take.
const MEDIAN: Duration = Duration::from_millis(5);
const SLOWEST: Duration = Duration::from_millis(10);
const GROWTH: f64 = 1.5;
/// Requests that write, for one change.
const REQUESTS: f64 = 2.0;
/// Most anonymous memory in KiB, and the peak in terms of what is there in the end.
const ANONYMOUS: u64 = 64 * 1024;
const PEAK: u64 = 2;
/// Between two changes: each is measured from rest.
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);
const METRICS: &str = "127.0.0.1:20241";

/// A tool, its arguments, and what it is given.
type Input = (&'static str, &'static [&'static str], String);

/// A packet filter, as the agent's flag has it, and as its own tools write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Iptables,
    Nftables,
}

impl Filter {
    pub(super) const ALL: [Filter; 2] = [Filter::Iptables, Filter::Nftables];

    fn name(self) -> &'static str {
        match self {
            Filter::Iptables => "iptables",
            Filter::Nftables => "nftables",
        }
    }

    /// The state of a node as input of the tools that write it, each with its arguments.
    fn dump(self, node: &Namespace) -> Result<Vec<Input>, Error> {
        const RESTORE: &[&str] = &["restore"];
        const NOTHING: &[&str] = &[];
        const FILE: &[&str] = &["-f", "-"];
        let output = |program: &'static str, args: &'static [&'static str]| {
            node.run(move || run(command(program).args(args)))
        };
        Ok(match self {
            Filter::Iptables => vec![
                ("ipset", RESTORE, output("ipset", &["save"])??),
                ("iptables-restore", NOTHING, output("iptables-save", NOTHING)??),
            ],
            Filter::Nftables => vec![("nft", FILE, output("nft", &["-s", "list", "ruleset"])??)],
        })
    }

    /// Writes the state into an empty node; the time it took, and each tool's part of it.
    fn floor(self, node: &Namespace) -> Result<(Duration, String), Error> {
        let state = self.dump(node)?;
        let empty = bare_node()?;
        let (mut sum, mut parts) = (Duration::ZERO, Vec::new());
        for (program, args, input) in state.clone() {
            let took = empty.run(move || -> Result<Duration, Error> {
                let start = Instant::now();
                run_with_input(command(program).args(args), &input)?;
                Ok(start.elapsed())
            })??;
            sum += took;
            parts.push(format!("{program} {}", seconds(took)));
        }
        let size = |state: &[Input]| -> Vec<usize> {
            state.iter().map(|(_, _, text)| text.split([',', '\n']).count()).collect()
        };
        let (written, wanted) = (size(&self.dump(&empty)?), size(&state));
        if written != wanted {
            return Err(Error::Wrong(format!("the floor wrote {written:?} lines, not {wanted:?}")));
        }
        Ok((sum, parts.join(" + ")))
    }
}

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
        let mut agent = Agent::start_with(lab, &world, &flags)?;
        let listed = first_list(&world)?;
        let took = agent.ready()? - listed;
        let what = |text: &str| format!("{name}, {policies} policies, {pods} pods: {text}");
        std::thread::sleep(settle);
        let memory = agent.memory()?;
        let (floor, parts) = filter.floor(&world.namespace)?;
        lines.push(Line::gate(
            what("cold start, first byte listed to last row"),
            format!("{} s", seconds(took)),
            format!("<= {} s ({parts})", seconds(floor)),
            took <= floor,
        ));
        let (mut times, writes) = change(&world, filter, changes)?;
        times.sort_unstable();
        let (median, slowest) = (percentile(&times, 50), percentile(&times, 99));
        let figures = |time| format!("{} ms", milliseconds(time));
        lines.push(match smaller {
            Some((before, time)) => {
                let limit = time.mul_f64(GROWTH).min(MEDIAN);
                let held = format!(
                    "<= {} ({GROWTH} x p50 at {before}, {} at most)",
                    figures(limit),
                    figures(MEDIAN)
                );
                Line::gate(
                    what("one more peer, event to kernel, p50"),
                    figures(median),
                    held,
                    median <= limit,
                )
            }
            None => {
                let held = format!("<= {}", figures(MEDIAN));
                Line::gate(
                    what("one more peer, event to kernel, p50"),
                    figures(median),
                    held,
                    median <= MEDIAN,
                )
            }
        });
        let held = format!("<= {}", figures(SLOWEST));
        lines.push(Line::gate(what("one more peer, p99"), figures(slowest), held, slowest <= SLOWEST));
        lines.push(Line::gate(
            what("requests that write, per change"),
            format!("{writes:.1}"),
            format!("<= {REQUESTS:.0}"),
            writes <= REQUESTS,
        ));
        lines.push(Line::gate(
            what(&format!("RssAnon {} s after the last row", settle.as_secs())),
            format!("{} MiB", mebibytes(memory.anonymous)),
            format!("<= {} MiB", mebibytes(ANONYMOUS)),
            memory.anonymous <= ANONYMOUS,
        ));
        let peak = PEAK * memory.anonymous;
        let held = format!("<= {} MiB ({PEAK} x RssAnon)", mebibytes(peak));
        lines.push(Line::gate(
            what("VmHWM"),
            format!("{} MiB", mebibytes(memory.peak)),
            held,
            memory.peak <= peak,
        ));
        smaller = Some((policies, median));
    }
    Ok(lines)
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
    wait_for("the agent's first list", LIMIT, Duration::from_millis(1), || {
        let wanted = |resource| matches!(resource, Resource::Pods | Resource::NetworkPolicies);
        let asked = faults.requests().into_keys().any(|(_, resource)| wanted(resource));
        Ok(asked.then(Instant::now))
    })
}

/// Adds pods that are peers of policies in force, one after the other: the time until the kernel knew each, and how many
/// requests that write were sent for one.
fn change(world: &World, filter: Filter, count: usize) -> Result<(Vec<Duration>, f64), Error> {
    // The first tells in which sets such a pod is.
    world.handle().create(Resource::Pods, objects::newcomer(0))?;
    std::thread::sleep(Duration::from_secs(2));
    let before = writes(world)?;
    let handle = world.handle();
    let work = move || -> Result<Vec<Duration>, Error> {
        let mut judge = Judge::new(filter)?;
        let mut times = Vec::with_capacity(count);
        for number in 1..=count {
            std::thread::sleep(PAUSE);
            judge.forget();
            let start = Instant::now();
            handle.create(Resource::Pods, objects::newcomer(number))?;
            times.push(judge.wait_for(number, start)? - start);
        }
        Ok(times)
    };
    let times = match world.namespace.enter(work)?.join() {
        Ok(outcome) => outcome?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    // What is sent for the last one is behind its row.
    std::thread::sleep(Duration::from_secs(1));
    Ok((times, (writes(world)? - before) / count as f64))
}

/// Requests that write so far, by the agent's own count.
fn writes(world: &World) -> Result<f64, Error> {
    let address = METRICS.parse().map_err(|_| Error::Wrong(format!("{METRICS} is no address")))?;
    let (_, text) = get(&world.namespace, address, "/metrics")?;
    let counted = text.lines().filter(|line| {
        line.starts_with("kube_router_netlink_requests_total{") && line.contains("kind=\"write\"")
    });
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Who says that the kernel knows a pod: ipset, looked at all the time, or nf_tables, which tells by itself.
enum Judge {
    Asks(Sets, String),
    IsTold { heard: mpsc::Receiver<Instant>, _monitor: Monitor },
}

impl Judge {
    fn new(filter: Filter) -> Result<Judge, Error> {
        let wrong = |error: linux::netlink::Error| Error::Wrong(error.to_string());
        match filter {
            Filter::Iptables => {
                let mut sets = Sets::open().map_err(wrong)?;
                let first = Member::Ip(objects::newcomer_ip(0).into());
                let mut holding: Vec<(u32, String)> = Vec::new();
                for set in sets.describe().map_err(wrong)? {
                    let name = linux::ipset::kernel_name(&set.key);
                    let Some((set, members)) = sets.members(&name).map_err(wrong)? else { continue };
                    holding.extend(members.contains(&first).then_some((set.count, name)));
                }
                let (_, name) = holding
                    .into_iter()
                    .min()
                    .ok_or_else(|| Error::Wrong("no set has the newcomer".to_owned()))?;
                Ok(Judge::Asks(sets, name))
            }
            Filter::Nftables => {
                let (told, heard) = mpsc::channel();
                let names = Names {
                    table_v4: "kube-router-filter-ipv4".into(),
                    table_v6: "kube-router-filter-ipv6".into(),
                    service_ports: "".into(),
                };
                // The receiver is gone only at the end.
                let each = move |_| {
                    let _ = told.send(Instant::now());
                };
                let monitor = Monitor::spawn(names, OwnPorts::default(), each).map_err(wrong)?;
                Ok(Judge::IsTold { heard, _monitor: monitor })
            }
        }
    }

    fn forget(&mut self) {
        if let Judge::IsTold { heard, .. } = self {
            while heard.try_recv().is_ok() {}
        }
    }

    fn wait_for(&mut self, number: usize, start: Instant) -> Result<Instant, Error> {
        let late = || Error::TooLate {
            what: format!("peer {number} in the kernel"),
            seconds: LIMIT.as_secs(),
            said: String::new(),
        };
        match self {
            Judge::IsTold { heard, .. } => heard.recv_timeout(LIMIT).map_err(|_| late()),
            Judge::Asks(sets, name) => {
                let member = Member::Ip(objects::newcomer_ip(number).into());
                while start.elapsed() < LIMIT {
                    let there = sets.members(name).map_err(|error| Error::Wrong(error.to_string()))?;
                    if there.is_some_and(|(_, members)| members.contains(&member)) {
                        return Ok(Instant::now());
                    }
                }
                Err(late())
            }
        }
    }
}

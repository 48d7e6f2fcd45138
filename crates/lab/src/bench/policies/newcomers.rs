//! Pods that become peers of policies in force, one after the other: how long until the kernel knows each.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use linux::ipset::Sets;
use linux::netlink::OwnPorts;
use linux::nftables::Names;
use linux::nftables::monitor::Monitor;
use linux::row::Member;

use super::{Filter, METRICS, objects};
use crate::api_server::Resource;
use crate::bench::Error;
use crate::bench::world::{World, get};

/// Between two changes: each is measured from rest.
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);

/// Adds pods that are peers of policies in force, one after the other: the time until the kernel knew each, and how many
/// requests that write were sent for one.
pub(super) fn change(world: &World, filter: Filter, count: usize) -> Result<(Vec<Duration>, f64), Error> {
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

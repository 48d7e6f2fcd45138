//! At rest: what an agent does when nothing happens.

use std::time::Duration;

use super::agent::Agent;
use super::report::Line;
use super::trace::Trace;
use super::world::World;
use super::{Error, Lab};

/// Until what a start leaves behind (first audits, retries, closing connections) is over.
const QUIET: Duration = Duration::from_secs(5);
/// `--ipvs-sync-period`: every so often everything is read again.
const AUDIT: Duration = Duration::from_secs(60);
/// Programs an audit may start: `iptables-save` once per family and table (filter, nat).
const PROGRAMS_PER_AUDIT: u64 = 4;

/// Watches an agent with `services` Services for `during`.
pub(super) fn measure(
    lab: &Lab<'_>,
    services: usize,
    endpoints: usize,
    during: Duration,
) -> Result<Vec<Line>, Error> {
    lab.say(format!("at rest: {} s at {services} services x {endpoints} endpoints", during.as_secs()));
    let world = World::new(lab, services, endpoints)?;
    let mut agent = Agent::start(lab, &world)?;
    agent.ready()?;
    std::thread::sleep(QUIET);
    let (switches, ticks) = (agent.context_switches()?, agent.cpu_ticks()?);
    let threads = agent.threads()?;
    let trace = Trace::start()?;
    std::thread::sleep(during);
    let counts = trace.stop(agent.pid(), &threads)?;
    let (switches, ticks) = (agent.context_switches()? - switches, agent.cpu_ticks()? - ticks);
    let time = during.as_secs();
    let what = |text: &str| format!("at rest for {time} s, {services} services: {text}");
    let audits = time.div_ceil(AUDIT.as_secs());
    let saves = |path: &str| path.ends_with("iptables-save") || path.ends_with("ip6tables-save");
    let programs: u64 = counts.programs.values().sum();
    let only_saves = counts.programs.keys().all(|path| saves(path) || path.contains("xtables"));
    Ok(vec![
        Line::gate(what("requests that write"), counts.writes.to_string(), "0", counts.writes == 0),
        Line::gate(
            what("processes started"),
            counts.programs_text(),
            format!("iptables-save, <= {} ({audits} audit)", PROGRAMS_PER_AUDIT * audits),
            only_saves && programs <= PROGRAMS_PER_AUDIT * audits,
        ),
        Line::plain(what("netlink requests that read (the audit)"), counts.reads.to_string()),
        Line::plain(what("system calls"), format!("{} ({})", counts.calls_total(), counts.calls_text(6))),
        Line::plain(what("context switches"), switches.to_string()),
        Line::plain(what("processor time"), format!("{} ms", ticks * 10)),
    ])
}

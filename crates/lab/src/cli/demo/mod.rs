//! `lab demo`: the main job in front of one's eyes. A cluster, the manifests of `examples/`, real connections, a table.
//!
//! Decided elsewhere, from the API server's objects alone: which connections are made and what is right ([`question`]),
//! what their outcomes mean ([`verdict`]), what is shown ([`table`]). Here is the order of the steps.

mod ask;
mod bgp;
mod kernel;
mod policy;
mod progress;
mod question;
mod state;
mod table;
mod verdict;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::probe::Protocol;

use self::progress::{Line, Progress};
use self::question::Question;
use self::state::State;
use self::table::Row;
use super::{Failure, up};

#[derive(Args)]
pub(super) struct Flags {
    /// Leave the cluster up with a shell in it
    #[arg(long)]
    keep: bool,
    /// Folder of manifests to apply
    #[arg(long, default_value = "examples")]
    examples: PathBuf,
    /// Stop the agent of this node before the manifests are applied, to see the demo fail
    #[arg(long, value_name = "NUMBER")]
    stop_agent: Option<usize>,
    /// More flags of every agent
    #[arg(last = true)]
    agent_flags: Vec<String>,
}

/// What the agents are started with besides `--master`, `--hostname-override` and what they are told of the router.
const AGENT_FLAGS: [&str; 6] = [
    "--enable-ipv6",
    "--run-router=true",
    "--run-firewall=true",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--service-external-ip-range=203.0.113.0/24,2001:db8:113::/48",
    "--loadbalancer-ip-range=198.51.100.0/24,fd98::/112",
];
/// The port the outside host serves, for the example of a service without selector.
const OUTSIDE_PORT: u16 = 5432;
/// Reasons printed; the first ones explain most of the others.
const REASONS: usize = 12;
/// For agents and pods to get ready.
const STARTING: Duration = Duration::from_secs(180);
/// For a change to reach every kernel.
const PROGRAMMING: Duration = Duration::from_secs(120);

/// Every step says what it does while it does it. A step that cannot be done ends the demo with its reason; connections
/// that do not hold are shown with all others.
pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let progress = Progress::new();
    let agent_flags: Vec<String> = AGENT_FLAGS
        .map(str::to_owned)
        .into_iter()
        .chain(bgp::agent_flags())
        .chain(flags.agent_flags)
        .collect();
    let builder = Cluster::builder().nodes(3).families(Families::Dual).route_pods(false);
    let builder = builder.agent_flags(agent_flags.clone());
    let mut cluster = progress.step("an API server, three nodes (namespaces), IPv4 and IPv6", |_| {
        Ok((runtime.block_on(builder.start())?, String::new()))
    })?;
    let held = progress.step("kube-router on each node", |_| {
        runtime.block_on(cluster.agents_ready(STARTING))?;
        Ok(((), "ready; their flags besides --master:".to_owned()))
    });
    eprintln!("           {}", agent_flags.join(" "));
    let held = held.and_then(|()| {
        if let Some(agent) = flags.stop_agent.and_then(|number| cluster.take_agent(number)) {
            agent.kill();
        }
        show(&cluster, &flags.examples, &progress, &runtime)
    });
    let held = held.unwrap_or_else(|error| {
        println!("\nThe demo stopped: {error}");
        false
    });
    if !held {
        save_logs(&mut cluster);
    }
    println!(
        "{} in {:.0} s.",
        if held { "Everything held" } else { "NOT everything held" },
        progress.elapsed().as_secs_f32()
    );
    if flags.keep {
        up::shell(&cluster, None)?;
    }
    Ok(u8::from(!held))
}

/// Applies, connects, prints; says whether all held.
fn show(
    cluster: &Cluster,
    examples: &Path,
    progress: &Progress,
    runtime: &tokio::runtime::Runtime,
) -> Result<bool, Failure> {
    progress.step(&format!("kubectl apply -f {}", examples.display()), |_| {
        let said = cluster.kubectl(["apply".as_ref(), "-f".as_ref(), examples.as_os_str()])?;
        Ok(((), format!("{} objects", said.lines().count())))
    })?;
    let router = progress
        .step("a router outside of the cluster (FRR), which peers with the nodes by BGP", |_| {
            Ok((bgp::start(cluster)?, String::new()))
        })?;
    let _outside = runtime.block_on(cluster.outside_probe().serve(Protocol::Tcp, OUTSIDE_PORT))?;
    progress.step("pods, wired by the CNI plugins bridge and host-local", |_| {
        let count = runtime.block_on(cluster.pods_ready(STARTING))?;
        Ok(((), format!("{count} ready")))
    })?;
    let state = State::of(cluster);
    let questions = question::all(&state);
    if questions.is_empty() {
        return Err(format!("{} has no service that could be asked", examples.display()).into());
    }
    progress.step("routes to the pods of other nodes, by BGP between the nodes", |line| {
        let count = runtime.block_on(bgp::pods_routed(cluster, line))?;
        Ok(((), format!("{count} routes")))
    })?;
    cluster.outside().namespace().ip(&question::routes(&questions, &router.addresses()))?;
    let mut wrong = progress.step("services into IPVS of each node", |line| {
        let late = runtime.block_on(programmed(cluster, &questions, line));
        let outcome = if late.is_empty() { "complete" } else { "NOT complete" };
        Ok((late, outcome.to_owned()))
    })?;
    let expected = bgp::expected(&state);
    let unknown = progress.step("service addresses into the router, by BGP from each node", |line| {
        let late = runtime.block_on(bgp::learned(cluster, &router, &expected, line));
        let outcome =
            format!("{} addresses{}", expected.len(), if late.is_empty() { "" } else { ", NOT complete" });
        Ok((late, outcome))
    })?;
    wrong.extend(unknown);
    let rows = progress.step("connections, by every way in", |line| {
        let judged = runtime.block_on(ask::all(cluster, &state, &questions, line));
        let count: usize = judged.iter().map(|(question, _)| question.times).sum();
        let mut rows = table::rows(&state, &judged);
        rows.extend(runtime.block_on(ask::health_ports(cluster, &state)));
        rows.sort_by_key(|row| row.order);
        Ok((rows, format!("{count} made")))
    })?;
    println!("\n{}\n{}\n", table::render(&rows, progress::columns()), table::LEGEND);
    println!("{}\n{}\n", bgp::table(cluster, &expected, progress::columns()), bgp::LEGEND);
    if examples.join(policy::FOLDER).is_dir() {
        wrong.extend(policy::show(cluster, &state, examples, progress, runtime)?);
        println!();
    }
    let found: BTreeSet<String> = rows.into_iter().flat_map(|row: Row| row.wrong).collect();
    wrong.extend(found);
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(REASONS);
        wrong.truncate(REASONS);
        println!("What did not hold:\n  {}", wrong.join("\n  "));
        println!("{}", if more == 0 { String::new() } else { format!("  and {more} more, see ✘ above\n") });
    }
    Ok(wrong.is_empty())
}

/// Waits for every node's kernel; returns what still lacks when the time is up.
async fn programmed(cluster: &Cluster, questions: &[Question], line: &Line) -> Vec<String> {
    let look = || async {
        let lacking: Vec<String> = (1..=cluster.nodes().len())
            .filter_map(|number| kernel::lacking(cluster, number, questions))
            .collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => {
                line.say(lacking.join("; "));
                Err(lacking.join("\n  "))
            }
        }
    };
    match eventually(PROGRAMMING, look).await {
        Ok(()) => Vec::new(),
        Err(lab::cluster::Error::NotYet { what, limit }) => {
            vec![format!("after {} s: {what}", limit.as_secs())]
        }
        Err(error) => vec![error.to_string()],
    }
}

/// Where the agents' logs are kept when something did not hold: the cluster's own folder goes with it.
const LOGS: &str = ".cache/demo";

/// Keeps the logs, says where, which agents run no more, and what warnings the logs end with.
fn save_logs(cluster: &mut Cluster) {
    let _ = std::fs::create_dir_all(LOGS);
    for number in 1..=cluster.nodes().len() {
        let (Ok(log), Ok(node)) = (cluster.agent_log(number), cluster.node(number)) else { continue };
        let name = node.name().to_owned();
        let state = match cluster.agent(number).map(lab::cluster::Agent::ended) {
            None => "was stopped".to_owned(),
            Some(Some(status)) => format!("has ended with status {status}"),
            Some(None) => "runs".to_owned(),
        };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let kept = Path::new(LOGS).join(format!("{name}.log"));
        match std::fs::write(&kept, &text) {
            Ok(()) => println!("The agent of {name} {state}; its log: {}", kept.display()),
            Err(error) => println!("The agent of {name} {state}; its log ({}: {error}):", kept.display()),
        }
        let grave = |line: &&str| ["WARN", "ERROR", "Error:"].iter().any(|word| line.contains(word));
        let lines: Vec<&str> = text.lines().filter(grave).collect();
        lines.iter().skip(lines.len().saturating_sub(5)).for_each(|line| println!("    {line}"));
    }
}

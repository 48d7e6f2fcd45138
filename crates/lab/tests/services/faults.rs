//! The agent dies, the API server goes away or loses its memory: connections do not notice.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use lab::api_server::{Availability, Resource};
use lab::cluster::{Cluster, eventually};
use lab::probe::{Asking, ONCE, Probe, Protocol};
use lab::process;
use serde_json::json;

use crate::setup::{
    Cell, SOON, cluster, http, in_pod, log, metric, pod, programmed, reach, ready, service, snapshot, tool,
    web_cells,
};

/// Questions a second, each on a connection of its own.
const RATE: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn connections_do_not_notice() {
    let mut cluster = cluster(2, &[]).await;
    let web = service(&cluster, "web", "web", json!({}));
    for (name, node, app) in [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client")] {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1"]).await;
    let probe = in_pod(&cluster, "c-1").patience(ONCE);
    let cells = web_cells(&probe, &web);
    reach("before", &cells, &["web-1", "web-2"]).await;
    let other = Other::new(&cluster, &probe).await;
    let control = probe.rate(Protocol::Tcp, cells[0].2, RATE, Duration::from_secs(3)).finish().await;
    assert!(control.failed.is_empty(), "this machine cannot carry the probe: {control:?}");

    killed_and_started_again(&mut cluster, &probe, &cells).await;
    api_server_gone(&mut cluster, &probe, &cells, &other).await;
    api_server_hangs(&mut cluster, &probe, &cells, &other).await;
    watches_break(&cluster, &probe).await;
    stopped(&mut cluster, &cells).await;
}

/// Another service with the same pods behind it, whose endpoints change while the first one's connections go on: those to an
/// endpoint that goes would end with it, as `--ipvs-graceful-termination=false` has it.
struct Other {
    cells: Vec<Cell>,
}

impl Other {
    async fn new(cluster: &Cluster, probe: &Probe) -> Self {
        let selected = json!({ "spec": { "selector": { "app": null, "other": "yes" } } });
        let cells = web_cells(probe, &service(cluster, "other", "web", selected));
        for pod in ["web-1", "web-2"] {
            Self::selects(cluster, pod, true);
        }
        reach("the other service", &cells, &["web-1", "web-2"]).await;
        Self { cells }
    }

    fn selects(cluster: &Cluster, pod: &str, selected: bool) {
        let label = if selected { "yes" } else { "no" };
        let patch = json!({ "metadata": { "labels": { "other": label } } });
        cluster.api().patch(Resource::Pods, Some("default"), pod, &patch).unwrap();
    }

    /// One of its two endpoints goes.
    fn changes(&self, cluster: &Cluster) {
        Self::selects(cluster, "web-2", false);
    }

    /// What [`Self::changes`] did has been caught up with, and so is what comes after.
    async fn caught_up(&self, cluster: &Cluster, about: &str) {
        reach(about, &self.cells, &["web-1"]).await;
        Self::selects(cluster, "web-2", true);
        reach("and a change after", &self.cells, &["web-1", "web-2"]).await;
    }
}

fn ask(probe: &Probe, cells: &[Cell]) -> Vec<Asking> {
    cells.iter().map(|cell| probe.rate(cell.1, cell.2, RATE / 2, Duration::from_secs(300))).collect()
}

/// How many were asked, of each.
async fn none_failed(about: &str, asking: Vec<Asking>) -> Vec<u64> {
    let mut asked = Vec::new();
    for asking in asking {
        let rate = asking.stop_after(50).await;
        assert!(rate.asked >= 50, "{about}: {rate:?}");
        assert!(
            rate.failed.is_empty(),
            "{about}: {} of {}: {:?}",
            rate.failed.len(),
            rate.asked,
            rate.failed
        );
        asked.push(rate.asked.try_into().unwrap());
    }
    asked
}

async fn killed_and_started_again(cluster: &mut Cluster, probe: &Probe, cells: &[Cell]) {
    let before = snapshot(cluster, 1);
    let open = probe.talk(Protocol::Tcp, cells[0].2, Duration::from_millis(50)).await.unwrap();
    let connections = connections_of(cluster, cells[0].2);
    let asking = ask(probe, cells);
    let agent = cluster.take_agent(1).expect("it runs");
    agent.kill();
    assert_eq!(snapshot(cluster, 1), before, "kill -9 leaves everything");
    let writes = Overheard::all(cluster, 1);
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
    let asked = none_failed("kill -9 and start under the probe", asking).await;
    for heard in writes {
        heard.nothing();
    }
    let open = open.stop().await;
    assert!(open.broke.is_none(), "an open connection: {open:?}");
    assert_eq!(snapshot(cluster, 1), before, "a restart changes nothing");
    // Not written anew either: what is deleted and comes back counts from zero. A client that takes a port again which IPVS
    // still remembers is not counted again (`conn_reuse_mode`), hence half of what was before.
    let now = connections_of(cluster, cells[0].2);
    assert!(now >= connections / 2 + asked[0], "{connections}, {} more, and then {now}", asked[0]);
}

/// Connections that a virtual server has counted.
fn connections_of(cluster: &Cluster, virtual_server: SocketAddr) -> u64 {
    let stats = tool(cluster, 1, "ipvsadm -Ln --stats --exact");
    let name = virtual_server.to_string();
    let row = stats.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {stats}"));
    row.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// A tool that prints every change of a part of the kernel, from another socket than the agent's.
struct Overheard {
    line: &'static str,
    told: PathBuf,
    tool: Child,
}

impl Overheard {
    /// Links, addresses, routes and policy rules of both families; with iptables' nft flavour, rules too.
    fn all(cluster: &Cluster, node: usize) -> Vec<Self> {
        ["ip -o monitor address route rule", "nft monitor"]
            .map(|line| Self::start(cluster, node, line))
            .into()
    }

    fn start(cluster: &Cluster, node: usize, line: &'static str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let told = cluster.fabric().folder().join(words.join("-"));
        let file = File::create(&told).unwrap();
        let start = move || process::command(words[0]).args(&words[1..]).stdout(file).spawn();
        let tool = cluster.node(node).unwrap().namespace().run(start).unwrap().unwrap();
        Self { line, told, tool }
    }

    /// Ends, and fails if there was anything to tell.
    fn nothing(mut self) {
        assert!(self.tool.try_wait().unwrap().is_none(), "{} has ended by itself", self.line);
        self.tool.kill().unwrap();
        self.tool.wait().unwrap();
        assert_eq!(
            std::fs::read_to_string(&self.told).unwrap(),
            "",
            "{}: a restart writes nothing",
            self.line
        );
    }
}

/// Connections are taken and nothing is answered: worse than a refusal, for nobody says that anything is wrong.
async fn api_server_hangs(cluster: &mut Cluster, probe: &Probe, cells: &[Cell], other: &Other) {
    let before = snapshot(cluster, 1);
    let asking = ask(probe, cells);
    cluster.faults().set_availability(Availability::Hanging);
    cluster.take_agent(1).expect("it runs").kill();
    cluster.start_agent(1).unwrap();
    let waiting = || async {
        match http(cluster, 1, "http://127.0.0.1:20244/readyz") {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually(SOON, waiting).await.expect("/readyz while the API server hangs");
    let (status, body) = http(cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "{body}");
    other.changes(cluster);
    assert_eq!(snapshot(cluster, 1), before, "without an answer nothing changes");
    is_back(cluster).await;
    other.caught_up(cluster, "the change made while it hung").await;
    none_failed("with the API server hanging and back", asking).await;
}

async fn api_server_gone(cluster: &mut Cluster, probe: &Probe, cells: &[Cell], other: &Other) {
    let faults = cluster.faults();
    let before = snapshot(cluster, 1);
    let asking = ask(probe, cells);
    faults.set_availability(Availability::Refusing);
    let said =
        || async { if log(cluster, 2).contains("does not work") { Ok(()) } else { Err(log(cluster, 2)) } };
    eventually(SOON, said).await.expect("the log says that the API server is gone");
    // An agent that starts now says so, goes on trying, and touches nothing.
    cluster.take_agent(1).expect("it runs").kill();
    let before_start = log(cluster, 1).len();
    cluster.start_agent(1).unwrap();
    let said = || async {
        let log = log(cluster, 1);
        if log[before_start..].contains("does not work") { Ok(()) } else { Err(log) }
    };
    eventually(SOON, said).await.expect("an agent started without API server says so");
    let (status, _) = http(cluster, 1, "http://127.0.0.1:20244/readyz");
    assert_eq!(status, 503, "/readyz before the first list");
    assert_eq!(snapshot(cluster, 1), before, "without API server nothing changes");
    other.changes(cluster);
    is_back(cluster).await;
    other.caught_up(cluster, "the change made while it was away").await;
    none_failed("with the API server gone and back", asking).await;
    let (status, body) = http(cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "{body}");
}

/// The API server serves again, and the agent knows.
async fn is_back(cluster: &Cluster) {
    cluster.faults().set_availability(Availability::Serving);
    programmed(cluster, 1).await;
}

async fn watches_break(cluster: &Cluster, probe: &Probe) {
    let faults = cluster.faults();
    let breaks: [(&str, &dyn Fn()); 4] = [
        ("disconnected", &|| faults.disconnect_watches()),
        ("expired", &|| faults.expire_watches()),
        ("compacted and disconnected", &|| {
            faults.compact();
            faults.disconnect_watches();
        }),
        ("old news again", &|| faults.repeat_events(Resource::EndpointSlices, 10)),
    ];
    for (number, (about, break_it)) in breaks.into_iter().enumerate() {
        break_it();
        let web = service(cluster, &format!("after-{number}"), "web", json!({}));
        reach(about, &web_cells(probe, &web), &["web-1", "web-2"]).await;
        cluster.api().delete(Resource::Services, Some("default"), &format!("after-{number}"), None).unwrap();
    }
    assert!(metric(cluster, 1, "kube_router_watch_synced{resource=\"Service\"}") > 0.0);
}

async fn stopped(cluster: &mut Cluster, cells: &[Cell]) {
    let agent = cluster.take_agent(1).expect("it runs");
    assert_eq!(agent.stop(SOON), Some(0), "SIGTERM ends it with status 0");
    reach("after SIGTERM", cells, &["web-1", "web-2"]).await;
    let left = tool(cluster, 1, "ip addr show dev kube-dummy-if");
    assert!(left.contains(&format!("{}/32", cells[0].2.ip())), "{left}");
}

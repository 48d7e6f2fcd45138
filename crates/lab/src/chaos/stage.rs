//! The cluster of the drills, and the connections that go on while they are done: through a service, from node to node
//! by a route, and two that a policy forbids.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::{join, join_all};
use serde_json::{Value, json};

use super::still::Still;
use super::{Error, Options};
use crate::api_server::Resource;
use crate::cluster::{Cluster, agent_program, eventually};
use crate::probe::{Asking, Probe, Protocol, matrix};

/// Bound of every wait; emulated machines are slow.
pub(super) const SOON: Duration = Duration::from_secs(240);
/// All controllers but the service proxy.
const FLAGS: [&str; 5] = [
    "--run-router=true",
    "--run-firewall=true",
    "--enable-ipv6",
    "--bgp-graceful-restart=true",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
];
/// Time between audits: the shortest of them counts.
const PERIODS: [&str; 4] =
    ["--ipvs-sync-period", "--iptables-sync-period", "--routes-sync-period", "--injected-routes-sync-period"];
/// Audits come often, so that what only an audit finds is found while one watches.
pub(super) const OFTEN: &str = "5s";
/// No audit comes while one watches: what is found was told by the kernel.
pub(super) const SELDOM: &str = "1h";
/// Connections a second that are tried, all together, the highest first.
const RATES: [u32; 4] = [200, 100, 50, 20];
const CONTROL: Duration = Duration::from_secs(5);
/// How long an allowed connection may take: a slow one is not a lost one.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one waits for a forbidden connection to be answered after all.
pub(super) const FORBIDDEN_PATIENCE: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);
pub(super) const PORT: u16 = 8080;

/// A cluster, and who asks whom in it.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) random: fastrand::Rng,
    /// The service's address of each family; none without the service proxy.
    pub(super) vips: Vec<IpAddr>,
    /// Addresses of the pods behind it.
    pub(super) web: Vec<IpAddr>,
    allowed: Vec<(Probe, SocketAddr)>,
    forbidden: Vec<(Probe, SocketAddr)>,
    rate: u32,
}

/// Connections under way, each with who asks whom.
pub(super) struct Probes {
    allowed: Vec<(String, Asking)>,
    forbidden: Vec<(String, Asking)>,
}

/// What became of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) asked: usize,
    /// Allowed ones that failed.
    pub(super) lost: usize,
    /// Forbidden ones that were answered.
    pub(super) leaked: usize,
    /// Why some were lost, of every pair the first.
    pub(super) why: Vec<String>,
}

impl Probes {
    /// Ends them, all at once.
    pub(super) async fn stop(self) -> Seen {
        let stop = |(pair, asking): (String, Asking)| async { (pair, asking.stop().await) };
        let (allowed, forbidden) = join(
            join_all(self.allowed.into_iter().map(stop)),
            join_all(self.forbidden.into_iter().map(stop)),
        )
        .await;
        let mut seen = Seen::default();
        for (pair, rate) in allowed {
            seen.asked += rate.asked;
            seen.lost += rate.failed.len();
            if let [(first, failure), ..] = rate.failed.as_slice()
                && let [.., (last, _)] = rate.failed.as_slice()
            {
                let (lost, asked) = (rate.failed.len(), rate.asked);
                let when = format!("between {first:.1?} and {last:.1?}");
                seen.why.push(format!("{pair}: {lost} of {asked}, {when}, the first by {failure}"));
            }
        }
        for (_, rate) in forbidden {
            seen.asked += rate.asked;
            seen.leaked += rate.answered.values().sum::<usize>();
        }
        seen
    }
}

impl Stage {
    /// Builds it and waits until every pair answers, or does not, as it should.
    pub(super) async fn new(options: &Options) -> Result<Self, Error> {
        let flags = flags(options, OFTEN);
        let builder = Cluster::builder().nodes(2).dual_stack().route_pods(false).agent_flags(flags);
        let mut cluster = builder.start().await?;
        let api = cluster.api();
        // A pod that asks a service and the pods behind it uses a port for both now and then, and IPVS mixes up the two
        // (docs/troubleshooting.md): that would be counted as ours.
        let pods = [
            ("web-1", 1, "web"),
            ("web-2", 2, "web"),
            ("client", 1, "client"),
            ("direct", 1, "client"),
            ("stranger", 1, "stranger"),
        ];
        for (name, node, app) in pods {
            api.create(Resource::Pods, pod(name, node, app)).map_err(crate::cluster::Error::from)?;
        }
        let mut vips = Vec::new();
        if options.services {
            let service = api.create(Resource::Services, service()).map_err(crate::cluster::Error::from)?;
            vips = addresses(&service, "/spec/clusterIPs", |ip| ip);
        }
        api.create(Resource::NetworkPolicies, policy()).map_err(crate::cluster::Error::from)?;
        agents_ready(&mut cluster).await?;
        cluster.pods_ready(SOON).await?;
        let web: Vec<IpAddr> = ["web-1", "web-2"]
            .iter()
            .filter_map(|name| api.get(Resource::Pods, Some("default"), name))
            .flat_map(|pod| addresses(&pod, "/status/podIPs", |ip| ip.get("ip").unwrap_or(&Value::Null)))
            .collect();
        let probe = |name: &'static str| cluster.pod_probe("default", name).ok_or(Error::Object(name));
        let (client, direct, stranger) = (probe("client")?, probe("direct")?, probe("stranger")?);
        let service_port = vips.iter().map(|ip| SocketAddr::new(*ip, 80));
        let pod_port = web.iter().map(|ip| SocketAddr::new(*ip, PORT));
        let from = |probe: &Probe, patience, to: Vec<SocketAddr>| -> Vec<(Probe, SocketAddr)> {
            to.into_iter().map(|to| (probe.clone().patience(patience), to)).collect()
        };
        let mut allowed = from(&client, PATIENCE, service_port.clone().collect());
        allowed.extend(from(&direct, PATIENCE, pod_port.clone().collect()));
        let forbidden = from(&stranger, FORBIDDEN_PATIENCE, service_port.chain(pod_port).collect());
        let random = fastrand::Rng::with_seed(options.seed);
        let stage = Stage { cluster, random, vips, web, allowed, forbidden, rate: 0 };
        stage.settled().await?;
        Ok(stage)
    }

    /// Waits until every allowed pair is answered and no forbidden one.
    pub(super) async fn settled(&self) -> Result<(), Error> {
        let cells = |pairs: &[(Probe, SocketAddr)]| -> Vec<(Probe, Protocol, SocketAddr)> {
            let cell = |(probe, to): &(Probe, SocketAddr)| {
                (probe.clone().patience(FORBIDDEN_PATIENCE), Protocol::Tcp, *to)
            };
            pairs.iter().map(cell).collect()
        };
        let (allowed, forbidden) = (cells(&self.allowed), cells(&self.forbidden));
        let look = || async {
            let (answered, refused) = join(matrix(&allowed), matrix(&forbidden)).await;
            for ((probe, _, to), outcome) in allowed.iter().zip(answered) {
                outcome.map_err(|failure| format!("{} reaches {to}: {failure}", probe.name()))?;
            }
            for ((probe, _, to), outcome) in forbidden.iter().zip(refused) {
                if outcome.is_ok() {
                    return Err(format!("{} is kept from {to}", probe.name()));
                }
            }
            Ok(())
        };
        Ok(eventually(SOON, look).await?)
    }

    /// Finds and keeps the highest rate at which nothing is lost while nothing is wrong.
    pub(super) async fn find_rate(&mut self) -> Result<u32, Error> {
        let mut said = String::new();
        for rate in RATES {
            self.rate = rate;
            let probes = self.ask();
            tokio::time::sleep(CONTROL).await;
            match probes.stop().await {
                Seen { lost: 0, leaked: 0, .. } => return Ok(rate),
                Seen { asked, lost, leaked, .. } => {
                    said = format!("{lost} lost and {leaked} leaked of {asked} at {rate}/s")
                }
            }
        }
        Err(Error::Control(said))
    }

    /// Starts to ask on every pair.
    pub(super) fn ask(&self) -> Probes {
        let pairs = u32::try_from(self.allowed.len() + self.forbidden.len()).unwrap_or(u32::MAX);
        let each = (self.rate / pairs).max(1);
        let ask = |(probe, to): &(Probe, SocketAddr)| {
            (format!("{} to {to}", probe.name()), probe.rate(Protocol::Tcp, *to, each, FOR_EVER))
        };
        let start = |pairs: &[(Probe, SocketAddr)]| pairs.iter().map(ask).collect();
        Probes { allowed: start(&self.allowed), forbidden: start(&self.forbidden) }
    }

    /// Starts the agent of node 1 and waits until it is ready.
    pub(super) async fn start_agent(&mut self) -> Result<(), Error> {
        self.cluster.start_agent(1)?;
        self.agents_ready().await
    }

    /// Holds the agent of node 1 still: it takes in nothing more, and heals nothing, until what is returned is dropped.
    pub(super) async fn hold(&mut self) -> Result<Still, Error> {
        let agent = self.cluster.agent(1).ok_or(Error::Object("agent on node-1"))?;
        Still::new(agent.pid()).await
    }

    /// Waits until every agent is ready.
    pub(super) async fn agents_ready(&mut self) -> Result<(), Error> {
        agents_ready(&mut self.cluster).await
    }

    /// Waits until the agent of node 1 has told its peer of its pods.
    pub(super) async fn heard(&self) -> Result<(), Error> {
        let line = format!("{} status peers -o json", agent_program()?.display());
        let look = || async {
            let said = self.tool(&line).map_err(|error| error.to_string())?;
            let status: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
            match status.pointer("/peers/0/told").and_then(Value::as_u64) {
                Some(1..) => Ok(()),
                _ => Err(format!("routes that node-1 has told: {status}")),
            }
        };
        Ok(eventually(SOON, look).await?)
    }

    /// A tool on node 1. One that lists while the agent writes may fail, and is asked again.
    pub(super) fn tool(&self, line: &str) -> Result<String, Error> {
        for _ in 0..3 {
            if let Ok(text) = self.cluster.on_node(1, line) {
                return Ok(text);
            }
        }
        Ok(self.cluster.on_node(1, line)?)
    }
}

/// Flags of an agent, with this time between audits.
pub(super) fn flags(options: &Options, period: &str) -> Vec<String> {
    let periods = PERIODS.map(|flag| format!("{flag}={period}"));
    let services = format!("--run-service-proxy={}", options.services);
    FLAGS.map(str::to_owned).into_iter().chain(periods).chain([services]).collect()
}

async fn agents_ready(cluster: &mut Cluster) -> Result<(), Error> {
    const LINES: usize = 30;
    let Err(why) = cluster.agents_ready(SOON).await else { return Ok(()) };
    let mut lines: Vec<String> = Vec::new();
    for number in 1..=cluster.nodes().len() {
        let asked = agent_program().and_then(|program| {
            cluster.on_node(number, &format!("{} status controllers tables problems", program.display()))
        });
        let status = asked.unwrap_or_else(|error| error.to_string());
        lines.extend(status.lines().map(|line| format!("node-{number} says: {line}")));
        let text = cluster.agent(number).map(|agent| agent.log()).unwrap_or_default();
        let skipped = text.lines().count().saturating_sub(LINES);
        lines.extend(text.lines().skip(skipped).map(|line| format!("node-{number}: {line}")));
    }
    Err(Error::NotReady { why, log: lines.join("\n") })
}

fn addresses(object: &Value, pointer: &str, ip: impl Fn(&Value) -> &Value) -> Vec<IpAddr> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| ip(entry).as_str()?.parse().ok()).collect()
}

fn pod(name: &str, node: u8, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app } },
        "spec": {
            "nodeName": format!("node-{node}"),
            "containers": [{ "name": "c", "image": "lab", "ports": [{ "containerPort": PORT }] }],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "selector": { "app": "web" }, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{ "port": 80, "targetPort": PORT }],
        },
    })
}

/// Only clients may talk to the web.
fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "clients", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "web" } },
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }],
        },
    })
}

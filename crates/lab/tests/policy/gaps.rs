//! No gap: while objects change by the hundred and agents die, connections are made all the time on pairs that stay
//! allowed and on pairs that stay forbidden. Of the first none may fail, of the second none may succeed.

use std::net::SocketAddr;
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::Cluster;
use lab::node::Families;
use lab::policy::Packet;
use lab::probe::{Asking, ONCE, Protocol};
use serde_json::json;

use crate::changes::{base, change};
use crate::fence::Fence;
use crate::stage::{SOON, Stage, holds};
use crate::tables::{NFTABLES, cluster, logs};

/// Connections a second, all probes together.
const RATE: u32 = 1000;
/// Number of changes; the variable of this name asks for more.
const CHANGES: (&str, usize) = ("KUBE_ROUTER_LAB_CHANGES", 400);
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// By [`base`](crate::changes::base): pods `b` may talk to x/a, nobody else may. On one bridge and across nodes.
const ALLOWED: [(&str, &str); 2] = [("x/b", "x/a"), ("y/b", "x/a")];
const DENIED: [(&str, &str); 2] = [("z/b", "x/a"), ("y/a", "x/a")];

/// Connections under way.
pub(crate) struct Probes {
    running: Vec<(String, bool, Asking)>,
}

impl Probes {
    /// [`RATE`] connections a second, on all pairs, families and TCP and UDP.
    pub(crate) fn start(stage: &Stage<'_>) -> Self {
        let members = stage.members();
        let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member").clone();
        let mut cells = Vec::new();
        for (pairs, allowed) in [(ALLOWED, true), (DENIED, false)] {
            for (from, to) in pairs {
                let (from, to) = (find(from), find(to));
                for address in to.addresses {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let about = format!("{} > {address} {protocol}", from.name);
                        cells.push((
                            about,
                            allowed,
                            from.probe.clone().unwrap(),
                            protocol,
                            SocketAddr::new(address, 80),
                        ));
                    }
                }
            }
        }
        let each = RATE / u32::try_from(cells.len()).unwrap();
        let start = |(about, allowed, probe, protocol, to): (
            String,
            bool,
            lab::probe::Probe,
            Protocol,
            SocketAddr,
        )| {
            // A refusal comes at once, a loaded machine may need its time.
            let patience = if allowed { ONCE } else { Duration::from_secs(2) };
            (about, allowed, probe.patience(patience).rate(protocol, to, each, FOR_EVER))
        };
        Self { running: cells.into_iter().map(start).collect() }
    }

    /// Stops and says what should not have been; and how many were made.
    async fn stop(self) -> (Vec<String>, usize) {
        let (mut wrong, mut asked) = (Vec::new(), 0);
        for (about, allowed, asking) in self.running {
            let rate = asking.stop_after(20).await;
            asked += rate.asked;
            let answered: usize = rate.answered.values().sum();
            if allowed && !rate.failed.is_empty() {
                let first = &rate.failed[..rate.failed.len().min(5)];
                wrong.push(format!("{about}: {} of {} failed: {first:?}", rate.failed.len(), rate.asked));
            }
            if !allowed && answered > 0 {
                wrong.push(format!("{about}: {answered} of {} were answered", rate.asked));
            }
            if rate.asked < 20 {
                wrong.push(format!("{about}: only {} were asked", rate.asked));
            }
        }
        (wrong, asked)
    }

    /// Stops; nothing may have been that should not.
    pub(crate) async fn none(self, about: &str, cluster: &Cluster) {
        let (wrong, asked) = self.stop().await;
        eprintln!("{about}: {asked} connections");
        assert!(wrong.is_empty(), "{about}: {wrong:#?}\n{}", logs(cluster));
    }
}

/// The policy and the labels that make pairs allowed and denied.
pub(crate) fn arrange(stage: &Stage<'_>) {
    let banned = json!({ "metadata": { "labels": { "banned": "yes" } } });
    stage.api.patch(Resource::Pods, Some("z"), "b", &banned).unwrap();
    stage.policy("x", "base", base(0));
}

/// [`arrange`], and waits until agents have done it.
pub(crate) async fn prepare(stage: &Stage<'_>, fence: &mut Fence) {
    arrange(stage);
    fence.pass().await;
    let ports = ["80/TCP", "80/UDP"].map(|port| port.parse().unwrap());
    holds("before", &stage.members(), &ports, &stage.objects()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_slips_through_and_nothing_fails() {
    changes_and_deaths(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_slips_through_and_nothing_fails_with_nftables() {
    changes_and_deaths(&[NFTABLES]).await;
}

async fn changes_and_deaths(more: &[&str]) {
    let mut cluster = cluster(Families::Dual, more).await;
    let api = cluster.api();
    api.create(Resource::Namespaces, json!({ "metadata": { "name": "far" } })).unwrap();
    let changes = std::env::var(CHANGES.0).ok().map_or(CHANGES.1, |text| text.parse().expect("a number"));
    let mut fence = Fence::new(&cluster).await;
    {
        let stage = Stage::new(api.clone(), Some(&cluster)).await;
        prepare(&stage, &mut fence).await;
        let probes = Probes::start(&stage);
        tokio::time::sleep(Duration::from_secs(2)).await;
        probes.none("nothing happens", &cluster).await;

        let probes = Probes::start(&stage);
        for number in 0..changes {
            change(&stage, number);
            // The agents have to keep up, not to take everything in at once.
            tokio::time::sleep(Duration::from_millis(10)).await;
            if number % 100 == 99 {
                fence.pass().await;
            }
        }
        fence.pass().await;
        probes.none(&format!("{changes} changes"), &cluster).await;
    }

    // The agents die one after the other and in the middle of changes, and come back.
    let probes = Probes::start(&Stage::of(api.clone(), &cluster));
    for node in 1..=3 {
        for number in 0..16 {
            change(&Stage::of(api.clone(), &cluster), node * 100 + number);
        }
        cluster.take_agent(node).expect("it runs").kill();
        change(&Stage::of(api.clone(), &cluster), node * 100 + 17);
        cluster.start_agent(node).unwrap();
        cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    }
    fence.pass().await;
    probes.none("kill -9 and start of each agent", &cluster).await;
    let stage = Stage::of(api.clone(), &cluster);
    let ports = ["80/TCP", "80/UDP"].map(|port| port.parse().unwrap());
    holds("at the end", &stage.members(), &ports, &stage.objects()).await;
    eprintln!("the slowest gate took {:?}", fence.slowest);
}

/// The changes are many and what they say of the probed pairs is always the same: the judge of this file.
#[tokio::test(flavor = "multi_thread")]
async fn changes_never_mean_anything_to_the_probed_pairs() {
    let server = lab::api_server::ApiServer::start(lab::api_server::Config::default()).await.unwrap();
    let stage = Stage::new(server.handle(), None).await;
    stage.api.create(Resource::Namespaces, json!({ "metadata": { "name": "far" } })).unwrap();
    arrange(&stage);
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).unwrap().addresses.clone();
    let mut policies = std::collections::BTreeSet::new();
    for number in 0..1000 {
        change(&stage, number);
        let objects = stage.objects();
        policies.insert(stage.api.list(Resource::NetworkPolicies, None).len());
        for (pairs, allowed) in [(ALLOWED, true), (DENIED, false)] {
            for (from, to) in pairs {
                for (from_ip, to_ip) in find(from).into_iter().zip(find(to)) {
                    let packet = Packet { from: from_ip, to: to_ip, protocol: Protocol::Tcp, port: 80 };
                    assert_eq!(objects.allows(&packet), allowed, "{from} > {to} after change {number}");
                }
            }
        }
    }
    assert!(policies.len() > 4 && stage.api.list(Resource::Pods, Some("far")).len() > 10, "{policies:?}");
}

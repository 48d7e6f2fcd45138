//! Others interfere: sets and chains changed by hand, rules put above ours, a full set, a lock that is not given back. It is
//! healed, and where it can be, nothing forbidden passes meanwhile. The agent counts what it healed, names what it cannot
//! write, and calls itself healthy all along: a restart would help nobody.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, agent_program, eventually};
use lab::node::Families;
use lab::policy::{Member, Port};
use lab::probe::Protocol;
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{PATIENCE, SOON, Stage, holds};
use crate::tables::{cluster, flags, logs};

/// The programs of each flavour, for both families.
const NFT: [&str; 2] = ["iptables-nft", "ip6tables-nft"];
const LEGACY: [&str; 2] = ["iptables-legacy", "ip6tables-legacy"];

/// Where the agents answer: the default of `--health-port`, and what the flags of these tests say.
const HEALTH: u16 = 20_244;
const METRICS: u16 = 20_241;

fn ports() -> Vec<Port> {
    ["80/TCP", "80/UDP"].map(|port| port.parse().unwrap()).to_vec()
}

/// Only pods `b` may talk to x/a, on node-1.
async fn prepare(stage: &Stage<'_>, fence: &mut Fence) -> Vec<Member> {
    let b = json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "pod": "b" } } });
    stage.policy(
        "x",
        "base",
        json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": [{ "from": [b] }] }),
    );
    fence.pass().await;
    let members = stage.members();
    holds("before", &members, &ports(), &stage.objects()).await;
    members
}

/// Names that a tool lists on node-1 and that begin with one of ours.
fn ours(cluster: &Cluster, line: &str, prefixes: &[&str]) -> Vec<String> {
    let text = cluster.on_node(1, line).unwrap();
    let names = text.lines().filter_map(|line| {
        let name = line.trim_start_matches("-N ").trim_start_matches(':').split(' ').next()?;
        let bare = name.strip_prefix("inet6:").unwrap_or(name);
        prefixes.iter().any(|prefix| bare.starts_with(prefix)).then(|| name.to_owned())
    });
    names.collect()
}

fn sets(cluster: &Cluster) -> Vec<String> {
    ours(cluster, "ipset list -n", &["KUBE-SRC-", "KUBE-DST-"])
}

/// Breaks something, sees (where that can be) that it was broken, and waits until all is well again, in packets and in the
/// agent's own words.
async fn healed(about: &str, cluster: &Cluster, members: &[Member], stage: &Stage<'_>, lines: &[String]) {
    let start = Instant::now();
    for line in lines {
        cluster.on_node(1, line).unwrap_or_else(|error| panic!("{about}: {error}"));
    }
    holds(about, members, &ports(), &stage.objects()).await;
    eprintln!("{about}: healed within {:?}", start.elapsed());
    eventually(SOON, || unconcerned(cluster)).await.unwrap_or_else(|error| panic!("{about}: {error}"));
}

/// [`healed`], of rows that were taken away: they are counted.
async fn counted(
    table: &str,
    about: &str,
    cluster: &Cluster,
    members: &[Member],
    stage: &Stage<'_>,
    lines: &[String],
) {
    let before = eventually(SOON, || metric(cluster, "drift_healed_total", table)).await.unwrap();
    healed(about, cluster, members, stage, lines).await;
    let more = || async {
        let now = metric(cluster, "drift_healed_total", table).await?;
        if now > before { Ok(()) } else { Err(format!("{about}: more than {before} {table} healed: {now}")) }
    };
    eventually(SOON, more).await.unwrap();
}

/// What the agent of node-1 answers: status code and body.
async fn says(cluster: &Cluster, port: u16, path: &str) -> Result<(u16, String), String> {
    let probe = cluster.node_probe(1).map_err(|error| error.to_string())?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    probe.get(to, path).await.map_err(|failure| format!("{path}: {failure}"))
}

/// A metric of the agent of node-1 for one of its tables; 0 while it has none.
async fn metric(cluster: &Cluster, name: &str, table: &str) -> Result<f64, String> {
    let (_, text) = says(cluster, METRICS, "/metrics").await?;
    let head = format!("kube_router_{name}{{table=\"{table}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(head.as_str())?.parse().ok());
    Ok(value.unwrap_or(0.0))
}

/// The agent of node-1 works, and there is nothing it cannot write.
async fn unconcerned(cluster: &Cluster) -> Result<(), String> {
    let said = (says(cluster, HEALTH, "/healthz").await?, says(cluster, HEALTH, "/readyz").await?);
    let fine = || (200, "OK\n".to_owned());
    if said == (fine(), fine()) {
        Ok(())
    } else {
        Err(format!("/healthz and /readyz say OK and no more: {said:?}"))
    }
}

/// The agent of node-1 works, and says everywhere which rows it cannot write and that the lock is why.
async fn names_the_lock(cluster: &Cluster) -> Result<(), String> {
    let (health, _) = says(cluster, HEALTH, "/healthz").await?;
    let (ready, concerns) = says(cluster, HEALTH, "/readyz").await?;
    let refused = metric(cluster, "rows_refused", "chains").await?;
    let program = agent_program().map_err(|error| error.to_string())?;
    let status = cluster.on_node(1, &format!("{} status problems -o json", program.display()));
    let status = status.map_err(|error| error.to_string())?;
    let status: Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
    let rows = status["refused"].as_array().map_or(&[][..], Vec::as_slice);
    let of_lock = |row: &Value| row["reason"].as_str().is_some_and(|why| why.contains("xtables lock"));
    let named = concerns.lines().any(|line| line.starts_with("refused: ") && line.ends_with(" of chains"));
    if (health, ready) == (200, 200) && named && refused > 0.0 && rows.iter().any(of_lock) {
        Ok(())
    } else {
        Err(format!(
            "the lock is named: /healthz {health}, /readyz {ready} {concerns:?}, {refused} chains, {status}"
        ))
    }
}

/// Nobody reads anything anew for an hour: what comes back was told by the kernel, which keeps the chains of iptables' nft
/// flavour in nf_tables.
#[tokio::test(flavor = "multi_thread")]
async fn chains_that_others_change_come_back_at_once() {
    let cluster = cluster(Families::Dual, &["--iptables-sync-period=1h", "--ipvs-sync-period=1h"]).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let members = prepare(&stage, &mut fence).await;
    rules_come_back(&cluster, NFT, &members, &stage).await;
}

async fn rules_come_back(cluster: &Cluster, tools: [&str; 2], members: &[Member], stage: &Stage<'_>) {
    for tool in tools {
        let chains = ours(cluster, &format!("{tool}-save -t filter"), &["KUBE-POD-FW-", "KUBE-NWPLCY-"]);
        assert!(chains.len() > 5, "{chains:?}");
        let flush: Vec<String> = chains.iter().map(|chain| format!("{tool} -F {chain}")).collect();
        counted("chains", &format!("{tool}: emptied chains"), cluster, members, stage, &flush).await;
        let drop = ["INPUT", "FORWARD", "OUTPUT"].map(|chain| format!("{tool} -F {chain}"));
        let jumps = "rules_in_foreign_chains";
        counted(jumps, &format!("{tool}: no jumps"), cluster, members, stage, &drop).await;
        let above = vec![format!("{tool} -I FORWARD -m comment --comment foreign -j ACCEPT")];
        healed(&format!("{tool}: a rule above ours"), cluster, members, stage, &above).await;
        let rules = cluster.on_node(1, &format!("{tool} -S FORWARD")).unwrap();
        let place = |text: &str| rules.lines().position(|line| line.contains(text));
        assert!(place("KUBE-ROUTER-FORWARD") < place("foreign") && place("foreign").is_some(), "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_take_away_comes_back() {
    // Sets have no notifications: what is taken out of them is found at the next reading. So it is with rules where the legacy
    // tables are used.
    let cluster = legacy(Families::Dual, &["--iptables-sync-period=5s", "--ipvs-sync-period=5s"]).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let members = prepare(&stage, &mut fence).await;
    let find = |name: &str| members.iter().find(|member| member.name == name).unwrap();
    let address = |name: &str, family: usize| find(name).addresses[family];

    // An emptied set matches nothing: it is refused, never opened.
    let all = sets(&cluster);
    assert!(all.len() >= 2, "sets of both families: {all:?}");
    let denied = find("y/a").probe.clone().unwrap().patience(Duration::from_secs(1));
    let to = SocketAddr::new(address("x/a", 0), 80);
    let asking = denied.rate(Protocol::Tcp, to, 50, Duration::from_secs(600));
    let flush: Vec<String> = all.iter().map(|set| format!("ipset flush {set}")).collect();
    counted("set_members", "emptied sets", &cluster, &members, &stage, &flush).await;
    let rate = asking.stop_after(20).await;
    assert!(rate.answered.is_empty() && rate.asked >= 20, "emptied sets opened something: {rate:?}");

    // A foreign member in a set is one who may talk; not for long.
    let mut add = Vec::new();
    for (family, prefix) in [(0, ""), (1, "inet6:")] {
        let of_family = |set: &&String| set.starts_with("inet6:") != prefix.is_empty();
        let line = |set: &String| format!("ipset add -exist {set} {}", address("y/a", family));
        let addresses = |set: &&String| {
            cluster.on_node(1, &format!("ipset list -t {set}")).unwrap().contains("hash:ip\n")
        };
        add.extend(all.iter().filter(of_family).filter(addresses).map(line));
    }
    assert!(!add.is_empty());
    healed("a stranger in the sets", &cluster, &members, &stage, &add).await;

    rules_come_back(&cluster, LEGACY, &members, &stage).await;

    // A set without room, as an administrator or an older program may have made it: it grows.
    let held_by = |set: &&String| {
        let text = cluster.on_node(1, &format!("ipset list {set}")).unwrap();
        text.contains("hash:ip\n") && text.contains(&format!("{}\n", address("y/b", 0)))
    };
    let name = sets(&cluster).into_iter().find(|set| held_by(&set)).expect("the set of pods `b`");
    let room = cluster.on_node(1, &format!("ipset list {name}")).unwrap();
    let (head, held) = room.split_once("Members:\n").unwrap();
    let mut lines = vec![format!("ipset create small hash:ip family inet maxelem {}", held.lines().count())];
    lines.extend(held.lines().map(|member| format!("ipset add small {}", member.split(' ').next().unwrap())));
    lines.push(format!("ipset swap small {name}"));
    lines.push("ipset destroy small".to_owned());
    assert!(head.contains("maxelem"), "{room}");
    for line in &lines {
        cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"));
    }
    let namespace = json!({ "metadata": { "name": "far" } });
    stage.api.create(Resource::Namespaces, namespace).unwrap();
    for number in 1..=20 {
        let spec = json!({ "nodeName": "node-9", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }] });
        let metadata = json!({ "namespace": "far", "name": format!("b-{number}"), "labels": { "pod": "b" } });
        stage.api.create(Resource::Pods, json!({ "metadata": metadata, "spec": spec })).unwrap();
        let ips = json!([{ "ip": format!("10.99.0.{number}") }]);
        let status = json!({ "phase": "Running", "podIPs": ips, "podIP": format!("10.99.0.{number}") });
        stage.api.patch_status(Resource::Pods, Some("far"), &format!("b-{number}"), &status).unwrap();
    }
    let filled = || async {
        // Listed while the agent swaps it, it may fail.
        let text = cluster.on_node(1, &format!("ipset list {name}")).map_err(|error| error.to_string())?;
        let missing = (1..=20).find(|number| !text.contains(&format!("10.99.0.{number}\n")));
        missing.map_or(Ok(()), |number| Err(format!("10.99.0.{number} is in the set: {text}")))
    };
    eventually(SOON, filled).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    holds("a full set", &members, &ports(), &stage.objects()).await;
    eventually(SOON, || unconcerned(&cluster)).await.unwrap();
}

/// Three nodes with agents that use the legacy tables: agents use the flavour that is in use.
async fn legacy(families: Families, more: &[&str]) -> Cluster {
    let mut cluster = Cluster::builder().nodes(3).families(families).start().await.unwrap();
    for node in 1..=3 {
        for (tool, chain) in
            LEGACY.iter().flat_map(|tool| ["INPUT", "FORWARD", "OUTPUT"].map(|chain| (tool, chain)))
        {
            cluster
                .on_node(node, &format!("{tool} -A {chain} -m comment --comment other -j RETURN"))
                .unwrap();
        }
        cluster.set_agent_flags(node, flags(families, more)).unwrap();
        cluster.start_agent(node).unwrap();
    }
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    cluster
}

/// The xtables lock of legacy iptables is held by somebody until the story lets go: peers come and go meanwhile, rules
/// wait their turn, and nothing opens.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_delays_rules_only() {
    let cluster = legacy(Families::V4, &[]).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let members = prepare(&stage, &mut fence).await;
    let saved = cluster.on_node(1, "iptables-legacy-save").unwrap();
    assert!(saved.contains("KUBE-POD-FW-"), "the legacy tables are used: {saved}");

    let find = |name: &str| members.iter().find(|member| member.name == name).unwrap();
    let to = SocketAddr::new(find("x/a").addresses[0], 80);
    let start = Instant::now();
    // Bounded, should the story end before it lets go.
    let wait = "for i in $(seq 6000); do test -e /run/let-go && exit; sleep 0.1; done";
    let hold = move || {
        lab::process::run(lab::process::command("flock").args(["/run/xtables.lock", "sh", "-c", wait]))
    };
    let holder = cluster.node(1).unwrap().namespace().enter(hold).unwrap();
    let locked = || async {
        let tried = cluster.on_node(1, "flock --nonblock /run/xtables.lock true");
        if tried.is_err() { Ok(()) } else { Err("the lock is held".to_owned()) }
    };
    eventually(SOON, locked).await.unwrap();

    // A label makes a peer: a member of a set.
    let label = json!({ "metadata": { "labels": { "pod": "b" } } });
    stage.api.patch(Resource::Pods, Some("y"), "c", &label).unwrap();
    let probe = find("y/c").probe.clone().unwrap().patience(PATIENCE);
    let passes =
        || async { probe.ask(Protocol::Tcp, to).await.map_err(|error| format!("y/c reaches x/a: {error}")) };
    eventually(SOON, passes).await.unwrap();
    eprintln!("a new peer passed {:?} after the lock was taken", start.elapsed());
    // A policy is rules: they wait, and until then what held holds.
    stage.policy(
        "x",
        "c",
        json!({ "podSelector": { "matchLabels": { "pod": "c" } }, "policyTypes": ["Ingress"] }),
    );
    stage.policy(
        "x",
        "b",
        json!({ "podSelector": { "matchLabels": { "pod": "b" } }, "policyTypes": ["Ingress"] }),
    );
    let denied = find("y/a").probe.clone().unwrap().patience(Duration::from_secs(1));
    let asking = denied.rate(Protocol::Tcp, to, 50, Duration::from_secs(600));
    eventually(SOON, || names_the_lock(&cluster)).await.unwrap();
    eprintln!("the lock was named {:?} after it was taken", start.elapsed());
    cluster.on_node(1, "touch /run/let-go").unwrap();
    tokio::task::spawn_blocking(move || holder.join()).await.unwrap().unwrap().unwrap();
    holds("after the lock was given back", &stage.members(), &ports(), &stage.objects()).await;
    let rate = asking.stop_after(100).await;
    assert!(rate.answered.is_empty() && rate.asked >= 100, "{rate:?}");
    fence.pass().await;
    eventually(SOON, || unconcerned(&cluster)).await.unwrap();
}

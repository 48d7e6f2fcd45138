//! Random policies by packets: shapes like those of the agent's property tests, on real pods and kernels. What passes must be
//! what the reference says, and what the agent's own evaluation says of a sample (`explain`): that one is held to the
//! API's text in thousands of clusters, and by this to the kernel.

use fastrand::Rng;
use lab::cluster::Cluster;
use lab::node::Families;
use lab::policy::{Member, Packet, Port, Truth};
use serde_json::{Value, json};

use crate::case::{Step, resolve};
use crate::fence::Fence;
use crate::operator::asked;
use crate::stage::{NAMESPACES, Stage, becomes};
use crate::tables::{NFTABLES, cluster, logs};

/// What is drawn is the same each time; another seed draws other policies.
const SEED: u64 = 20;
/// States of the cluster, each with a table of all pairs.
const ROUNDS: usize = 5;
/// Pairs of each round of which the agent is asked.
const EXPLAINED: usize = 12;
const PODS: [&str; 3] = ["a", "b", "c"];
const VALUES: &[&[&str]] = &[&["a", "x"], &["b"], &["y", "b"], &["x"]];
const TYPES: &[&[&str]] = &[&[], &["Ingress"], &["Egress"], &["Ingress", "Egress"]];

fn one<'a, T>(random: &mut Rng, of: &'a [T]) -> &'a T {
    &of[random.usize(..of.len())]
}

/// One to `most` of what `draw` draws.
fn some(random: &mut Rng, most: usize, draw: fn(&mut Rng) -> Value) -> Value {
    let count = random.usize(1..=most);
    json!((0..count).map(|_| draw(random)).collect::<Vec<_>>())
}

fn selector(random: &mut Rng) -> Value {
    match random.u8(..8) {
        0 | 1 => json!({}),
        2..5 => json!({ "matchLabels": { "app": one(random, &["a", "b"]) } }),
        5 => json!({ "matchLabels": { "app": one(random, &["a", "b"]), "tier": one(random, &["x", "y"]) } }),
        _ => json!({ "matchExpressions": some(random, 2, expression) }),
    }
}

fn expression(random: &mut Rng) -> Value {
    let key = *one(random, &["app", "tier"]);
    match *one(random, &["In", "NotIn", "Exists", "DoesNotExist"]) {
        operator @ ("In" | "NotIn") => {
            let values = one(random, VALUES);
            json!({ "key": key, "operator": operator, "values": values })
        }
        operator => json!({ "key": key, "operator": operator }),
    }
}

/// A block is around a pod; in both families, see `resolve`.
fn peer(random: &mut Rng) -> Value {
    match random.u8(..5) {
        0 => json!({ "podSelector": selector(random) }),
        1 => json!({ "namespaceSelector": selector(random) }),
        2 => json!({ "namespaceSelector": selector(random), "podSelector": selector(random) }),
        _ => one(
            random,
            &[
                json!({ "ipBlock": { "cidr": "$x/b" } }),
                json!({ "ipBlock": { "cidr": "$y/a/24" } }),
                json!({ "ipBlock": { "cidr": "$z/a/8", "except": ["$x/a"] } }),
                json!({ "ipBlock": { "cidr": "$x/b/20", "except": ["$x/b/30", "$y/a"] } }),
            ],
        )
        .clone(),
    }
}

fn port(random: &mut Rng) -> Value {
    one(
        random,
        &[
            json!({ "port": 80 }),
            json!({ "protocol": "UDP", "port": 80 }),
            json!({ "port": 79, "endPort": 81 }),
            json!({ "protocol": "UDP" }),
            json!({ "port": "web" }),
            json!({ "protocol": "UDP", "port": "serve-80-udp" }),
            json!({ "port": "nobody" }),
        ],
    )
    .clone()
}

fn rules(random: &mut Rng, peers: &str) -> Value {
    let count = random.usize(..3);
    let rule = |_: usize| {
        let mut rule = json!({});
        if random.u8(..4) > 0 {
            rule[peers] = some(random, 2, peer);
        }
        if random.bool() {
            rule["ports"] = some(random, 2, port);
        }
        rule
    };
    json!((0..count).map(rule).collect::<Vec<_>>())
}

fn policy(random: &mut Rng) -> Value {
    let mut spec = json!({ "podSelector": selector(random) });
    let types = one(random, TYPES);
    if !types.is_empty() {
        spec["policyTypes"] = json!(types);
    }
    for (way, peers) in [("ingress", "from"), ("egress", "to")] {
        if random.u8(..4) > 0 {
            spec[way] = rules(random, peers);
        }
    }
    spec
}

/// Other labels on every pod and namespace, and up to two policies in each.
async fn draw(random: &mut Rng, stage: &Stage<'_>) {
    let mut step = Step::default();
    let labels = |random: &mut Rng| {
        let app = one(random, &[Some("a"), Some("b"), None]).map(str::to_owned);
        let tier = one(random, &[Some("x"), Some("y"), None]).map(str::to_owned);
        [("app".to_owned(), app), ("tier".to_owned(), tier)].into_iter().collect()
    };
    for namespace in NAMESPACES {
        step.namespaces.insert(namespace.to_owned(), labels(random));
        for pod in PODS {
            step.pods.insert(format!("{namespace}/{pod}"), labels(random));
        }
    }
    stage.take(&step).await;
    let members = stage.members();
    for namespace in NAMESPACES {
        for name in ["one", "other"] {
            if random.u8(..3) > 0 {
                stage.policy(namespace, name, resolve(policy(random), &members));
            } else {
                let kind = lab::api_server::Resource::NetworkPolicies;
                // There may be none of this name.
                let _ = stage.api.delete(kind, Some(namespace), name, None);
            }
        }
    }
}

/// Asks the agent of one node about a sample of pairs: every node knows all policies.
fn explained(
    random: &mut Rng,
    cluster: &Cluster,
    stage: &Stage<'_>,
    members: &[Member],
    ports: &[Port],
) -> Vec<String> {
    let objects = stage.objects();
    let mut wrong = Vec::new();
    for _ in 0..EXPLAINED {
        let (from, to) = (one(random, members), one(random, members));
        if from.name == to.name {
            continue;
        }
        let family = random.usize(..from.addresses.len());
        let port = one(random, ports);
        let packet = Packet {
            from: from.addresses[family],
            to: to.addresses[family],
            protocol: port.protocol,
            port: port.number,
        };
        let protocol = port.protocol.to_string().to_lowercase();
        let line = format!(
            "explain --from {} --to {} --port {} --protocol {protocol}",
            packet.from, packet.to, packet.port
        );
        let told = asked(cluster, random.usize(1..=3), &line);
        let allows = objects.allows(&packet);
        if (told["verdict"] == "allowed") != allows {
            wrong.push(format!(
                "{} > {}: {line}: it is {allows} that it passes: {told:#}",
                from.name, to.name
            ));
        }
    }
    wrong
}

async fn play(more: &[&str]) {
    let cluster = cluster(Families::Dual, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let ports: Vec<Port> = ["80/TCP", "81/TCP", "80/UDP"].map(|port| port.parse().unwrap()).to_vec();
    let mut random = Rng::with_seed(SEED);
    let (mut wrong, mut all, mut open) = (Vec::new(), 0, 0);
    for round in 1..=ROUNDS {
        draw(&mut random, &stage).await;
        fence.pass().await;
        let members = stage.members();
        let expected = Truth::expected(&members, &ports, &stage.objects());
        let (cells, passing) = expected.count();
        (all, open) = (all + cells, open + passing);
        let policies = || stage.api.list(lab::api_server::Resource::NetworkPolicies, None);
        if let Err(picture) = becomes(&members, &ports, &expected).await {
            wrong.push(format!("round {round}: {picture}\n{:#?}", policies()));
        }
        wrong.extend(explained(&mut random, &cluster, &stage, &members, &ports));
    }
    eprintln!("{ROUNDS} rounds, {all} cells, {open} of them open");
    assert!(open > all / 10 && all - open > all / 10, "a table that shows something: {open} of {all}");
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), logs(&cluster));
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_random_policies_are_what_is_evaluated() {
    play(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_random_policies_are_what_is_evaluated_with_nftables() {
    play(&[NFTABLES]).await;
}

//! A pod whose first act is to send: with `--netpol-default-deny` it is isolated before anybody has told the agent that it
//! exists, and let go when its rules are there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::{Families, Pod};
use lab::probe::{Outcome, Probe, Protocol};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{SOON, Stage};
use crate::tables::{NFTABLES, cluster, logs};

const PATIENCE: Duration = Duration::from_secs(1);

/// Wires a pod and has it ask at once, as its first act and again and again, until `until` says that it is enough. The API
/// hears of it after `unknown`. Returns every outcome and the moment of the first answer after the start.
async fn born(
    cluster: &Cluster,
    name: &str,
    labels: Value,
    to: &[SocketAddr],
    unknown: Duration,
    until: impl Fn(&[Outcome], bool) -> bool,
) -> (Vec<Outcome>, Option<Duration>) {
    let node = cluster.node(1).unwrap().clone();
    let full = format!("x.{name}");
    let pod = tokio::task::spawn_blocking(move || Pod::new(&node, &full)).await.unwrap().unwrap();
    let start = Instant::now();
    let probe = Probe::new(name, pod.namespace()).patience(PATIENCE);
    let ips: Vec<Value> = pod.addresses().iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    let api = cluster.api();
    let announce = async {
        tokio::time::sleep(unknown).await;
        let spec = json!({
            "nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }],
        });
        let annotations = json!({ lab::kubelet::HANDS_OFF: "" });
        let metadata =
            json!({ "namespace": "x", "name": name, "labels": labels, "annotations": annotations });
        let object = json!({ "metadata": metadata, "spec": spec });
        api.create(Resource::Pods, object).unwrap();
        let hosts: Vec<Value> =
            cluster.node(1).unwrap().addresses().iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
        let status = json!({ "phase": "Running", "podIPs": ips, "podIP": ips[0]["ip"], "hostIPs": hosts, "hostIP": hosts[0]["ip"] });
        api.patch_status(Resource::Pods, Some("x"), name, &status).unwrap();
    };
    let asking = async {
        let (mut outcomes, mut first) = (Vec::new(), None);
        while start.elapsed() < SOON && !until(&outcomes, start.elapsed() > unknown) {
            for to in to {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let outcome = probe.ask(protocol, *to).await;
                    if outcome.is_ok() {
                        first.get_or_insert(start.elapsed());
                    }
                    outcomes.push(outcome);
                }
            }
        }
        (outcomes, first)
    };
    let ((), (outcomes, first)) = tokio::join!(announce, asking);
    api.delete(Resource::Pods, Some("x"), name, None).unwrap();
    (outcomes, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_before_the_rules_are_there() {
    for flags in [&["--netpol-default-deny"][..], &["--netpol-default-deny", NFTABLES], &[]] {
        let default_deny = !flags.is_empty();
        // Without the flag something passes in that time, however slow the machine.
        let unknown = Duration::from_secs(if default_deny { 3 } else { 20 });
        let mut cluster = cluster(Families::Dual, flags).await;
        let stage = Stage::new(cluster.api(), Some(&cluster)).await;
        let mut fence = Fence::new(&cluster).await;
        let quarantine = json!({ "podSelector": { "matchLabels": { "quarantine": "yes" } }, "policyTypes": ["Ingress", "Egress"] });
        stage.policy("x", "quarantine", quarantine);
        fence.pass().await;
        let members = stage.members();
        // On the same bridge and on another node.
        let to: Vec<SocketAddr> = ["x/b", "y/a"]
            .iter()
            .flat_map(|name| members.iter().find(|member| member.name == *name).unwrap().addresses.clone())
            .map(|ip| SocketAddr::new(ip, 80))
            .collect();
        let labels = json!({ "quarantine": "yes" });
        let enough = |outcomes: &[Outcome], known: bool| known && outcomes.len() > 60;
        let (outcomes, _) = born(&cluster, "isolated", labels, &to, unknown, enough).await;
        let passed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        eprintln!("{flags:?}: {passed} of {} questions of an isolated pod passed", outcomes.len());
        if !default_deny {
            // What the flag is for; and the proof that the test would see it.
            assert!(passed > 0, "without the flag the first packets pass: {outcomes:?}");
            continue;
        }
        assert_eq!(passed, 0, "{outcomes:?}\n{}", logs(&cluster));

        // A pod that no policy selects waits for its rules, too, and then is let go.
        let count = to.len() * 2;
        let all_pass = |outcomes: &[Outcome], _: bool| {
            outcomes.len() >= count && outcomes[outcomes.len() - count..].iter().all(Result::is_ok)
        };
        let (outcomes, first) = born(&cluster, "free", json!({}), &to, unknown, all_pass).await;
        let first = first.unwrap_or_else(|| panic!("it is never let go: {outcomes:?}\n{}", logs(&cluster)));
        eprintln!("a free pod was let go {:?} after the API had it", first.saturating_sub(unknown));
        assert!(first >= unknown, "it passed before anybody knew it: {first:?}");
        drop(stage);
        without_ranges(&mut cluster, &to).await;
    }
}

/// An agent starts on a node whose object does not say which IPv4 addresses pods have: their bridge tells. What the object
/// says later counts at once. A new pod is isolated both times.
async fn without_ranges(cluster: &mut Cluster, to: &[SocketAddr]) {
    let api = cluster.api();
    let ranges = api.get(Resource::Nodes, None, "node-1").unwrap()["spec"].clone();
    let set = |range: Value, ranges: Value| {
        let spec = json!({ "podCIDR": range, "podCIDRs": ranges });
        api.patch(Resource::Nodes, None, "node-1", &json!({ "spec": spec })).unwrap();
    };
    let second = ranges["podCIDRs"][1].clone();
    set(second.clone(), json!([second]));
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
    let labels = json!({ "quarantine": "yes" });
    let enough = |outcomes: &[Outcome], known: bool| known && outcomes.len() > 20;
    let network = ranges["podCIDR"].as_str().unwrap().to_owned();
    for known in [false, true] {
        if known {
            set(ranges["podCIDR"].clone(), ranges["podCIDRs"].clone());
        }
        let (there, gone) = if known { (&*network, "kube-bridge") } else { ("kube-bridge", &*network) };
        let judged = || async {
            let tools = ["iptables-save", "nft list ruleset"].iter();
            // A tool that lists while the agent writes may fail.
            let rules = tools.map(|line| cluster.on_node(1, line)).collect::<Result<String, _>>();
            let rules = rules.map_err(|error| error.to_string())?;
            let mut deny =
                rules.lines().filter(|line| line.contains("pre-netpol") && !line.contains("fd44:"));
            let all = deny.clone().count();
            let right = all > 0 && deny.all(|line| line.contains(there) && !line.contains(gone));
            if right { Ok(()) } else { Err(format!("default-deny by {there}: {rules}")) }
        };
        eventually(SOON, judged).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
        let name = format!("late-{known}");
        let (outcomes, _) = born(cluster, &name, labels.clone(), to, Duration::from_secs(1), enough).await;
        assert!(outcomes.iter().all(Result::is_err), "{there}: {outcomes:?}\n{}", logs(cluster));
    }
}

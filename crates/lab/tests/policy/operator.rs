//! What an operator is told is what packets do: `explain` against a truth table, `monitor` against refused connections,
//! `status` and `doctor` against the node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::policy::{Member, Port, Truth};
use lab::probe::Protocol;
use lab::process;
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::stage::{SOON, Stage, becomes, holds};
use crate::tables::{NFTABLES, cluster};

/// The node of each pod of a [`Stage`] whose answers are asked for.
const NODES: [(&str, usize); 6] = [("x/a", 1), ("x/b", 1), ("x/c", 2), ("y/a", 2), ("z/a", 3), ("z/b", 1)];

fn program() -> PathBuf {
    lab::cluster::agent_program().unwrap()
}

/// Runs a command of kube-router on a node, whatever its exit status, which is the last line of the output.
fn on_node(cluster: &Cluster, node: usize, arguments: &str) -> (String, i32) {
    let line = format!("{} {arguments}; status=$?; echo; echo $status", program().display());
    let run = move || process::run(process::command("sh").args(["-c", &line]));
    let text = cluster.node(node).unwrap().namespace().run(run).unwrap().unwrap();
    let (text, status) = text.trim_end().rsplit_once('\n').expect("an exit status");
    (text.to_owned(), status.parse().unwrap())
}

pub(crate) fn asked(cluster: &Cluster, node: usize, arguments: &str) -> Value {
    let ask = || on_node(cluster, node, &format!("{arguments} -o json"));
    let (mut text, mut status) = ask();
    for _ in 0..5 {
        // An agent that does not get the processor for long says nothing in time.
        if status != 0 {
            (text, status) = ask();
        }
    }
    assert_eq!(status, 0, "{arguments}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}: {text}"))
}

/// Some pods are isolated each way, by pods, by ports, by name of a port, by block.
async fn policies(stage: &Stage<'_>, fence: &mut Fence) {
    let labelled = |pod: &str| json!({ "matchLabels": { "pod": pod } });
    stage.policy("x", "only-b", json!({
        "podSelector": labelled("a"), "policyTypes": ["Ingress"],
        "ingress": [{ "from": [{ "namespaceSelector": {}, "podSelector": labelled("b") }], "ports": [{ "port": "serve-80-tcp" }] }],
    }));
    stage.policy("x", "nothing-out", json!({ "podSelector": labelled("c"), "policyTypes": ["Egress"] }));
    stage.policy(
        "y",
        "from-x",
        json!({
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "namespaceSelector": { "matchLabels": { "ns": "x" } } }] }],
        }),
    );
    stage.policy(
        "z",
        "to-81",
        json!({
            "podSelector": labelled("a"), "policyTypes": ["Egress"],
            "egress": [{ "ports": [{ "port": 81, "protocol": "UDP" }] }],
        }),
    );
    fence.pass().await;
}

/// The policies are in force; the pods that are asked about, and the ports.
async fn scene(cluster: &Cluster) -> (Vec<Member>, Vec<Port>) {
    let stage = Stage::new(cluster.api(), Some(cluster)).await;
    let mut fence = Fence::new(cluster).await;
    policies(&stage, &mut fence).await;
    let members: Vec<Member> = stage
        .members()
        .into_iter()
        .filter(|member| NODES.iter().any(|(name, _)| *name == member.name))
        .collect();
    let ports: Vec<Port> = ["80/TCP", "81/UDP"].map(|port| port.parse().unwrap()).to_vec();
    holds("before anybody is asked", &members, &ports, &stage.objects()).await;
    (members, ports)
}

/// Shared chains do not name a pod: what is told of a packet has to come from its addresses.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_names_pods_and_policies_with_nftables() {
    let cluster = cluster(Families::Dual, &[NFTABLES]).await;
    let (members, _) = scene(&cluster).await;
    explain_names_policies_and_says_who_enforces(&cluster, &members);
    status_names_policies(&cluster);
    monitor_tells_of_refused_packets(&cluster, &members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_packets_do() {
    let mut cluster = cluster(Families::Dual, &[]).await;
    let (members, ports) = scene(&cluster).await;
    explain_agrees(&cluster, &members, &ports).await;
    explain_names_policies_and_says_who_enforces(&cluster, &members);
    status_names_policies(&cluster);
    monitor_tells_of_refused_packets(&cluster, &members).await;
    let pid = cluster.agent(1).expect("it runs").pid();
    doctor_finds_what_is_broken(&cluster, pid);
}

/// Every pair, asked of the sender's node for IPv4 and of the receiver's for IPv6: both know all policies.
async fn explain_agrees(cluster: &Cluster, members: &[Member], ports: &[Port]) {
    let node = |at: usize| NODES.iter().find(|(name, _)| *name == members[at].name).unwrap().1;
    let told = Truth::new(members, ports, |question| {
        let [from, to] = [question.from, question.to].map(|at| members[at].addresses[question.family]);
        let at = if question.family == 0 { node(question.from) } else { node(question.to) };
        let (port, protocol) = (question.port.number, question.port.protocol.to_string().to_lowercase());
        let line = format!("explain --from {from} --to {to} --port {port} --protocol {protocol}");
        match asked(cluster, at, &line)["verdict"].as_str() {
            Some("allowed") => true,
            Some("denied") => false,
            other => panic!("{line}: {other:?}"),
        }
    });
    let (all, passing) = told.count();
    assert!(passing > 10 && all - passing > 10, "{passing} of {all} pass: a table that shows something");
    if let Err(picture) = becomes(members, ports, &told).await {
        panic!("explain (against packets): {picture}");
    }
    eprintln!("explain agreed with packets on {all} cells, {passing} of them open");
}

fn explain_names_policies_and_says_who_enforces(cluster: &Cluster, members: &[Member]) {
    // y/a is on node 2; asked on node 1, where its sender is.
    let refused = asked(cluster, 1, "explain --from z/b --to y/a --port 80");
    let paths = refused["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2, "one of each family: {refused:#}");
    for path in paths {
        assert_eq!(path["ingress"]["outcome"], "refused", "{path:#}");
        assert_eq!(path["ingress"]["policies"], json!(["y/from-x"]));
        assert_eq!(path["ingress"]["enforced_here"], false);
        assert_eq!(path["ingress"]["node"], "node-2");
        assert_eq!(path["egress"]["outcome"], "not_isolated");
        assert_eq!((&path["source_pod"], &path["destination_pod"]), (&json!("z/b"), &json!("y/a")));
    }
    let (text, status) = on_node(cluster, 1, "explain --from z/b --to y/a --port 80");
    assert_eq!(status, 0, "a denial is an answer");
    assert!(text.contains("denied: y/from-x restricts what y/a receives"), "{text}");
    assert!(text.contains("(enforced by node node-2, not here)") && !text.contains('\u{1b}'), "{text}");

    // The kernel's route is the one `ip route get` tells for a packet that comes in from the pod.
    let [from, to] =
        ["x/a", "y/a"].map(|name| members.iter().find(|member| member.name == name).unwrap().addresses[0]);
    let told = &asked(cluster, 1, "explain --from x/a --to y/a --port 80")["paths"];
    let told = told.as_array().unwrap().iter().find(|path| path["destination"] == to.to_string()).unwrap();
    let link = cluster.on_node(1, &format!("ip -j route get {from}")).unwrap();
    let link: Value = serde_json::from_str(&link).unwrap();
    let line = format!("ip -j route get {to} from {from} iif {}", link[0]["dev"].as_str().unwrap());
    let judge: Value = serde_json::from_str(&cluster.on_node(1, &line).unwrap()).unwrap();
    assert_eq!(told["route"]["link"], judge[0]["dev"], "{told:#} against {judge:#}");
    assert_eq!(told["route"]["via"], judge[0]["gateway"], "{told:#} against {judge:#}");

    for (line, says) in [
        ("explain --from x/nobody --to y/a", "pod \"x/nobody\" is not known here"),
        ("explain --from x/a --to nowhere", "pod or Service \"nowhere\" is not known here"),
    ] {
        let (text, status) = on_node(cluster, 1, &format!("{line} 2>&1"));
        assert!(status == 1 && text.contains(says), "{status}: {text}");
    }
}

fn status_names_policies(cluster: &Cluster) {
    let status = asked(cluster, 1, "status policies");
    assert!(status.get("tables").is_none(), "only what was asked for: {status:#}");
    let pods = status["policies"].as_array().unwrap();
    let names: Vec<&str> = pods.iter().map(|pod| pod["pod"].as_str().unwrap()).collect();
    assert_eq!(names, ["gates/gate-1", "x/a", "x/b", "z/b"], "the pods of this node");
    let a = &pods[1];
    assert_eq!(
        (&a["ingress"], &a["egress"], &a["programmed"]),
        (&json!(["x/only-b"]), &json!([]), &json!(true))
    );
    assert_eq!(a["addresses"].as_array().map(Vec::len), Some(2));
}

/// Two watchers at once; the log is read by nobody before and after.
async fn monitor_tells_of_refused_packets(cluster: &Cluster, members: &[Member]) {
    let readers = |cluster: &Cluster| cluster.on_node(1, "cat /proc/net/netfilter/nfnetlink_log").unwrap();
    assert_eq!(readers(cluster).trim(), "", "nobody reads the packet log while nobody watches");
    let member = |name: &str| members.iter().find(|member| member.name == name).unwrap();
    let to = SocketAddr::new(member("x/a").addresses[0], 80);
    let asking = member("y/a").probe.clone().unwrap().patience(Duration::from_secs(1));
    let rate = asking.rate(Protocol::Tcp, to, 5, Duration::from_secs(600));
    let watch = |more: &str| {
        let line = format!("{} monitor --count 1 --pod x/a {more} 2>&1", program().display());
        let node = cluster.node(1).unwrap().clone();
        std::thread::spawn(move || {
            node.namespace()
                .run(move || process::run(process::command("timeout").args(["60", "sh", "-c", &line])))
                .unwrap()
                .unwrap()
        })
    };
    let (for_programs, for_people) = (watch("-o json"), watch(""));
    let [json, text] = [for_programs, for_people].map(|watch| watch.join().unwrap());
    rate.stop().await;
    let denied: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!((&denied["pod"], &denied["direction"]), (&json!("x/a"), &json!("ingress")), "{denied:#}");
    assert_eq!(denied["from"]["pod"], "y/a", "{denied:#}");
    assert_eq!((&denied["to"]["port"], &denied["protocol"]), (&json!(80), &json!("tcp")));
    assert_eq!(denied["policies"], json!(["x/only-b"]));
    assert!(text.contains("this is a sample") && text.contains("restricted by x/only-b"), "{text}");
    let look = || async {
        match readers(cluster).trim() {
            "" => Ok(()),
            other => Err(format!("nobody reads the packet log any more: {other}")),
        }
    };
    eventually(SOON, look).await.unwrap();
}

fn doctor_finds_what_is_broken(cluster: &Cluster, agent: u32) {
    let checks = |text: &str| -> Vec<Value> {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let found = |all: &[Value], about: &str, level: &str| {
        all.iter().any(|check| check["about"] == about && check["level"] == level)
    };
    let before = cluster.on_node(1, "iptables-save").unwrap();
    let (text, status) = on_node(cluster, 1, "doctor -o json");
    let all = checks(&text);
    assert_eq!(status, 0, "{text}");
    for about in ["agent", "capabilities", "iptables", "forwarding", "api server", "access", "node", "clock"]
    {
        assert!(found(&all, about, "fine"), "{about}: {text}");
    }
    for line in [
        "sysctl -qw net.ipv4.ip_forward=0",
        "iptables -N KUBE-SVC-ABCDEFGHIJKLMNOP",
        "ip link add kube-ipvs0 type bridge",
        "nft add table inet guard ; add chain inet guard gate { type filter hook forward priority 10 ; policy drop ; }",
    ] {
        cluster.on_node(1, line).unwrap();
    }
    // As if the service proxy were to run, too; the way to the API server is the agent's.
    let line = std::fs::read_to_string(format!("/proc/{agent}/cmdline")).unwrap();
    let master =
        line.split('\0').find(|argument| argument.starts_with("--master=")).expect("a flag of the agent");
    let flags = format!("doctor -o json -- --run-router=false --hostname-override=no-such {master}");
    let (text, status) = on_node(cluster, 1, &flags);
    let all = checks(&text);
    assert_eq!(status, 1, "{text}");
    for about in ["forwarding", "kube-proxy", "node"] {
        assert!(found(&all, about, "problem"), "{about}: {text}");
    }
    assert!(found(&all, "nftables", "warning"), "a table of others drops: {text}");
    assert!(
        all.iter().all(|check| check["level"] != "problem" || check["fix"].is_string()),
        "each with its fix: {text}"
    );
    for line in [
        "sysctl -qw net.ipv4.ip_forward=1",
        "iptables -X KUBE-SVC-ABCDEFGHIJKLMNOP",
        "ip link del kube-ipvs0",
        "nft delete table inet guard",
    ] {
        cluster.on_node(1, line).unwrap();
    }
    let rules = |text: &str| {
        text.lines().filter(|line| !line.starts_with(['#', ':'])).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rules(&cluster.on_node(1, "iptables-save").unwrap()), rules(&before), "it writes nothing");
}

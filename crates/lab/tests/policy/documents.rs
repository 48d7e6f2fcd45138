//! Commands of the pages that want a running agent: each block behind a mark is run as it stands, on a node whose agent
//! enforces policies and routes pods, once with either packet filter.
//!
//! The cluster is the one the pages speak of: `default/client` asks `shop/db`, which is for `shop/api` alone. What shows
//! services in the kernel has a mark of its own and runs in the VM.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, agent_program, eventually, is_ready};
use lab::node::Families;
use lab::probe::Protocol;
use lab::process;
use serde_json::{Value, json};

use crate::operator::asked;
use crate::pages::{IPTABLES, IPVS, NFTABLES, NODE, pages};
use crate::stage::SOON;

/// Flags of the agents. No tunnels: not every kernel has them, and one subnet needs none.
const FLAGS: [&str; 6] = [
    "--run-firewall=true",
    "--run-router=true",
    "--enable-ipv6=true",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--enable-overlay=false",
    "--metrics-port=8080",
];
/// Seconds a block may take: ten refused packets a minute are logged, and `kube-router monitor` waits for one.
const PATIENCE: &str = "120";
const DATABASE: u16 = 5432;

#[tokio::test(flavor = "multi_thread")]
async fn marked_commands_run_with_iptables() {
    marked_commands_run(&[NODE, IPTABLES], &["--firewall-backend=iptables", "--run-service-proxy=false"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_commands_run_with_nftables() {
    marked_commands_run(&[NODE, NFTABLES], &["--firewall-backend=nftables", "--run-service-proxy=false"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn marked_commands_run_with_ipvs() {
    marked_commands_run(&[IPVS], &["--firewall-backend=iptables", "--run-service-proxy=true"]).await;
}

async fn marked_commands_run(marks: &[&str], flags: &[&str]) {
    let pages = pages();
    let marked: Vec<(&Path, &str)> = marks
        .iter()
        .flat_map(|mark| pages.iter().map(move |page| (page, mark)))
        .flat_map(|(page, mark)| page.marked(mark).map(|code| (page.path.as_path(), code)))
        .collect();
    assert!(marked.len() >= marks.len(), "{} blocks are marked", marked.len());
    let cluster = cluster(flags).await;
    let database = SocketAddr::new(address(&cluster, "shop", "db"), DATABASE);
    let client = cluster.pod_probe("default", "client").expect("it runs").patience(Duration::from_secs(1));
    let refused = client.rate(Protocol::Tcp, database, 2, Duration::from_secs(3600));
    let mut failed = Vec::new();
    for (page, code) in marked {
        if let Err(error) = type_in(&cluster, code.to_owned()).await {
            failed.push(format!("{}:\n{code}\n{error}\n", page.display()));
        }
    }
    refused.stop().await;
    assert!(failed.is_empty(), "with {flags:?}: {}", failed.join("\n"));
}

/// Two nodes with agents, and the pods and the policy of the pages; returns when the policy is in force.
async fn cluster(more: &[&str]) -> Cluster {
    let flags = FLAGS.iter().chain(more).map(|flag| (*flag).to_owned());
    let builder = Cluster::builder().nodes(2).families(Families::Dual).route_pods(false);
    let mut cluster = builder.agent_flags(flags).start().await.unwrap();
    // Before there are pods: an agent that finds a wired one takes itself for the successor of another.
    cluster.agents_ready(3 * SOON).await.unwrap_or_else(|error| panic!("{error}"));
    let api = cluster.api();
    api.create(Resource::Namespaces, json!({ "metadata": { "name": "shop" } })).unwrap();
    for (namespace, name, node, port) in
        [("default", "client", 2, 80), ("shop", "api", 2, 80), ("shop", "db", 1, DATABASE)]
    {
        let pod = json!({
            "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
            "spec": {
                "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "c", "image": "lab", "ports": [{ "containerPort": port }] }],
            },
        });
        api.create(Resource::Pods, pod).unwrap();
    }
    let service = json!({
        "metadata": { "namespace": "shop", "name": "api" },
        "spec": { "selector": { "app": "api" }, "ports": [{ "port": 80 }] },
    });
    api.create(Resource::Services, service).unwrap();
    let app = |name: &str| json!({ "matchLabels": { "app": name } });
    let policy = json!({
        "metadata": { "namespace": "shop", "name": "only-api" },
        "spec": {
            "podSelector": app("db"), "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": app("api") }], "ports": [{ "port": DATABASE }] }],
        },
    });
    api.create(Resource::NetworkPolicies, policy).unwrap();
    eventually(3 * SOON, || in_force(&cluster)).await.unwrap();
    cluster
}

/// Every pod is ready, and the policy is in the kernel of the database's node.
async fn in_force(cluster: &Cluster) -> Result<(), String> {
    let pods = cluster.api().list(Resource::Pods, None);
    if let Some(pod) = pods.iter().find(|pod| !is_ready(pod)) {
        return Err(format!("every pod is ready: {pod}"));
    }
    let status = asked(cluster, 1, "status policies");
    let pods = status["policies"].as_array().unwrap();
    let database = pods.iter().find(|pod| pod["pod"] == "shop/db");
    let here = |pod: &Value| pod["programmed"] == true && pod["ingress"] == json!(["shop/only-api"]);
    if database.is_some_and(here) { Ok(()) } else { Err(format!("the policy is in force: {status:#}")) }
}

fn address(cluster: &Cluster, namespace: &str, name: &str) -> IpAddr {
    let pod = cluster.api().get(Resource::Pods, Some(namespace), name).expect("it is there");
    pod["status"]["podIPs"][0]["ip"].as_str().unwrap().parse().unwrap()
}

/// Runs a block on node 1 as a reader would type it there, with `kube-router` on the path.
async fn type_in(cluster: &Cluster, code: String) -> Result<String, String> {
    let program = agent_program().unwrap();
    let folder = program.parent().expect("a path with a folder").to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let work = move || {
        let mut shell = process::command("timeout");
        process::run(shell.args([PATIENCE, "sh", "-euc", &code]).env("PATH", path))
    };
    let done = cluster.node(1).unwrap().namespace().run_async(work).await.unwrap();
    done.map_err(|error| error.to_string())
}

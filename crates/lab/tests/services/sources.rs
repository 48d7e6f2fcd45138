//! Who the backend sees: sources kept where replies return by themselves, masqueraded where they would not, and the
//! service's own address for a pod that reaches itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::cluster::Cluster;
use lab::probe::{Failure, Probe, Protocol};
use serde_json::{Value, json};

use crate::setup::{
    NFTABLES, ROUTER, TABLES, answer_by, cluster, cluster_ips, flags, in_pod, node_port, pod, pod_ips,
    programmed, ready, service, tool,
};

/// External IPs of the service under test, IPv4 first.
const EXTERNAL: [&str; 2] = ["203.0.113.9", "fd03::9"];

/// Asks until `backend` answers on TCP and on UDP; it must have seen `source` both times.
async fn seen_as(about: &str, probe: &Probe, to: IpAddr, ports: [u16; 2], backend: &str, source: IpAddr) {
    for (protocol, port) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(ports) {
        let cell = (probe.clone(), protocol, SocketAddr::new(to, port));
        let answer = answer_by(about, &cell, backend).await;
        assert_eq!(answer.source.ip(), source, "{about}: {protocol} to {to}, seen by {backend}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn backends_see_who_asks() {
    sources(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn backends_see_who_asks_with_nftables() {
    sources(&[NFTABLES]).await;
}

/// Where the agents route pods themselves, the rule is upstream's: it spares the same clients.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn backends_see_who_asks_with_pod_routing() {
    sources(&[ROUTER]).await;
}

async fn sources(more: &[&str]) {
    let mut cluster = cluster(2, more).await;
    let web = service(
        &cluster,
        "web",
        "web",
        json!({
            "metadata": { "annotations": {
                "kube-router.io/service.hairpin": "", "kube-router.io/service.hairpin.externalips": "",
            } },
            "spec": { "type": "NodePort", "externalIPs": EXTERNAL },
        }),
    );
    let plain = service(&cluster, "plain", "web", json!({}));
    let older = json!({ "metadata": { "annotations": { "kube-router.io/hairpin-mode": "" } } });
    let older = service(&cluster, "older", "web", older);
    for (name, node, app) in [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client")] {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1"]).await;
    for family in [0, 1] {
        clients_are_seen(&cluster, &web, family).await;
        a_pod_reaches_itself(&cluster, &web, family).await;
        let pod = in_pod(&cluster, "web-1");
        let vip = cluster_ips(&older)[family];
        seen_as("by the older annotation", &pod, vip, [80, 53], "web-1", vip).await;
        without_hairpin_it_does_not(&cluster, &plain, family).await;
    }

    cluster.set_agent_flags(1, flags(&[&["--masquerade-all", "--hairpin-mode"], more].concat())).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    let outside = cluster.outside_probe();
    let ports = [node_port(&web, 0), node_port(&web, 1)];
    for node in cluster.node(1).unwrap().addresses() {
        let about = "--masquerade-all, local backend";
        seen_as(about, &outside, node, ports, "web-1", node).await;
    }
    for vip in cluster_ips(&plain) {
        let pod = in_pod(&cluster, "web-1");
        seen_as("by --hairpin-mode, without annotation", &pod, vip, [80, 53], "web-1", vip).await;
    }
    cluster.set_agent_flags(1, flags(more)).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    let commands = match more.contains(&NFTABLES) {
        true => TABLES.map(|table| format!("nft list chain {table} nat-POSTROUTING")),
        false => ["iptables-save -t nat", "ip6tables-save -t nat"].map(str::to_owned),
    };
    for command in commands {
        let rules = tool(&cluster, 1, &command);
        let masquerades = |line: &&str| {
            line.starts_with("-A POSTROUTING") && line.contains("SNAT") || line.contains("snat to")
        };
        let ours = rules.lines().filter(masquerades);
        assert_eq!(ours.count(), 1, "the rule of --masquerade-all goes with the flag: {rules}");
    }
}

async fn clients_are_seen(cluster: &Cluster, web: &Value, family: usize) {
    let node = cluster.node(1).unwrap().addresses()[family];
    let client = cluster.outside().addresses()[family];
    let vip = cluster_ips(web)[family];
    let ports = [node_port(web, 0), node_port(web, 1)];
    let outside = cluster.outside_probe();
    seen_as("from outside, local backend", &outside, node, ports, "web-1", client).await;
    seen_as("from outside, remote backend", &outside, node, ports, "web-2", node).await;
    let pod = in_pod(cluster, "c-1");
    let own = pod_ips(cluster, "c-1")[family];
    seen_as("from a pod, local backend", &pod, vip, [80, 53], "web-1", own).await;
    seen_as("from a pod, remote backend", &pod, vip, [80, 53], "web-2", own).await;
    let host = cluster.node_probe(1).unwrap();
    seen_as("from the node, local backend", &host, vip, [80, 53], "web-1", node).await;
    seen_as("from the node, remote backend", &host, vip, [80, 53], "web-2", node).await;
}

async fn a_pod_reaches_itself(cluster: &Cluster, web: &Value, family: usize) {
    let pod = in_pod(cluster, "web-1");
    let vip = cluster_ips(web)[family];
    seen_as("a pod through its cluster IP", &pod, vip, [80, 53], "web-1", vip).await;
    let node = cluster.node(1).unwrap().addresses()[family];
    let ports = [node_port(web, 0), node_port(web, 1)];
    seen_as("a pod through its node port", &pod, node, ports, "web-1", node).await;
    let external = EXTERNAL[family].parse().unwrap();
    seen_as("a pod through its external IP", &pod, external, [80, 53], "web-1", external).await;
}

/// The control: without the annotation the bridge or the pod drops what comes back to its sender.
async fn without_hairpin_it_does_not(cluster: &Cluster, plain: &Value, family: usize) {
    let pod = in_pod(cluster, "web-1").patience(Duration::from_millis(500));
    let to = SocketAddr::new(cluster_ips(plain)[family], 80);
    for _ in 0..4 {
        match pod.ask(Protocol::Tcp, to).await {
            Ok(answer) => assert_eq!(answer.by, "web-2", "no hairpin was asked for"),
            Err(failure) => assert_eq!(failure, Failure::Timeout),
        }
    }
}

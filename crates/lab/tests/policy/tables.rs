//! The cases, by packets: one cluster for all of them, a truth table after each step.

use std::time::Instant;

use lab::cluster::Cluster;
use lab::node::Families;
use lab::policy::Truth;

use crate::case::Case;
use crate::fence::Fence;
use crate::stage::{SOON, Stage, becomes};

/// Flags of every agent of these tests: policy alone.
pub(crate) const FLAGS: [&str; 4] =
    ["--run-firewall=true", "--run-service-proxy=false", "--run-router=false", "--metrics-port=20241"];

/// The second packet filter; without it the agents take iptables, which is installed.
pub(crate) const NFTABLES: &str = "--firewall-backend=nftables";

/// [`FLAGS`] for these families, and more.
pub(crate) fn flags(families: Families, more: &[&str]) -> Vec<String> {
    let family = match families {
        Families::V4 => ["--enable-ipv6=false", "--service-cluster-ip-range=10.96.0.0/16"].as_slice(),
        Families::V6 => {
            &["--enable-ipv4=false", "--enable-ipv6=true", "--service-cluster-ip-range=fd96::/112"]
        }
        Families::Dual => &["--enable-ipv6=true", "--service-cluster-ip-range=10.96.0.0/16,fd96::/112"],
    };
    FLAGS.iter().chain(family).chain(more).map(|flag| (*flag).to_owned()).collect()
}

/// Three nodes with agents, ready.
pub(crate) async fn cluster(families: Families, more: &[&str]) -> Cluster {
    let builder = Cluster::builder().nodes(3).families(families).agent_flags(flags(families, more));
    let mut cluster = builder.start().await.unwrap();
    for node in cluster.nodes() {
        // Refusals are answered by ICMP; a table asks for more of them than hosts send by default.
        let limits = [
            ("net/ipv4/icmp_ratelimit", "0"),
            ("-net/ipv4/icmp_msgs_per_sec", "100000"),
            ("-net/ipv4/icmp_msgs_burst", "10000"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ];
        node.namespace().sysctls(&limits).unwrap();
    }
    if let Err(error) = cluster.agents_ready(SOON).await {
        panic!("{error}\n{}", logs(&cluster));
    }
    cluster
}

/// The end of what every agent has printed.
pub(crate) fn logs(cluster: &Cluster) -> String {
    let end = |node: usize| {
        let text = std::fs::read_to_string(cluster.agent_log(node).unwrap()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("node-{node}:\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
    };
    (1..=cluster.nodes().len()).map(end).collect()
}

/// Plays the cases one after the other and says at the end which did not hold.
async fn play(families: Families, cases: Vec<Case>, more: &[&str]) {
    let cluster = cluster(families, more).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    let (mut wrong, mut cells, mut steps) = (Vec::new(), 0, 0);
    let count = cases.len();
    let start = Instant::now();
    for case in cases {
        let began = Instant::now();
        let ports = case.ports();
        for (number, step) in (1..).zip(&case.steps) {
            stage.take(step).await;
            fence.pass().await;
            let members = stage.members();
            let expected = Truth::expected(&members, &ports, &stage.objects());
            cells += expected.count().0;
            steps += 1;
            if let Err(picture) = becomes(&members, &ports, &expected).await {
                eprintln!("{}, step {number}: {picture}", case.name);
                wrong.push(format!("{}, step {number}", case.name));
                assert!(wrong.len() < 5, "enough: {wrong:#?}\n{}", logs(&cluster));
            }
        }
        stage.reset().await;
        eprintln!(
            "{:6.1} s  {} ({:.1} s)",
            start.elapsed().as_secs_f32(),
            case.name,
            began.elapsed().as_secs_f32()
        );
    }
    eprintln!(
        "{families:?}: {count} cases, {steps} tables, {cells} cells; the slowest change took {:?}",
        fence.slowest
    );
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_in_both_families() {
    play(Families::Dual, Case::read(""), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_in_both_families_with_nftables() {
    play(Families::Dual, Case::read(""), &[NFTABLES]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_cases_in_ipv4_alone() {
    play(Families::V4, Case::read("e2e-"), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_cases_in_ipv6_alone() {
    play(Families::V6, Case::read("e2e-"), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_cases_in_ipv6_alone_with_nftables() {
    play(Families::V6, Case::read("e2e-"), &[NFTABLES]).await;
}

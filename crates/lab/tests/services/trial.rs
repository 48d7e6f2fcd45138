//! Trying kube-router in place of kube-proxy, and going back: what kube-proxy left is named with the commands that remove
//! it, these commands are run as printed, services work, and after the clean-up the node is as it was. Then the same
//! for each controller alone and for all of them.

use std::net::SocketAddr;

use lab::cluster::Cluster;
use lab::probe::{Failure, Protocol};
use lab::process;
use serde_json::json;

use crate::setup::{
    SOON, agent_program, cluster_ips, fails, flags, in_pod, log, pod, programmed, reach, ready, service,
    snapshot, tool,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn in_place_of_kube_proxy_and_back() {
    let mut cluster = Cluster::builder().nodes(1).dual_stack().start().await.unwrap();
    for (name, app) in [("web-1", "web"), ("c-1", "client")] {
        pod(&cluster, name, 1, app);
    }
    ready(&cluster, &["web-1", "c-1"]).await;
    let before = snapshot(&cluster, 1);
    let web = service(&cluster, "web", "web", json!({}));
    let vip = SocketAddr::new(cluster_ips(&web)[0], 80);
    let cell = [(in_pod(&cluster, "c-1"), Protocol::Tcp, vip)];
    leave_what_kube_proxy_leaves(&cluster, vip);

    start(&mut cluster, &[]).await;
    fails("kube-proxy's rules win", &cell, &[Failure::Timeout, Failure::Unreachable]).await;
    let remedies = remedies(&cluster);
    assert_eq!(remedies.len(), 3, "iptables, ip6tables, the link: {remedies:#?}");
    let kubelets = "iptables -t nat -N KUBE-MARK-MASQ";
    tool(&cluster, 1, kubelets);
    for remedy in remedies {
        let run = move || process::run(process::command("sh").args(["-ec", &remedy]));
        cluster.node(1).unwrap().namespace().run(run).unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
    reach("as soon as it is gone", &cell, &["web-1"]).await;
    let rules = tool(&cluster, 1, "iptables-save");
    assert!(rules.contains("-j KUBE-ROUTER-SERVICES"), "ours stay: {rules}");
    tool(&cluster, 1, &kubelets.replace("-N", "-X"));
    stop(&mut cluster);

    start(&mut cluster, &[]).await;
    assert_eq!(self::remedies(&cluster).len(), 3, "nothing more is said once it is gone");
    reach("with the service proxy alone", &cell, &["web-1"]).await;
    stop(&mut cluster);
    reach("while no agent runs", &cell, &["web-1"]).await;
    clean_up(&cluster);
    assert_eq!(snapshot(&cluster, 1), before, "after the service proxy");

    let off = "--run-service-proxy=false";
    let subsets: [(&str, &[&str]); 3] = [
        ("network policy beside another CNI plugin", &[off, "--run-firewall=true"]),
        ("pod routing", &[off, "--run-router=true"]),
        ("everything", &["--run-firewall=true", "--run-router=true"]),
    ];
    for (about, more) in subsets {
        start(&mut cluster, more).await;
        assert_ne!(snapshot(&cluster, 1), before, "{about} does something");
        stop(&mut cluster);
        clean_up(&cluster);
        assert_eq!(snapshot(&cluster, 1), before, "after {about}");
    }
}

/// A service that leads nowhere, as kube-proxy's iptables mode leaves it when its pods are gone, in both families; and the
/// link of its IPVS mode.
fn leave_what_kube_proxy_leaves(cluster: &Cluster, vip: SocketAddr) {
    for line in [
        "iptables -t nat -N KUBE-SERVICES".to_owned(),
        "iptables -t nat -N KUBE-SVC-WEB".to_owned(),
        format!("iptables -t nat -A KUBE-SERVICES -d {}/32 -p tcp --dport 80 -j KUBE-SVC-WEB", vip.ip()),
        "iptables -t nat -A KUBE-SVC-WEB -p tcp -j DNAT --to-destination 192.0.2.200:80".to_owned(),
        "iptables -t nat -A PREROUTING -j KUBE-SERVICES".to_owned(),
        "iptables -t nat -A OUTPUT -j KUBE-SERVICES".to_owned(),
        "ip6tables -t nat -N KUBE-SERVICES".to_owned(),
        "ip6tables -t nat -A PREROUTING -j KUBE-SERVICES".to_owned(),
        "ip link add kube-ipvs0 type dummy".to_owned(),
    ] {
        tool(cluster, 1, &line);
    }
}

/// The commands the log names, as they are printed.
fn remedies(cluster: &Cluster) -> Vec<String> {
    let marker = "stop kube-proxy on this node, then run: ";
    let log = log(cluster, 1);
    log.lines().filter_map(|line| line.split_once(marker)).map(|(_, command)| command.to_owned()).collect()
}

async fn start(cluster: &mut Cluster, more: &[&str]) {
    cluster.set_agent_flags(1, flags(more)).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
}

fn stop(cluster: &mut Cluster) {
    assert_eq!(cluster.take_agent(1).expect("it runs").stop(SOON), Some(0));
}

fn clean_up(cluster: &Cluster) {
    let program = agent_program();
    let clean = move || process::run(process::command(program).arg("--cleanup-config"));
    cluster.node(1).unwrap().namespace().run(clean).unwrap().expect("--cleanup-config exits 0");
}

//! The service firewall: what else is sent to a service's address.

use std::net::{IpAddr, SocketAddr};

use lab::cluster::Cluster;
use lab::probe::{Failure, Probe, Protocol};
use serde_json::json;

use crate::setup::{
    Cell, NFTABLES, TABLES, cluster, cluster_ips, fails, in_pod, node_port, pod, programmed, reach, ready,
    service, tool, until,
};

fn cells(probe: &Probe, protocol: Protocol, ips: &[IpAddr], port: u16) -> Vec<Cell> {
    ips.iter().map(|ip| (probe.clone(), protocol, SocketAddr::new(*ip, port))).collect()
}

/// A ping by the pod's own ping program.
fn answers_ping(probe: &Probe, ip: IpAddr) -> Result<String, String> {
    let line = ["-c", "1", "-W", "60", "-n", &ip.to_string()].map(str::to_owned);
    let ping = move || lab::process::run(lab::process::command("ping").args(line));
    probe.namespace().run(ping).unwrap().map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn service_addresses_answer_on_service_ports_only() {
    firewall(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn service_addresses_answer_on_service_ports_only_with_nftables() {
    firewall(&[NFTABLES]).await;
}

async fn firewall(more: &[&str]) {
    let nftables = more.contains(&NFTABLES);
    let mut cluster = cluster(1, more).await;
    let web = service(&cluster, "web", "web", json!({ "spec": { "type": "NodePort" } }));
    pod(&cluster, "web-1", 1, "web");
    pod(&cluster, "c-1", 1, "client");
    ready(&cluster, &["web-1", "c-1"]).await;
    let client = in_pod(&cluster, "c-1");
    let ips = cluster_ips(&web);
    // Something on the node listens on every address: the firewall alone keeps it from service addresses.
    let node = cluster.node_probe(1).unwrap();
    let _tcp = node.serve(Protocol::Tcp, 2222).await.unwrap();
    let _udp = node.serve(Protocol::Udp, 2222).await.unwrap();

    reach("the service's own port", &cells(&client, Protocol::Tcp, &ips, 80), &["web-1"]).await;
    fails("another TCP port", &cells(&client, Protocol::Tcp, &ips, 2222), &[Failure::Refused]).await;
    fails("another UDP port", &cells(&client, Protocol::Udp, &ips, 2222), &[Failure::Refused]).await;
    fails("the port of another protocol", &cells(&client, Protocol::Udp, &ips, 80), &[Failure::Refused])
        .await;
    let own = cluster.node(1).unwrap().addresses();
    let outside = cluster.outside_probe();
    let port = node_port(&web, 0);
    reach("a node port", &cells(&outside, Protocol::Tcp, &own, port), &["web-1"]).await;
    reach("the node's other ports", &cells(&outside, Protocol::Tcp, &own, 2222), &["node-1"]).await;
    for ip in ips.iter().chain(&own) {
        answers_ping(&client, *ip).unwrap_or_else(|error| panic!("ping {ip}: {error}"));
    }
    match nftables {
        true => sets_and_rules_of_nftables(&cluster, &ips, &own, port),
        false => sets_and_rules(&cluster, &ips, &own, port),
    }

    let replaced = crate::setup::flags(&[&["--ipvs-permit-all=false"], more].concat());
    cluster.set_agent_flags(1, replaced).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    let none =
        |text: &str| !text.contains("-j KUBE-ROUTER-SERVICES") && !text.contains("jump KUBE-ROUTER-SERVICES");
    let commands = match nftables {
        true => TABLES.map(|table| format!("nft list table {table}")),
        false => ["iptables-save -t filter", "ip6tables-save -t filter"].map(str::to_owned),
    };
    for command in commands {
        until("no jump", &cluster, 1, &command, none).await;
    }
    reach("without the firewall", &cells(&client, Protocol::Tcp, &ips, 2222), &["node-1"]).await;
    reach("services as before", &cells(&client, Protocol::Tcp, &ips, 80), &["web-1"]).await;
}

/// What Go kube-router would find and understand.
fn sets_and_rules(cluster: &Cluster, ips: &[IpAddr], own: &[IpAddr], port: u16) {
    let sets = tool(cluster, 1, "ipset save");
    let tables = [tool(cluster, 1, "iptables-save -t filter"), tool(cluster, 1, "ip6tables-save -t filter")];
    for ((prefix, rules), (ip, node)) in ["", "inet6:"].into_iter().zip(tables).zip(ips.iter().zip(own)) {
        for member in [
            format!("add {prefix}kube-router-svip {ip}\n"),
            format!("add {prefix}kube-router-svip {node}\n"),
            format!("add {prefix}kube-router-local-ips {node}\n"),
            format!("add {prefix}kube-router-svip-prt {ip},tcp:80\n"),
            format!("add {prefix}kube-router-svip-prt {ip},udp:53\n"),
            format!("add {prefix}kube-router-svip-prt {ip},sctp:132\n"),
            format!("add {prefix}kube-router-svip-prt {node},tcp:{port}\n"),
        ] {
            assert!(sets.contains(&member), "no {member:?} in {sets}");
        }
        let jump = rules.lines().find(|line| line.starts_with("-A INPUT")).unwrap_or_default();
        assert!(
            jump.contains(&format!("--match-set {prefix}kube-router-svip dst"))
                && jump.ends_with("KUBE-ROUTER-SERVICES"),
            "the jump is the first rule of INPUT: {rules}"
        );
    }
}

/// The same by the names of nftables.
fn sets_and_rules_of_nftables(cluster: &Cluster, ips: &[IpAddr], own: &[IpAddr], port: u16) {
    for (table, (ip, node)) in TABLES.into_iter().zip(ips.iter().zip(own)) {
        let has = |set: &str, member: String| {
            tool(cluster, 1, &format!("nft get element {table} {set} {{ {member} }}"));
        };
        has("kube-router-svip", ip.to_string());
        has("kube-router-svip", node.to_string());
        has("kube-router-local-ips", node.to_string());
        has("kube-router-svip-prt", format!("{ip} . tcp . 80"));
        has("kube-router-svip-prt", format!("{ip} . udp . 53"));
        has("kube-router-svip-prt", format!("{ip} . sctp . 132"));
        has("kube-router-svip-prt", format!("{node} . tcp . {port}"));
        let rules = tool(cluster, 1, &format!("nft list chain {table} filter-INPUT"));
        assert!(
            rules.contains("@kube-router-svip counter") && rules.contains("jump KUBE-ROUTER-SERVICES"),
            "{rules}"
        );
    }
    let saved = tool(cluster, 1, "iptables-save") + &tool(cluster, 1, "ipset save");
    assert!(!saved.contains("KUBE-ROUTER") && !saved.contains("kube-router"), "nothing elsewhere: {saved}");
}

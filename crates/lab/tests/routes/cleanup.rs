//! The clean-up of a node that routed pods: everything of ours goes, in either flavour of iptables, and comes to nothing
//! the second time; what Docker, kube-proxy, a CNI plugin and a router daemon have stays; so does the bridge as long as a
//! pod is attached.

use lab::api_server::Resource;
use lab::cluster::Cluster;
use lab::node::Families;
use lab::process;

use crate::setup::{
    PATIENCE, ROUTER_ONLY, everyone_reaches_everyone, ip, knows, learned, pod, ranges, routed, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ours_goes_and_the_bridge_with_the_last_pod() {
    let mut cluster =
        Cluster::builder().nodes(2).families(Families::Dual).route_pods(false).start().await.unwrap();
    pod(&cluster, 1);
    pod(&cluster, 2);
    cluster.pods_ready(PATIENCE).await.unwrap();
    theirs(&cluster);
    let before = snapshot(&cluster);
    for node in 1..=2 {
        cluster.set_agent_flags(node, ROUTER_ONLY).unwrap();
        cluster.start_agent(node).unwrap();
    }
    cluster.agents_ready(3 * PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    everyone_reaches_everyone("in the beginning", &cluster, &[1, 2]).await;
    knows(&cluster, 1, &[2]).await;
    assert_eq!(cluster.take_agent(1).unwrap().stop(PATIENCE), Some(0));
    // A predecessor used the other flavour, and another was killed while it filled a set.
    for line in [
        "iptables-legacy -N KUBE-ROUTER-FORWARD",
        "iptables-legacy -A FORWARD -j KUBE-ROUTER-FORWARD",
        "iptables-legacy -A FORWARD -s 192.0.2.7/32 -j ACCEPT",
        "ipset create TMP-PRBJ7ASFQM5DJR3Q hash:ip timeout 0",
    ] {
        cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_ne!(snapshot(&cluster), before);
    assert_eq!(learned(&cluster, 1), ranges(&cluster, &[2]), "what was learned stays when the agent stops");

    let said = clean_up(&cluster, &[]);
    assert_eq!(snapshot(&cluster), before, "{said}");
    let range = ranges(&cluster, &[2]).remove(0);
    for line in [
        format!("removed route to {range} in table 254"),
        "removed set kube-router-pod-subnets (IPv4)".to_owned(),
        "removed set kube-router-pod-subnets (IPv6)".to_owned(),
        "removed chain KUBE-ROUTER-FORWARD in filter (IPv4)".to_owned(),
        "removed half-filled set TMP-PRBJ7ASFQM5DJR3Q".to_owned(),
        "link kube-bridge stays".to_owned(),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    let legacy = cluster.on_node(1, "iptables-legacy-save").unwrap();
    assert!(!legacy.contains("KUBE-ROUTER-") && legacy.contains("-s 192.0.2.7/32"), "{legacy}");
    let again = clean_up(&cluster, &[]);
    assert!(!again.contains("removed") && again.contains("link kube-bridge stays"), "{again}");

    cluster.api().delete(Resource::Pods, Some("default"), "pod-1", Some(0)).unwrap();
    until("nothing is attached to the bridge", || {
        let ports = ports_of_the_bridge(&cluster);
        if ports.is_empty() { Ok(()) } else { Err(format!("{ports:?}")) }
    })
    .await;
    let said = clean_up(&cluster, &[]);
    assert!(said.contains("removed link kube-bridge"), "{said}");
    assert!(cluster.on_node(1, "ip link show dev kube-bridge").is_err(), "{said}");
    let again = clean_up(&cluster, &[]);
    assert!(!again.contains("removed") && !again.contains("kube-bridge"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs FoU"]
async fn tunnels_go_and_so_does_their_port() {
    const FULL: &str = "--overlay-type=full";
    let mut cluster = routed(3, 2, &[FULL, "--overlay-encap=fou", "--overlay-encap-port=6000"]).await;
    everyone_reaches_everyone("through tunnels in UDP", &cluster, &[1, 2, 3]).await;
    knows(&cluster, 1, &[2, 3]).await;
    assert_eq!(fou_ports(&cluster, 3), ["6000", "6000"], "one for each family");

    // An agent whose tunnels are no longer in UDP closes the port.
    assert_eq!(cluster.take_agent(3).unwrap().stop(PATIENCE), Some(0));
    cluster.set_agent_flags(3, ROUTER_ONLY.into_iter().chain([FULL])).unwrap();
    cluster.start_agent(3).unwrap();
    until("the port of tunnels that are plain now", || {
        let ports = fou_ports(&cluster, 3);
        if ports.is_empty() { Ok(()) } else { Err(format!("{ports:?}")) }
    })
    .await;

    // The clean-up is not told of tunnels in UDP, nor of their port: it sees it.
    assert_eq!(cluster.take_agent(1).unwrap().stop(PATIENCE), Some(0));
    let own = cluster.node(1).unwrap().addresses()[0];
    for line in [
        "ip fou add port 7777 gue".to_owned(),
        format!("ip link add name tun-office type ipip remote 203.0.113.9 local {own}"),
    ] {
        cluster.on_node(1, &line).unwrap_or_else(|error| panic!("{error}"));
    }
    let said = clean_up(&cluster, &[]);
    let links = ip(&cluster, 1, "link show");
    let tunnels =
        links.iter().filter_map(|link| link["ifname"].as_str()).filter(|name| name.starts_with("tun-"));
    assert!(tunnels.clone().all(|name| name == "tun-office") && tunnels.count() > 0, "{links:?}\n{said}");
    assert_eq!(fou_ports(&cluster, 1), ["7777"], "{said}");
    assert!(said.contains("removed FoU port 6000 (IPv4)") && said.contains("removed FoU port 6000 (IPv6)"));
    assert_eq!(learned(&cluster, 1), Vec::<String>::new(), "{said}");
    assert!(
        ip(&cluster, 1, "route show table 77").is_empty() && ip(&cluster, 1, "rule show table 77").is_empty()
    );
    assert!(!clean_up(&cluster, &[]).contains("removed"));

    // A port without a tunnel is told by the flag.
    cluster.on_node(1, "ip fou add port 6000 gue").unwrap_or_else(|error| panic!("{error}"));
    assert!(!clean_up(&cluster, &[]).contains("removed"), "anybody's");
    let said = clean_up(&cluster, &["--overlay-encap-port=6000"]);
    assert_eq!(fou_ports(&cluster, 1), ["7777"], "{said}");
}

/// What other programs have on node 1, of every kind that is cleaned.
fn theirs(cluster: &Cluster) {
    for line in [
        "iptables -t nat -N DOCKER",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "iptables -N DOCKER-USER",
        "iptables -A FORWARD -j DOCKER-USER",
        "iptables -t nat -N KUBE-SERVICES",
        "iptables -t nat -A PREROUTING -m comment --comment portals -j KUBE-SERVICES",
        "iptables -t nat -N CNI-HOSTPORT-DNAT",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "ip6tables -A FORWARD -d fd99::/64 -j ACCEPT",
        "ipset create theirs hash:ip",
        "ipset add theirs 192.0.2.1",
        "ipset create TMP-mine hash:ip",
        "ip link add theirs0 type bridge",
        "ip addr add 192.0.2.65/26 dev theirs0",
        "ip link set theirs0 up",
        "ip route add 198.51.100.0/25 dev theirs0 proto 186",
        "ip route add 198.51.100.128/25 dev theirs0 table 100 proto 17",
        "ip rule add fwmark 0x9 lookup 100 priority 30000",
        "ip rule add fwmark 0x9 lookup 78 priority 30001",
    ] {
        cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What node 1 has of everything the agent could have written, as other tools print it, but for addresses and routes the
/// kernel makes by itself, in its own time.
fn snapshot(cluster: &Cluster) -> String {
    let tool = |line: &str| cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"));
    let mut sets: Vec<String> = tool("ipset save").lines().map(str::to_owned).collect();
    sets.sort();
    let mut text = sets.join("\n");
    for line in ["iptables-save", "ip6tables-save"] {
        // Comments carry the time; built-in chains have counters, and exist once somebody has looked.
        let saved = tool(line);
        let told = saved.lines().filter(|line| line.starts_with('-') || line.ends_with("- [0:0]"));
        text += &format!("\n{line}\n{}", told.collect::<Vec<_>>().join("\n"));
    }
    for line in [
        "ip -4 route show table all type unicast",
        "ip -6 route show table all type unicast",
        "ip rule",
        "ip -6 rule",
    ] {
        let shown = tool(line);
        let told = shown.lines().filter(|line| !line.starts_with("fe80:"));
        // Whether a bridge without ports has a carrier is told a little later.
        let told = told.map(|line| line.replace(" linkdown", ""));
        text += &format!("\n{line}\n{}", told.collect::<Vec<_>>().join("\n"));
    }
    let mut links: Vec<String> =
        ip(cluster, 1, "link show").iter().map(|link| link["ifname"].to_string()).collect();
    links.sort();
    links.dedup();
    text + "\nlinks\n" + &links.join("\n")
}

fn ports_of_the_bridge(cluster: &Cluster) -> Vec<String> {
    let ports = ip(cluster, 1, "link show master kube-bridge");
    ports.iter().map(|port| port["ifname"].to_string()).collect()
}

/// Open UDP ports of tunnels on a node, once for each family.
fn fou_ports(cluster: &Cluster, node: usize) -> Vec<String> {
    let shown = cluster.on_node(node, "ip fou show").unwrap();
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "port");
        words.nth(1).map(str::to_owned)
    };
    shown.lines().filter_map(port).collect()
}

/// Runs it on node 1, where nobody answers at the API server's address that it is not given; returns what it says.
fn clean_up(cluster: &Cluster, flags: &[&str]) -> String {
    let program = lab::cluster::agent_program().unwrap();
    let script = format!("exec {} --cleanup-config {} 2>&1", program.display(), flags.join(" "));
    let run = move || process::run(process::command("sh").args(["-c", &script]));
    let said = cluster.node(1).unwrap().namespace().run(run).unwrap().expect("--cleanup-config exits 0");
    assert!(!said.contains("clean-up is not complete"), "{said}");
    said
}

//! The two packet filters of one node: from one to the other without a gap and without leftovers, nftables without any
//! program, and what others do to nftables healed at once.

use std::time::Instant;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::policy::Port;
use serde_json::{Value, json};

use crate::changes::change;
use crate::fence::Fence;
use crate::gaps::{Probes, prepare};
use crate::stage::{SOON, Stage, holds};
use crate::tables::{NFTABLES, cluster, flags, logs};

const DEFAULT_DENY: &str = "--netpol-default-deny";
const IPTABLES: &str = "--firewall-backend=iptables";
/// The programs behind every name of iptables, and those of sets and nftables.
const PROGRAMS: [&str; 4] =
    ["/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/ipset", "/usr/sbin/nft"];

fn ports() -> Vec<Port> {
    ["80/TCP", "80/UDP"].map(|port| port.parse().unwrap()).to_vec()
}

/// What a node's kernel holds of kube-router in each packet filter, as other tools list it. A tool that lists while the
/// agent writes may meet what is gone a moment later, and fail.
fn held(cluster: &Cluster, node: usize) -> Result<[Vec<String>; 2], String> {
    let lines = |commands: &[&str]| -> Result<Vec<String>, String> {
        let text =
            commands.iter().map(|command| cluster.on_node(node, command)).collect::<Result<String, _>>();
        let text = text.map_err(|error| error.to_string())?;
        let ours = text.lines().filter(|line| line.contains("KUBE-") || line.contains("kube-router"));
        Ok(ours.map(str::to_owned).collect())
    };
    Ok([lines(&["iptables-save", "ip6tables-save", "ipset list -n"])?, lines(&["nft list tables"])?])
}

/// Waits until a node holds something in `there` (0 is iptables, 1 is nftables) and nothing in the other.
async fn moved(cluster: &Cluster, node: usize, there: usize) {
    let look = || async {
        let held = held(cluster, node)?;
        let (here, left) = (&held[there], &held[1 - there]);
        if !here.is_empty() && left.is_empty() { Ok(()) } else { Err(format!("node-{node}: left: {left:?}")) }
    };
    eventually(SOON, look).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
}

/// The packet filter the agent of a node says it uses.
fn said(cluster: &Cluster, node: usize) -> String {
    let program = lab::cluster::agent_program().unwrap();
    let text = cluster.on_node(node, &format!("{} status --output=json", program.display())).unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    status["firewall"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_to_the_other_there_is_no_gap_and_nothing_is_left() {
    from_one_to_the_other(&[]).await;
}

/// Pods that run are not refused while the other packet filter does not know them yet.
#[tokio::test(flavor = "multi_thread")]
async fn from_one_to_the_other_there_is_no_gap_with_default_deny() {
    from_one_to_the_other(&[DEFAULT_DENY]).await;
}

async fn from_one_to_the_other(always: &[&str]) {
    let mut cluster = cluster(Families::Dual, always).await;
    cluster.api().create(Resource::Namespaces, json!({ "metadata": { "name": "far" } })).unwrap();
    let mut fence = Fence::new(&cluster).await;
    let api = cluster.api();
    prepare(&Stage::new(api.clone(), Some(&cluster)).await, &mut fence).await;
    for node in 1..=3 {
        assert_eq!(said(&cluster, node), "iptables");
        moved(&cluster, node, 0).await;
    }
    // Without a flag what is in use stays in use.
    let turns: [(&[&str], usize); 4] = [(&[NFTABLES], 1), (&[], 1), (&[IPTABLES], 0), (&[], 0)];
    let probes = Probes::start(&Stage::of(api.clone(), &cluster));
    for (turn, (flag, there)) in turns.into_iter().enumerate() {
        for node in 1..=3 {
            cluster.set_agent_flags(node, flags(Families::Dual, &[always, flag].concat())).unwrap();
            let agent = cluster.take_agent(node).expect("it runs");
            // Killed or stopped makes no difference.
            match turn % 2 {
                0 => agent.kill(),
                _ => drop(agent.stop(SOON)),
            }
            change(&Stage::of(api.clone(), &cluster), turn * 10 + node);
            cluster.start_agent(node).unwrap();
        }
        cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
        for node in 1..=3 {
            moved(&cluster, node, there).await;
            assert_eq!(said(&cluster, node), ["iptables", "nftables"][there], "{flag:?}");
        }
        fence.pass().await;
        eprintln!("{flag:?}: every node has moved");
    }
    probes.none("from iptables to nftables and back", &cluster).await;
    let stage = Stage::of(api, &cluster);
    holds("at the end", &stage.members(), &ports(), &stage.objects()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nftables_needs_no_program() {
    let mut cluster = Cluster::builder().nodes(3).families(Families::Dual).start().await.unwrap();
    for node in 1..=3 {
        for program in PROGRAMS {
            cluster.on_node(node, &format!("mount --bind /dev/null {program}")).unwrap();
        }
        assert!(cluster.on_node(node, "iptables-restore --version").is_err(), "it is hidden");
        // Without a wish, and without iptables, nftables it is.
        cluster.set_agent_flags(node, flags(Families::Dual, &[])).unwrap();
        cluster.start_agent(node).unwrap();
    }
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    prepare(&stage, &mut fence).await;
    for node in 1..=3 {
        assert_eq!(said(&cluster, node), "nftables");
    }
    // Cleaning up needs none, either.
    cluster.take_agent(1).expect("it runs").kill();
    let program = lab::cluster::agent_program().unwrap();
    cluster.on_node(1, &format!("{} --cleanup-config", program.display())).unwrap();
    cluster.on_node(1, "umount /usr/sbin/nft").unwrap();
    assert_eq!(cluster.on_node(1, "nft list tables").unwrap(), "");
}

/// Nobody reads the tables anew for an hour: what comes back was told by the kernel.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_nftables_is_healed_at_once() {
    let cluster = cluster(Families::Dual, &[NFTABLES, "--iptables-sync-period=1h"]).await;
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let mut fence = Fence::new(&cluster).await;
    prepare(&stage, &mut fence).await;
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).unwrap();
    for (family, table) in [(0, "ip kube-router-filter-ipv4"), (1, "ip6 kube-router-filter-ipv6")] {
        let node = |line: &str| cluster.on_node(1, line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let names = |kind: &str, prefix: &str| -> Vec<String> {
            let text = node(&format!("nft list table {table}"));
            let named = text.lines().filter_map(|line| line.trim().strip_prefix(kind)?.strip_suffix(" {"));
            named.map(str::trim).filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
        };
        let sets = names("set", "KUBE-SRC-");
        let chains = [names("chain", "KUBE-POD-FW-"), names("chain", "KUBE-NWPLCY-")].concat();
        assert!(!sets.is_empty() && chains.len() > 5, "{sets:?} {chains:?}");
        let stranger = find("y/a").addresses[family];
        let of = |what: &str, names: &[String], after: &str| -> Vec<String> {
            names.iter().map(|name| format!("nft {what} {table} {name}{after}")).collect()
        };
        let map = format!("{table} kube-router-pod-ingress");
        let here = members.iter().map(|member| member.addresses[family]);
        let mut here =
            here.filter(|ip| cluster.on_node(1, &format!("nft get element {map} {{ {ip} }}")).is_ok());
        let pod = here.next().expect("a pod of the node");
        let settled = node(&format!("nft -s list table {table}"));
        let all = [
            ("emptied sets", of("flush set", &sets, "")),
            ("a stranger in the sets", of("add element", &sets, &format!(" {{ {stranger} }}"))),
            ("emptied chains", of("flush chain", &chains, "")),
            ("no jumps", vec![format!("nft flush chain {table} filter-FORWARD")]),
            ("no verdicts", vec![format!("nft flush map {map}")]),
            (
                "a pod that all may reach",
                vec![format!(
                    "nft delete element {map} {{ {pod} }} ; add element {map} {{ {pod} : accept }}"
                )],
            ),
            ("a rule above ours", vec![format!("nft insert rule {table} filter-FORWARD accept")]),
            ("a rule below ours", vec![format!("nft add rule {table} filter-INPUT counter accept")]),
            ("no table", vec![format!("nft delete table {table}")]),
        ];
        for (about, lines) in all {
            let start = Instant::now();
            lines.iter().for_each(|line| drop(node(line)));
            let same = || async {
                let now = cluster.on_node(1, &format!("nft -s list table {table}")).unwrap_or_default();
                let sorted = |text: &str| {
                    let mut lines: Vec<String> =
                        text.split([',', '\n', '{', '}', '=']).map(|one| one.trim().to_owned()).collect();
                    lines.sort();
                    lines
                };
                if sorted(&now) == sorted(&settled) {
                    Ok(())
                } else {
                    Err(format!("{about}: {settled}\n{now}"))
                }
            };
            eventually(SOON, same).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
            eprintln!("{table}: {about}: as before after {:?}", start.elapsed());
        }
    }
    holds("healed", &members, &ports(), &stage.objects()).await;
}

/// Whatever ours accepts, another table may drop: the start says where, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn who_else_drops_is_told_at_the_start() {
    let mut cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let drops = "hook forward priority 0 ; policy drop ;";
    for line in [
        "nft add table inet guard".to_owned(),
        format!("nft add chain inet guard gate {{ type filter {drops} }}"),
    ] {
        cluster.on_node(1, &line).unwrap();
    }
    cluster.set_agent_flags(1, flags(Families::V4, &[NFTABLES])).unwrap();
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let log = std::fs::read_to_string(cluster.agent_log(1).unwrap()).unwrap();
    for part in [
        "chain gate of table inet guard drops by its policy",
        "nft chain inet guard gate '{ policy accept; }'",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

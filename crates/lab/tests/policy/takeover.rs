//! A node on which a Go kube-router has run is taken over: while it happens nothing slips through and nothing fails, then
//! nothing of the old is left, and what belongs to others is as it was. What it left is loaded by the tools that saved it, and
//! is seen to enforce before an agent starts.

use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::node::Families;
use lab::policy::{Member, Port};
use lab::process::{command, run_with_input};

use crate::gaps::{Probes, arrange};
use crate::stage::{SOON, Stage, holds};
use crate::tables::{NFTABLES, flags, logs};
use crate::upstream::{DYNAMIC, Left};

const DEFAULT_DENY: &str = "--netpol-default-deny";
const IPTABLES: &str = "--firewall-backend=iptables";

/// What names of kube-router's contain, whichever wrote them.
const OURS: [&str; 6] =
    ["KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-", "KUBE-SRC-", "KUBE-DST-", "kube-router"];
/// Connections go on for so long before and after.
const A_WHILE: Duration = Duration::from_secs(1);

/// By which packet filter upstream has enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Iptables { default_deny: bool },
    Nftables,
}

fn ports() -> Vec<Port> {
    ["80/TCP", "80/UDP"].map(|port| port.parse().unwrap()).to_vec()
}

fn load(cluster: &Cluster, program: &'static str, arguments: &'static [&'static str], input: String) {
    let work = move || run_with_input(command(program).args(arguments), &input);
    let done = cluster.node(1).unwrap().namespace().run(work).unwrap();
    done.unwrap_or_else(|error| panic!("{program}: {error}"));
}

/// Puts on node-1 what upstream's last synchronisation would have left for the policy `x/base` of [`arrange`].
fn leave(cluster: &Cluster, members: &[Member], by: By) {
    let named = |names: &[&str]| -> Vec<&Member> {
        members.iter().filter(|member| names.contains(&&*member.name)).collect()
    };
    let node = cluster.api().get(Resource::Nodes, None, "node-1").unwrap();
    for (family, restore) in [(0, "iptables-restore"), (1, "ip6tables-restore")] {
        let left = Left {
            family,
            local: named(&["x/a", "x/b", "z/b"]),
            targets: named(&["x/a"]),
            peers: named(&["x/b", "y/b"]),
            network: node["spec"]["podCIDRs"][family].as_str().unwrap().to_owned(),
        };
        match by {
            By::Iptables { default_deny } => {
                load(cluster, "ipset", &["restore"], left.sets());
                load(cluster, restore, &["--noflush"], left.rules(default_deny));
            }
            By::Nftables => load(cluster, "nft", &["-f", "-"], left.table()),
        }
    }
}

/// Rules, sets and tables of others on node-1; tools that list while sets go may fail.
fn theirs(cluster: &Cluster) -> Result<String, String> {
    let tool = |line: &str| cluster.on_node(1, line).map_err(|error| format!("{line}: {error}"));
    let mut kept = String::new();
    for line in ["iptables-save", "ip6tables-save", "ipset save", "nft -s list ruleset inet"] {
        let text = tool(line)?;
        let foreign = |line: &&str| !line.starts_with('#') && !OURS.iter().any(|name| line.contains(name));
        // Counters of built-in chains go on.
        let bare = |line: &str| line.split(" [").next().unwrap_or_default().to_owned() + "\n";
        kept.extend(text.lines().filter(foreign).map(bare));
    }
    Ok(kept)
}

/// What other programs have on the node, in the same tables.
fn neighbours(cluster: &Cluster) {
    for line in [
        "ipset create theirs hash:ip",
        "ipset add theirs 192.0.2.1",
        "iptables -t nat -N KUBE-SERVICES",
        "iptables -t nat -A PREROUTING -m comment --comment portals -j KUBE-SERVICES",
        "iptables -t nat -N CNI-HOSTPORT-DNAT",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "iptables -t nat -N DOCKER",
        "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "iptables -A INPUT -m set --match-set theirs src -j DROP",
        "ip6tables -A FORWARD -d fd99::/64 -j ACCEPT",
        "nft add table inet guard",
        "nft add chain inet guard gate { type filter hook forward priority 10 ; }",
    ] {
        cluster.on_node(1, line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// Lines of node-1's kernel that contain one of the names. A tool that lists while the agent writes may fail.
fn lines_with(cluster: &Cluster, names: &[&str]) -> Result<Vec<String>, String> {
    let tools = [
        "iptables-save",
        "ip6tables-save",
        "ipset save",
        "nft -s list ruleset ip",
        "nft -s list ruleset ip6",
    ];
    let text = tools.iter().map(|line| cluster.on_node(1, line)).collect::<Result<String, _>>();
    let text = text.map_err(|error| error.to_string())?;
    let named = text.lines().filter(|line| names.iter().any(|name| line.contains(name)));
    Ok(named.map(str::to_owned).collect())
}

async fn takes_over(by: By, more: &[&str]) {
    let mut cluster = Cluster::builder().nodes(3).families(Families::Dual).start().await.unwrap();
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    arrange(&stage);
    let members = stage.members();
    neighbours(&cluster);
    leave(&cluster, &members, by);
    let left = lines_with(&cluster, &DYNAMIC).unwrap();
    assert!(left.len() > 30, "{left:#?}");
    // Docker's chains came with upstream's saved state.
    let beside = theirs(&cluster).unwrap();
    holds("upstream's rules", &members, &ports(), &stage.objects()).await;

    let probes = Probes::start(&stage);
    tokio::time::sleep(A_WHILE).await;
    let api = stage.api.clone();
    cluster.set_agent_flags(1, flags(Families::Dual, more)).unwrap();
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let gone = || async {
        let left = lines_with(&cluster, &DYNAMIC)?;
        if left.is_empty() { Ok(()) } else { Err(format!("nothing of upstream's is left: {left:#?}")) }
    };
    eventually(SOON, gone).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    tokio::time::sleep(A_WHILE).await;
    probes.none(&format!("{by:?} taken over with {more:?}"), &cluster).await;
    let stage = Stage::of(api, &cluster);
    holds("our rules", &members, &ports(), &stage.objects()).await;
    let now = eventually(SOON, || std::future::ready(theirs(&cluster))).await.unwrap();
    assert_eq!(now, beside, "what is theirs stays as it is");
    for chain in ["INPUT", "FORWARD", "OUTPUT"] {
        let jump = format!("-j KUBE-ROUTER-{chain}");
        let look = || std::future::ready(lines_with(&cluster, &[&jump]));
        let jumps = eventually(SOON, look).await.unwrap();
        let each = if more.contains(&NFTABLES) || by == By::Nftables { 0 } else { 2 };
        assert_eq!(jumps.len(), each, "one jump for each family: {jumps:#?}");
    }

    // Cleaned up with a predecessor's state beside ours, all of both goes.
    cluster.take_agent(1).expect("it runs").kill();
    if by != By::Nftables {
        for (program, line) in [("iptables", "iptables-restore"), ("ip6tables", "ip6tables-restore")] {
            cluster.on_node(1, &format!("{program} -N KUBE-NWPLCY-{}", DYNAMIC[0])).unwrap();
            let jump = format!("*filter\n-A FORWARD -j KUBE-NWPLCY-{}\nCOMMIT\n", DYNAMIC[0]);
            load(&cluster, line, &["--noflush"], jump);
        }
        cluster.on_node(1, &format!("ipset create KUBE-SRC-{} hash:ip timeout 0", DYNAMIC[2])).unwrap();
    }
    let program = lab::cluster::agent_program().unwrap();
    cluster.on_node(1, &format!("{} --cleanup-config", program.display())).unwrap();
    assert_eq!(lines_with(&cluster, &OURS).unwrap(), Vec::<String>::new());
    assert_eq!(theirs(&cluster).unwrap(), beside);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_iptables_are_taken_over() {
    takes_over(By::Iptables { default_deny: true }, &[IPTABLES, DEFAULT_DENY]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_iptables_are_taken_over_by_nftables() {
    takes_over(By::Iptables { default_deny: false }, &[NFTABLES]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_nftables_are_taken_over() {
    takes_over(By::Nftables, &[]).await;
}

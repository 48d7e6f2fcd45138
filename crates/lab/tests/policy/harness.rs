//! The harness is judged: without policies everything passes, and rules made by hand, in the place of an agent, show up in
//! the table where they are.

use std::net::SocketAddr;

use lab::cluster::{Cluster, attempts};
use lab::policy::{Port, Truth, ask};
use lab::probe::{ONCE, Protocol};

use crate::stage::{SOON, Stage, flows, holds, is_cut, patience};

fn ports() -> Vec<Port> {
    ["80/TCP", "81/TCP", "80/UDP", "81/UDP", "80/SCTP", "81/SCTP"].map(|port| port.parse().unwrap()).to_vec()
}

/// Cells in which a table differs from one where everything passes.
fn refused(truth: &Truth, members: &[lab::policy::Member], ports: &[Port]) -> Vec<String> {
    let all = Truth::new(members, ports, |_| true);
    let mut refused: Vec<String> = all.changes(truth).map(|(cell, _)| cell).collect();
    refused.sort();
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_show_what_the_kernel_does() {
    let cluster = Cluster::builder().nodes(3).dual_stack().start().await.unwrap();
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let (members, ports) = (stage.members(), ports());
    holds("without policies and agents", &members, &ports, &stage.objects()).await;

    // x/a and x/b share the bridge of node-1; x/a and z/c are on two nodes.
    let address = |name: &str, family: usize| {
        members.iter().find(|member| member.name == name).expect("a member").addresses[family]
    };
    let rules = [
        (
            1,
            format!(
                "iptables -I FORWARD -s {} -d {} -p tcp --dport 80 -j REJECT",
                address("x/a", 0),
                address("x/b", 0)
            ),
        ),
        (
            3,
            format!(
                "ip6tables -I FORWARD -s {} -d {} -p udp --dport 80:81 -j DROP",
                address("x/a", 1),
                address("z/c", 1)
            ),
        ),
        (2, format!("iptables -I FORWARD -d {} -p sctp --dport 81 -j REJECT", address("y/a", 0))),
    ];
    for (node, rule) in &rules {
        cluster.on_node(*node, rule).unwrap();
    }
    let mut expected = vec![
        "x/a > x/b 80/TCP IPv4".to_owned(),
        "x/a > z/c 80/UDP IPv6".to_owned(),
        "x/a > z/c 81/UDP IPv6".to_owned(),
    ];
    let others = members.iter().filter(|member| member.name != "y/a");
    expected.extend(others.map(|member| format!("{} > y/a 81/SCTP IPv4", member.name)));
    expected.sort();
    let (all, ports, expected) = (&members, &ports, &expected);
    let look = |attempt| async move {
        let seen = ask(all, ports, patience(attempt)).await;
        let found = refused(&seen, all, ports);
        if found == *expected { Ok(seen) } else { Err(format!("{found:?}")) }
    };
    let seen = attempts(SOON, look).await.unwrap();
    let picture = seen.difference(&Truth::expected(all, ports, &stage.objects())).unwrap();
    assert!(
        picture.starts_with("11 of 864 cells are wrong") && picture.contains("81/SCTP IPv4\n"),
        "{picture}"
    );
}

/// A flow of a server that sends all the time is heard until a rule takes its packets away, and again after.
#[tokio::test(flavor = "multi_thread")]
async fn flows_are_heard_until_they_are_cut() {
    let cluster = Cluster::builder().nodes(3).start().await.unwrap();
    let stage = Stage::new(cluster.api(), Some(&cluster)).await;
    let members = stage.members();
    let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member");
    let (client, server) = (find("x/b"), find("x/a"));
    let to = SocketAddr::new(server.addresses[0], 80);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let probe = client.probe.clone().expect("a probe");
        let hearing = probe.clone().patience(ONCE).hear(protocol, to).await.unwrap();
        flows("at first", &hearing).await.unwrap();
        let rule =
            format!("FORWARD -s {} -p {} --sport 80 -j DROP", to.ip(), protocol.to_string().to_lowercase());
        cluster.on_node(1, &format!("iptables -I {rule}")).unwrap();
        is_cut("with a rule", &hearing).await.unwrap();
        cluster.on_node(1, &format!("iptables -D {rule}")).unwrap();
        flows("without it", &hearing).await.unwrap();
    }
}

//! Whose a virtual server in the kernel is, as a restarted agent tells it from the kernel alone.

use std::time::Instant;

use ipnet::IpNet;
use kube_router::core::Ownership;
use kube_router::names;
use kube_router::node::{Facts, ThisNode};
use kube_router::options::Options;
use kube_router::owner::Owner;
use linux::lane::Job;
use linux::reconciler::Reconciler;
use linux::row::{
    Family, Forwarding, Key, LaneName, Member, Name, Protocol, RealServer, Row, Scheduler, Scope, SetKey,
    VirtualServer, VirtualServerKey,
};

fn server(at: &str) -> VirtualServerKey {
    let at: std::net::SocketAddr = at.parse().unwrap();
    VirtualServerKey::Address { ip: at.ip(), protocol: Protocol::Tcp, port: at.port() }
}

fn virtual_server(key: VirtualServerKey) -> (Key, Row) {
    let row = VirtualServer { scheduler: Scheduler::RoundRobin, scheduler_flags: 0, persistence: None };
    (Key::VirtualServer(key), Row::VirtualServer(row.into()))
}

/// What an agent that was killed left on the node: one VIP on the dummy link, another service in the ledger only.
fn left_behind() -> Reconciler<Owner> {
    let vip: IpNet = "10.96.0.1/32".parse().unwrap();
    let address = Key::Address { link: names::link::DUMMY.into(), net: vip };
    let elsewhere = Key::Address { link: "eth1".into(), net: "10.96.0.77/32".parse().unwrap() };
    let set = SetKey { family: Family::V4, name: names::set::SERVICE_PORTS.into() };
    let entered = Member::IpPort("192.0.2.1".parse().unwrap(), Protocol::Tcp, 443);
    let there = Row::Address { scope: Scope::Link };
    let mut reconciler = Reconciler::new();
    for (lane, rows) in [
        (LaneName::Route, vec![(address, there.clone()), (elsewhere, there)]),
        (LaneName::Sets, vec![(Key::Member(set.into(), entered), Row::Member)]),
    ] {
        assert!(matches!(reconciler.next_job(lane, Instant::now()), Some(Job::Read)));
        reconciler.was_read(lane, rows, |_, _| true);
    }
    reconciler
}

fn here() -> ThisNode {
    let addresses = vec![(Name::from("eth0"), "10.0.0.1/24".parse().unwrap())];
    ThisNode { name: "here".into(), object: None, facts: Facts { addresses, ..Facts::default() } }
}

fn ours(flags: &[&str], key: VirtualServerKey) -> bool {
    let ownership = Ownership::new(&Options::from_flags(flags).unwrap());
    let (known, row) = (left_behind(), virtual_server(key));
    let ledger = ownership.of(&known, std::slice::from_ref(&row), &here());
    let inside = Key::RealServer(key, "10.244.0.5".parse().unwrap(), 8080);
    let real = Row::RealServer(RealServer { weight: 1, forwarding: Forwarding::Masquerade });
    let ours = ledger.is_ours(&row.0, &row.1);
    assert_eq!(ledger.is_ours(&inside, &real), ours, "a real server is whose its virtual server is");
    ours
}

#[test]
fn a_virtual_server_is_told_by_link_ledger_or_node_port() {
    for (at, expected, why) in [
        ("10.96.0.1:80", true, "on the dummy link"),
        ("10.96.0.1:9999", true, "on the dummy link, whatever the port"),
        ("192.0.2.1:443", true, "in the ledger"),
        ("192.0.2.1:444", false, "another port of an address in the ledger"),
        ("10.0.0.1:30080", true, "a NodePort"),
        ("10.0.0.1:8080", false, "a local address outside of the NodePort range"),
        ("10.0.0.2:30080", false, "a NodePort of no local address"),
        ("10.96.0.77:80", false, "on somebody's link"),
        ("203.0.113.9:80", false, "nothing says so"),
    ] {
        assert_eq!(ours(&[], server(at)), expected, "{at}: {why}");
    }
    assert!(!ours(&[], VirtualServerKey::Mark { family: Family::V4, mark: 7 }));
    let other =
        VirtualServerKey::Address { ip: "192.0.2.1".parse().unwrap(), protocol: Protocol::Udp, port: 443 };
    assert!(!ours(&[], other), "the ledger tells protocols apart");
}

#[test]
fn excluded_cidrs_are_never_ours() {
    let flags = ["--excluded-cidrs=10.96.0.0/24,192.0.2.0/24", "--excluded-cidrs=10.0.0.1/32"];
    for at in ["10.96.0.1:80", "192.0.2.1:443", "10.0.0.1:30080"] {
        assert!(ours(&[], server(at)) && !ours(&flags, server(at)), "{at}");
    }
    assert!(ours(&["--service-node-port-range=20000-20999"], server("10.0.0.1:20080")));
    assert!(!ours(&["--service-node-port-range=20000-20999"], server("10.0.0.1:30080")));
}

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
    ChainKey, Family, FilterTable, Forwarding, Key, LaneName, Link, LinkKind, Member, Name, PolicyRuleKey,
    Position, Protocol, RealServer, Route, RouteKind, Row, Scheduler, Scope, SetKey, Tunnel, VirtualServer,
    VirtualServerKey,
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

/// Somebody adds a virtual server with its entry in the ledger while the agent runs. The sets are read first, and the
/// entry is gone by the time IPVS is read.
#[test]
fn a_mark_is_remembered_when_its_own_lane_took_it_away() {
    let mut ownership = Ownership::new(&Options::from_flags(&[]).unwrap());
    let known = Reconciler::new();
    let set = SetKey { family: Family::V4, name: names::set::SERVICE_PORTS.into() };
    let entered = Member::IpPort("192.0.2.9".parse().unwrap(), Protocol::Tcp, 443);
    let strange = virtual_server(server("192.0.2.9:443"));
    let judge = |ownership: &Ownership| {
        let ledger = ownership.of(&known, std::slice::from_ref(&strange), &here());
        ledger.is_ours(&strange.0, &strange.1)
    };
    assert!(!judge(&ownership));
    ownership.note(&known, &[(Key::Member(set.into(), entered), Row::Member)]);
    assert!(judge(&ownership));
    ownership.judged();
    assert!(judge(&ownership), "this reading may have passed the place before it was there");
    ownership.judged();
    assert!(!judge(&ownership), "and is not remembered for ever");
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

fn link(name: &str, kind: LinkKind) -> (Key, Row) {
    (Key::Link(name.into()), Row::Link(Box::new(Link { kind, up: true, mtu: None })))
}

fn tunnel(udp_port: Option<u16>) -> LinkKind {
    let (local, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    LinkKind::Tunnel(Tunnel { local, remote, udp_port })
}

fn route(table: u32, to: &str, link: &str, kind: RouteKind, protocol: u8) -> (Key, Row) {
    let link = Some(Name::from(link));
    let row = Route { kind, link, via: None, source: None, scope: Scope::Universe, protocol };
    let key = Key::Route { table, destination: to.parse().unwrap(), link: None };
    (key, Row::Route(Box::new(row)))
}

/// The first of a reading of links, routes, rules and ports, as the rule has it.
fn first_is_ours(ownership: &Ownership, reading: &[(Key, Row)]) -> bool {
    let known = Reconciler::new();
    let ledger = ownership.of(&known, reading, &here());
    let (key, row) = &reading[0];
    ledger.is_ours(key, row)
}

fn in_operation(flags: &[&str]) -> Ownership {
    Ownership::new(&Options::from_flags(flags).unwrap())
}

fn at_clean_up(flags: &[&str]) -> Ownership {
    Ownership::at_clean_up(&Options::from_flags(flags).unwrap())
}

#[test]
fn a_tunnel_is_told_by_form_and_kind() {
    let named = |name: &str, kind| first_is_ours(&in_operation(&[]), &[link(name, kind)]);
    assert!(named("tun-e443169117a", tunnel(None)), "upstream's name, or ours");
    assert!(named("tun-192022", tunnel(None)), "of an early Go kube-router, to 192.0.2.2");
    assert!(!named("tun-192023", tunnel(None)), "to another end");
    assert!(!named("tun-office", tunnel(None)) && !named("tun-e443169117A", tunnel(None)));
    assert!(!named("tun-e443169117a", LinkKind::Other("tun".into())), "of OpenVPN, say");
    assert!(named(names::link::DUMMY, LinkKind::Dummy));
}

#[test]
fn the_bridge_goes_at_the_clean_up_if_nothing_is_attached() {
    let bridge = link(names::link::BRIDGE, LinkKind::Bridge);
    let port = (Key::BridgePortHairpin("veth1".into()), Row::BridgePortHairpin(true));
    let (alone, used) = ([bridge.clone()], [bridge.clone(), port]);
    assert!(!first_is_ours(&in_operation(&[]), &alone), "pods may come");
    assert!(first_is_ours(&at_clean_up(&[]), &alone));
    assert!(!first_is_ours(&at_clean_up(&[]), &used));
    let why = |ownership: &Ownership, reading: &[(Key, Row)]| {
        ownership.of(&Reconciler::new(), reading, &here()).why_left(&bridge.0)
    };
    assert!(why(&at_clean_up(&[]), &used).is_some_and(|why| why.contains("veth1")));
    assert_eq!((why(&at_clean_up(&[]), &alone), why(&in_operation(&[]), &used)), (None, None));
    let other = link(names::link::BRIDGE, LinkKind::Other("veth".into()));
    assert!(!first_is_ours(&at_clean_up(&[]), &[other]));
}

#[test]
fn routes_of_our_protocol_are_ours_in_main_or_through_our_links() {
    let (unicast, to) = (RouteKind::Unicast, "10.244.1.0/24");
    for (row, expected, why) in [
        (route(254, to, "eth0", unicast, 17), true, "to a node of the same subnet"),
        (route(254, to, "tun-e443169117a", unicast, 17), true, "through a tunnel"),
        (route(254, to, "lo", RouteKind::Other(7), 17), true, "where an aggregate ends"),
        (route(254, to, "eth0", unicast, 186), false, "BIRD's"),
        (route(77, "192.0.2.2/32", "tun-e443169117a", unicast, 3), true, "all of table 77"),
        (route(100, to, "eth0", unicast, 17), false, "a table of others"),
        (route(100, to, "kube-bridge", unicast, 17), true, "a table of others, our link"),
        (route(255, "10.96.0.1/32", "kube-dummy-if", RouteKind::Local, 2), true, "a service address"),
    ] {
        assert_eq!(first_is_ours(&in_operation(&[]), &[row]), expected, "{why}");
    }
}

#[test]
fn a_udp_port_is_ours_if_our_tunnels_have_it() {
    let port = |port| (Key::FouPort(Family::V4, port), Row::FouPort);
    let fou = ["--overlay-encap=fou", "--overlay-encap-port=6000"];
    assert!(first_is_ours(&in_operation(&fou), &[port(6000)]));
    assert!(!first_is_ours(&in_operation(&fou), &[port(5555)]));
    assert!(!first_is_ours(&in_operation(&[]), &[port(5555)]), "without tunnels in UDP it may be anybody's");
    let before = link("tun-e443169117a", tunnel(Some(5555)));
    assert!(first_is_ours(&in_operation(&[]), &[port(5555), before.clone()]), "a predecessor's");
    assert!(!first_is_ours(&in_operation(&[]), &[port(5556), before]));
    assert!(first_is_ours(&at_clean_up(&[]), &[port(5555)]), "told by the flag's value alone");
    assert!(!first_is_ours(&at_clean_up(&[]), &[port(6000)]));
}

/// 13766 is upstream's mark of 10.0.0.1:80/tcp.
#[test]
fn what_direct_server_return_left_is_ours_with_proof() {
    let mark = |mark| VirtualServerKey::Mark { family: Family::V4, mark };
    let marks = |chain: &str, to: &str| {
        let chain = ChainKey { family: Family::V4, table: FilterTable::Mangle, name: chain.into() };
        let text = format!("-d {to}/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x35c6/0xffffffff");
        let key = Key::ForeignRule(chain, linux::iptables::parse(&text, Family::V4));
        (key, Row::ForeignRule(Position::Anywhere))
    };
    let ours = |rules: Vec<(Key, Row)>, server| {
        let mut known: Reconciler<Owner> = Reconciler::new();
        assert!(matches!(known.next_job(LaneName::Firewall, Instant::now()), Some(Job::Read)));
        known.was_read(LaneName::Firewall, rules, |_, _| true);
        let (ownership, row) = (at_clean_up(&[]), virtual_server(server));
        let ledger = ownership.of(&known, std::slice::from_ref(&row), &here());
        ledger.is_ours(&row.0, &row.1)
    };
    assert!(ours(vec![marks("PREROUTING", "10.0.0.1")], mark(13_766)));
    assert!(!ours(vec![marks("PREROUTING", "10.0.0.1")], mark(7)));
    assert!(!ours(vec![marks("PREROUTING", "10.0.0.2")], mark(13_766)), "not the mark of that address");
    assert!(!ours(Vec::new(), mark(13_766)), "no rule gives it");

    let rule = |table, priority, mark| {
        let key = PolicyRuleKey { family: Family::V4, priority: Some(priority), from: None, mark, table };
        first_is_ours(&at_clean_up(&[]), &[(Key::PolicyRule(key), Row::PolicyRule)])
    };
    assert!(rule(78, 32_764, Some(13_766)) && rule(79, 32_765, None) && rule(77, 32_766, None));
    assert!(!rule(78, 32_000, Some(13_766)) && !rule(79, 32_766, None));
    let everything = |link, kind| first_is_ours(&at_clean_up(&[]), &[route(78, "0.0.0.0/0", link, kind, 3)]);
    assert!(everything("lo", RouteKind::Local) && !everything("eth0", RouteKind::Unicast));
}

/// The scopes of all controllers are one: none may take away what another looks for.
#[test]
fn the_udp_port_is_looked_for_whoever_else_runs() {
    let options = Options::from_flags(&["--overlay-encap=fou", "--overlay-encap-port=6000"]).unwrap();
    let needs =
        kube_router::core::needs(&kube_router::core::all_controllers(), &Name::from("here"), &options);
    assert_eq!(needs.routes.udp_port, Some(6000));
}

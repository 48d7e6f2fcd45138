//! Forgetting flows on a real kernel: real datagrams make them, `conntrack` is the judge.
//!
//! A virtual address and its backends are on `lo`; nftables' NAT stands in for IPVS, which makes the same entries.
//! Each case also runs in the VM, whose kernel (6.1) has no filtered delete, so that both ways are taken.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use common::{eventually, in_netns, run};
use linux::conntrack::{Conntrack, Error, Flow, Flows, Served};
use linux::row::{Family, Protocol};

struct Net {
    client: IpAddr,
    virtual_address: IpAddr,
    backends: [IpAddr; 2],
    family: &'static str,
}

fn v4() -> Net {
    net("ipv4", ["10.9.0.1", "10.9.0.100", "10.9.0.11", "10.9.0.12"])
}

fn v6() -> Net {
    net("ipv6", ["fd00:9::1", "fd00:9::100", "fd00:9::11", "fd00:9::12"])
}

/// Port 53 of the virtual address goes to the first backend for client ports below 40100, else to the second.
fn net(family: &'static str, addresses: [&str; 4]) -> Net {
    let [client, virtual_address, first, second] =
        addresses.map(|text| text.parse::<IpAddr>().expect("an address"));
    for ip in [client, virtual_address, first, second] {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        run(&["ip", "addr", "add", &format!("{ip}/{length}"), "dev", "lo", "nodad"]);
    }
    // The kernel makes an IPv6 address's local route a moment after the address.
    let family_flag = if client.is_ipv4() { "-4" } else { "-6" };
    eventually("local routes of the addresses", || {
        let routes = run(&["ip", family_flag, "route", "show", "table", "local"]);
        let there = |ip: &str| routes.lines().any(|line| line.starts_with(&format!("local {ip} ")));
        addresses.iter().all(|ip| there(ip)).then_some(())
    });
    let word = if client.is_ipv4() { "ip" } else { "ip6" };
    let to = |ip: IpAddr| SocketAddr::new(ip, 5300);
    run(&[
        "nft",
        &format!(
            "add table inet t; add chain inet t out {{ type nat hook output priority -100; }}; \
             add rule inet t out {word} daddr {virtual_address} udp dport 53 udp sport < 40100 dnat {word} to {first}; \
             add rule inet t out {word} daddr {virtual_address} udp dport 53 dnat {word} to {second}",
            first = to(first),
            second = to(second),
        ),
    ]);
    Net { client, virtual_address, backends: [first, second], family }
}

impl Net {
    fn send(&self, ports: impl IntoIterator<Item = u16>, destination_port: u16) {
        for port in ports {
            // A process that another test is about to start holds a copy of every socket for a moment, closed ones too.
            let socket =
                eventually("a client port", || UdpSocket::bind(SocketAddr::new(self.client, port)).ok());
            socket
                .send_to(b"x", SocketAddr::new(self.virtual_address, destination_port))
                .expect("lo takes datagrams");
        }
    }

    /// Client ports of the flows to the virtual address and port, as `conntrack` lists them.
    fn tracked(&self, destination_port: u16) -> BTreeSet<u16> {
        let listed = run(&[
            "conntrack",
            "-L",
            "-f",
            self.family,
            "-p",
            "udp",
            "--orig-dst",
            &self.virtual_address.to_string(),
            "--orig-port-dst",
            &destination_port.to_string(),
        ]);
        let source_port = |line: &str| line.split("sport=").nth(1)?.split(' ').next()?.parse().ok();
        listed.lines().filter_map(source_port).collect()
    }

    fn flows(&self, reply_source: Option<(IpAddr, u16)>) -> Flows {
        Flows { destination: self.virtual_address, protocol: Protocol::Udp, port: 53, reply_source }
    }
}

fn only_flows_of_the_removed_backend_go(net: fn() -> Net) {
    in_netns(|| {
        let net = net();
        net.send(40_000..40_005, 53);
        net.send(40_100..40_103, 53);
        net.send(40_000..40_002, 54);
        assert_eq!(net.tracked(53).len(), 8, "the case must start with eight flows");

        let mut conntrack = Conntrack::open().expect("conntrack");
        let removed = net.flows(Some((net.backends[0], 5300)));
        assert_eq!(conntrack.delete(&removed).expect("deleted"), 5);
        assert_eq!(net.tracked(53), (40_100..40_103).collect(), "flows of the other backend stay");
        assert_eq!(net.tracked(54).len(), 2, "flows to another port stay");
        assert_eq!(conntrack.delete(&removed).expect("nothing to do"), 0);
        let other_port = net.flows(Some((net.backends[1], 5301)));
        assert_eq!(conntrack.delete(&other_port).expect("nothing to do"), 0);
        assert_eq!(net.tracked(53).len(), 3);
    });
}

fn all_flows_of_a_virtual_server_go(net: fn() -> Net) {
    in_netns(|| {
        let net = net();
        net.send(40_000..40_300, 53);
        net.send(40_000..40_002, 54);
        let mut conntrack = Conntrack::open().expect("conntrack");
        assert_eq!(conntrack.delete(&net.flows(None)).expect("deleted"), 300);
        assert_eq!(net.tracked(53), BTreeSet::new());
        assert_eq!(net.tracked(54).len(), 2);
        let tcp = Flows { protocol: Protocol::Tcp, port: 54, ..net.flows(None) };
        assert_eq!(conntrack.delete(&tcp).expect("nothing to do"), 0);
        assert_eq!(net.tracked(54).len(), 2, "flows of another protocol stay");
    });
}

#[test]
fn only_flows_of_the_removed_backend_go_v4() {
    only_flows_of_the_removed_backend_go(v4);
}

#[test]
fn only_flows_of_the_removed_backend_go_v6() {
    only_flows_of_the_removed_backend_go(v6);
}

#[test]
fn all_flows_of_a_virtual_server_go_v4() {
    all_flows_of_a_virtual_server_go(v4);
}

#[test]
fn all_flows_of_a_virtual_server_go_v6() {
    all_flows_of_a_virtual_server_go(v6);
}

#[test]
#[ignore = "vm: Linux 6.1 has no filtered delete, flows go one by one"]
fn flows_go_one_by_one_where_the_kernel_has_no_filtered_delete() {
    only_flows_of_the_removed_backend_go(v4);
    only_flows_of_the_removed_backend_go(v6);
    all_flows_of_a_virtual_server_go(v4);
    all_flows_of_a_virtual_server_go(v6);
}

fn flows_begun_before_the_service_go(net: fn() -> Net) {
    in_netns(|| {
        let net = net();
        net.send(40_000..40_003, 53);
        net.send(40_000..40_005, 54);
        net.send(40_000..40_007, 55);
        let mut conntrack = Conntrack::open().expect("conntrack");
        let port = |port| Served { ports: [(net.virtual_address, port)].into(), ..Served::default() };
        assert_eq!(conntrack.delete_unserved(&port(53)).expect("nothing to do"), 0, "these are served");
        assert_eq!(conntrack.delete_unserved(&port(54)).expect("deleted"), 5);
        assert_eq!([53, 54, 55].map(|port| net.tracked(port).len()), [3, 0, 7]);
        let all = Served { addresses: [net.virtual_address].into(), ..Served::default() };
        assert_eq!(conntrack.delete_unserved(&all).expect("deleted"), 7);
        assert_eq!([53, 54, 55].map(|port| net.tracked(port).len()), [3, 0, 0]);
        assert_eq!(conntrack.delete_unserved(&Served::default()).expect("nothing to do"), 0);
    });
}

#[test]
fn flows_begun_before_the_service_go_v4() {
    flows_begun_before_the_service_go(v4);
}

#[test]
fn flows_begun_before_the_service_go_v6() {
    flows_begun_before_the_service_go(v6);
}

#[test]
fn flows_of_another_zone_stay() {
    in_netns(|| {
        let net = v4();
        run(&[
            "nft",
            "add chain inet t zone { type filter hook output priority raw; }; \
             add rule inet t zone udp sport 40001 ct zone set 7",
        ]);
        net.send(40_000..40_002, 53);
        let mut conntrack = Conntrack::open().expect("conntrack");
        assert_eq!(conntrack.delete(&net.flows(None)).expect("deleted"), 1);
        assert_eq!(net.tracked(53), BTreeSet::from([40_001]));
    });
}

/// Marks by client port, of flows to the virtual address, as `conntrack` lists them.
fn marks(net: &Net) -> Vec<(u16, u32)> {
    let listed = run(&["conntrack", "-L", "-f", net.family, "-p", "udp"]);
    let field = |line: &str, name: &str| line.split(name).nth(1)?.split(' ').next()?.parse().ok();
    let mut marks: Vec<(u16, u32)> = listed
        .lines()
        .filter_map(|line| Some((field(line, "sport=")? as u16, field(line, "mark=").unwrap_or(0))))
        .collect();
    marks.sort_unstable();
    marks
}

fn only_the_bits_asked_for_are_set(net: fn() -> Net) {
    const CUT: u32 = 0x40000;
    in_netns(|| {
        let net = net();
        run(&[
            "nft",
            "add chain inet t marking { type filter hook output priority 0; }; add rule inet t marking ct mark set 0x5",
        ]);
        net.send([40_000, 40_001, 40_100], 53);
        let mut conntrack = Conntrack::open().expect("conntrack");
        // By the server that has the flow, by the client, by both, and by many.
        let first = conntrack.touching(&[net.backends[0]]).expect("a list");
        let client_ports = |flows: &[Flow]| {
            let mut ports: Vec<u16> = flows.iter().map(|flow| flow.original.source.1).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(client_ports(&first), [40_000, 40_001]);
        assert!(first.iter().all(|flow| flow.mark == 5
            && flow.original.destination == (net.virtual_address, 53)
            && flow.reply.source == (net.backends[0], 5300)));
        let by_both = conntrack.touching(&[net.client, net.backends[1]]).expect("a list");
        assert_eq!(client_ports(&by_both), [40_000, 40_001, 40_100]);
        let by_many = [net.client, net.backends[0], net.backends[1], net.virtual_address];
        assert_eq!(client_ports(&conntrack.touching(&by_many).expect("a list")), [40_000, 40_001, 40_100]);
        // Clients send to the virtual address, but it never has a flow.
        assert_eq!(conntrack.touching(&[net.virtual_address]).expect("a list"), []);
        assert_eq!(conntrack.touching(&[]).expect("a list"), []);

        assert_eq!(conntrack.set_mark(&first, CUT, CUT).expect("marked"), 2);
        assert_eq!(marks(&net), [(40_000, CUT | 5), (40_001, CUT | 5), (40_100, 5)]);
        let family = Family::of(&net.client);
        assert_eq!(client_ports(&conntrack.marked(family, CUT).expect("a list")), [40_000, 40_001]);
        assert_eq!(conntrack.set_mark(first.first(), 0, CUT).expect("cleared"), 1);
        assert_eq!(conntrack.marked(family, CUT).expect("a list").len(), 1);

        conntrack.delete(&net.flows(None)).expect("deleted");
        assert_eq!(conntrack.set_mark(&first, CUT, CUT).expect("nothing to mark"), 0);
        assert_eq!(marks(&net), [], "a flow that has ended is not made anew");
    });
}

#[test]
fn only_the_bits_asked_for_are_set_v4() {
    only_the_bits_asked_for_are_set(v4);
}

#[test]
fn only_the_bits_asked_for_are_set_v6() {
    only_the_bits_asked_for_are_set(v6);
}

#[test]
#[ignore = "vm: Linux 6.1 filters and marks flows, too"]
fn bits_are_set_on_another_kernel() {
    only_the_bits_asked_for_are_set(v4);
    only_the_bits_asked_for_are_set(v6);
}

#[test]
fn a_flow_of_two_families_is_an_error() {
    in_netns(|| {
        let mut conntrack = Conntrack::open().expect("conntrack");
        let mixed = Flows {
            destination: IpAddr::from([10, 9, 0, 100]),
            protocol: Protocol::Udp,
            port: 53,
            reply_source: Some(("fd00:9::11".parse().expect("an address"), 5300)),
        };
        assert!(matches!(conntrack.delete(&mixed), Err(Error::MixedFamilies)));
    });
}

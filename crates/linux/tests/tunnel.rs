//! Tunnels between two network namespaces: one end by the lane, the other by `ip` in the shape the Go kube-router
//! makes. `ip -j -d link`, `ip fou` and `ping` are the judges.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::net::IpAddr;

use common::{eventually, in_netns, run};
use linux::lane::{Change, Lane};
use linux::route::{OwnPorts, RouteLane, RouteScope};
use linux::row::{Family, Key, Link, LinkKind, Row, Tunnel};
use serde_json::Value;

const NAME: &str = "tun-e443169117a";
const PORT: u16 = 5555;

fn lane() -> RouteLane {
    let scope = RouteScope {
        link_prefixes: vec!["tun-".into()],
        tables: vec![77],
        protocol: 17,
        udp_port: Some(PORT),
        ..RouteScope::default()
    };
    RouteLane::new(scope, OwnPorts::default())
}

fn ends(family: Family) -> (IpAddr, IpAddr) {
    let (here, there) = match family {
        Family::V4 => ("192.0.2.1", "192.0.2.2"),
        Family::V6 => ("2001:db8::1", "2001:db8::2"),
    };
    (here.parse().expect("an address"), there.parse().expect("an address"))
}

fn row(family: Family, udp_port: Option<u16>) -> (Key, Row) {
    let (local, remote) = ends(family);
    let kind = LinkKind::Tunnel(Tunnel { local, remote, udp_port });
    (Key::Link(NAME.into()), Row::Link(Box::new(Link { kind, up: true, mtu: None })))
}

fn apply(lane: &mut RouteLane, key: Key, from: Option<Row>, to: Option<Row>) {
    let answer = lane.apply(&[Change { key: key.clone(), from, to, after: Vec::new() }]).pop();
    answer.expect("an answer").unwrap_or_else(|refusal| panic!("{key:?}: {refusal}"));
}

/// A second namespace behind a veth pair, with the underlay's addresses on both ends; gone with the guard.
struct Other(String);

impl Other {
    fn behind_a_cable() -> Other {
        let name = format!("tunnel-{}-{:?}", std::process::id(), std::thread::current().id());
        let name = name.replace(['(', ')'], "");
        run(&["ip", "netns", "add", &name]);
        let other = Other(name);
        run(&["ip", "link", "add", "under", "type", "veth", "peer", "name", "under", "netns", &other.0]);
        for (family, length) in [(Family::V4, 24), (Family::V6, 64)] {
            let (here, there) = ends(family);
            run(&["ip", "address", "add", &format!("{here}/{length}"), "dev", "under", "nodad"]);
            other.run(&["ip", "address", "add", &format!("{there}/{length}"), "dev", "under", "nodad"]);
        }
        run(&["ip", "link", "set", "under", "up"]);
        other.run(&["ip", "link", "set", "under", "up"]);
        other
    }

    fn run(&self, command: &[&str]) -> String {
        let inside: Vec<&str> = ["ip", "netns", "exec", &self.0].iter().chain(command).copied().collect();
        run(&inside)
    }

    /// The other end in upstream's shape, and routes for inner addresses on both ends.
    fn tunnel_like_upstream(&self, family: Family, udp: bool) {
        let (here, there) = ends(family);
        let (here, there) = (here.to_string(), there.to_string());
        let kind = if family == Family::V4 { "ipip" } else { "ip6tnl" };
        let mut add = vec!["ip", "link", "add", "name", "tun-other", "type", kind];
        add.extend(["remote", &here, "local", &there]);
        let port = PORT.to_string();
        if udp {
            let version = if family == Family::V4 { "-4" } else { "-6" };
            self.run(&["ip", version, "fou", "add", "port", &port, "gue"]);
            let mode = if family == Family::V4 { "ipip" } else { "ip6ip6" };
            add.extend(["ttl", "225", "encap", "gue", "encap-sport", "auto", "encap-dport", &port]);
            add.extend(["mode", mode]);
        } else if family == Family::V4 {
            add.extend(["nopmtudisc"]);
        } else {
            add.extend(["mode", "any", "encaplimit", "0"]);
        }
        self.run(&add);
        self.run(&["ip", "link", "set", "tun-other", "up"]);
        let (inner_here, inner_there, length) = inner(family);
        run(&["ip", "address", "add", &format!("{inner_here}/{length}"), "dev", "lo", "nodad"]);
        self.run(&["ip", "address", "add", &format!("{inner_there}/{length}"), "dev", "lo", "nodad"]);
        self.run(&["ip", "link", "set", "lo", "up"]);
        self.run(&["ip", "route", "add", &format!("{inner_here}/{length}"), "dev", "tun-other"]);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        run(&["ip", "netns", "delete", &self.0]);
    }
}

fn inner(family: Family) -> (&'static str, &'static str, u8) {
    match family {
        Family::V4 => ("10.1.0.1", "10.1.1.1", 32),
        Family::V6 => ("fd00:1::1", "fd00:2::1", 128),
    }
}

fn pings_through(family: Family) {
    let (here, there, length) = inner(family);
    run(&["ip", "route", "replace", &format!("{there}/{length}"), "dev", NAME, "src", here]);
    run(&["ping", "-c", "2", "-i", "0.2", "-W", "10", "-I", here, there]);
    // Larger than any packet of the underlay: fragments and path MTU work, too.
    run(&["ping", "-c", "1", "-W", "10", "-s", "3000", "-I", here, there]);
}

fn described() -> Value {
    let text = run(&["ip", "-j", "-d", "link", "show", "dev", NAME]);
    let mut list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    list.pop().expect("the tunnel")
}

#[test]
#[ignore = "vm: ipip and ip6tnl links"]
fn plain_tunnels_carry_packets_to_upstreams_end() {
    for family in Family::ALL {
        in_netns(|| {
            let other = Other::behind_a_cable();
            other.tunnel_like_upstream(family, false);
            let mut lane = lane();
            let (key, wanted) = row(family, None);
            apply(&mut lane, key.clone(), None, Some(wanted.clone()));
            assert_eq!(lane.read().expect("rows"), [(key.clone(), wanted.clone())]);
            let kind = described()["linkinfo"]["info_kind"].clone();
            assert_eq!(kind, if family == Family::V4 { "ipip" } else { "ip6tnl" });
            pings_through(family);
            apply(&mut lane, key, Some(wanted), None);
            assert_eq!(lane.read().expect("rows"), []);
        });
    }
}

#[test]
#[ignore = "vm: FoU"]
fn encapsulated_tunnels_carry_packets_to_upstreams_end() {
    for family in Family::ALL {
        in_netns(|| {
            let other = Other::behind_a_cable();
            other.tunnel_like_upstream(family, true);
            let mut lane = lane();
            let port = Key::FouPort(family, PORT);
            apply(&mut lane, port.clone(), None, Some(Row::FouPort));
            apply(&mut lane, port.clone(), None, Some(Row::FouPort));
            let (key, wanted) = row(family, Some(PORT));
            apply(&mut lane, key.clone(), None, Some(wanted.clone()));
            assert_eq!(
                lane.read().expect("rows"),
                [(key.clone(), wanted.clone()), (port.clone(), Row::FouPort)]
            );
            let version = if family == Family::V4 { "-4" } else { "-6" };
            assert!(run(&["ip", version, "fou", "show"]).contains("port 5555 gue"));
            let encapsulation = described()["linkinfo"]["info_data"]["encap"].clone();
            assert_eq!(encapsulation["type"], "gue");
            assert_eq!(encapsulation["dport"], PORT);
            pings_through(family);
            // Plain instead: the link is replaced, the port closed after it.
            let (_, plain) = row(family, None);
            apply(&mut lane, key, Some(wanted), Some(plain));
            apply(&mut lane, port.clone(), Some(Row::FouPort), None);
            apply(&mut lane, port, Some(Row::FouPort), None);
            eventually("no port", || (!run(&["ip", version, "fou", "show"]).contains("5555")).then_some(()));
        });
    }
}

#[test]
#[ignore = "vm: ipip and ip6tnl links"]
fn a_tunnel_of_upstreams_making_reads_as_ours() {
    for family in Family::ALL {
        in_netns(|| {
            let _other = Other::behind_a_cable();
            let (here, there) = ends(family);
            let (here, there) = (here.to_string(), there.to_string());
            let mut add = vec!["ip", "link", "add", "name", NAME, "type"];
            add.push(if family == Family::V4 { "ipip" } else { "ip6tnl" });
            add.extend(["remote", &there, "local", &here]);
            run(&add);
            run(&["ip", "link", "set", NAME, "up"]);
            assert_eq!(lane().read().expect("rows"), [row(family, None)]);
        });
    }
}

#[test]
fn a_kernel_without_fou_says_what_to_load() {
    in_netns(|| {
        let mut lane = lane();
        let change = Change {
            key: Key::FouPort(Family::V4, PORT),
            from: None,
            to: Some(Row::FouPort),
            after: Vec::new(),
        };
        match lane.apply(&[change]).pop().expect("an answer") {
            Ok(()) => assert!(run(&["ip", "fou", "show"]).contains("port 5555 gue")),
            Err(refusal) => assert!(refusal.reason.contains("modprobe -a fou fou6"), "{refusal}"),
        }
        lane.read().expect("a kernel without FoU has no such ports");
    });
}

//! What IPVS does to packets after the lane has written its rows: real datagrams are the verdict.
//!
//! Clients, virtual address and real servers share one namespace; IPVS sees local clients at its output hook.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails
mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::{eventually, in_netns, run, sysctl};
use linux::conntrack::{Conntrack, Flows};
use linux::ipvs::{ConnectionCount, Connections, IpvsLane};
use linux::lane::{Change, Lane};
use linux::row::{
    Forwarding, IpvsTimeouts, Key, Protocol, RealServer, Row, Scheduler, VirtualServer, VirtualServerKey,
};

const PORT: u16 = 53;
const BACKEND_PORT: u16 = 5300;
/// Far above a round trip inside one kernel, emulated or not.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The real server of this index got it and its answer came back.
    Answered(usize),
    /// The real server of this index got it, but the client never saw the answer.
    Lost(usize),
    /// No real server for it: the client is told at once (a local one by EPERM from send(2), a remote one by ICMP).
    Refused,
    /// Nothing.
    Silence,
}

struct Net {
    clients: Vec<IpAddr>,
    key: VirtualServerKey,
    backends: Vec<UdpSocket>,
    lane: IpvsLane,
}

impl Net {
    /// `clients` client addresses and `backends` UDP real servers of weight 1 behind one virtual server.
    fn new(v6: bool, clients: u8, backends: u8, server: VirtualServer) -> Net {
        sysctl("net/ipv4/vs/conntrack", "1");
        sysctl("net/ipv4/vs/expire_nodest_conn", "1");
        // Flows are tracked once some rule asks for their state; a node's firewall always does.
        run(&[
            "nft",
            "add table inet t; add chain inet t out { type filter hook output priority 0; }; \
             add rule inet t out ct state established accept",
        ]);
        let ip = |kind: u8, n: u8| -> IpAddr {
            match v6 {
                true => [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, n].into(),
                false => [10, 9, kind, n].into(),
            }
        };
        let virtual_address = ip(0, 1);
        let clients: Vec<IpAddr> = (1..=clients).map(|n| ip(1, n)).collect();
        let backend_addresses: Vec<IpAddr> = (1..=backends).map(|n| ip(2, n)).collect();
        let all: Vec<IpAddr> = [&[virtual_address], &clients[..], &backend_addresses[..]].concat();
        add_addresses(&all);
        let backends: Vec<UdpSocket> = backend_addresses
            .iter()
            .map(|ip| {
                let socket = UdpSocket::bind((*ip, BACKEND_PORT)).expect("a backend");
                socket.set_nonblocking(true).expect("nonblocking");
                socket
            })
            .collect();
        let key = VirtualServerKey::Address { ip: virtual_address, protocol: Protocol::Udp, port: PORT };
        let timeouts = IpvsTimeouts { tcp: 0, tcp_fin: 0, udp: 0 };
        let mut net = Net { clients, key, backends, lane: IpvsLane::open(timeouts).expect("IPVS") };
        net.write(Key::VirtualServer(key), Some(Row::VirtualServer(server.into())));
        for index in 0..backend_addresses.len() {
            net.weigh(index, 1);
        }
        net
    }

    /// Writes a row whatever was there.
    fn write(&mut self, key: Key, to: Option<Row>) {
        for answer in self.lane.apply(&[Change { key, from: None, to, after: Vec::new() }]) {
            answer.expect("taken by the kernel");
        }
    }

    fn address(&self, index: usize) -> IpAddr {
        self.backends[index].local_addr().expect("bound").ip()
    }

    fn weigh(&mut self, index: usize, weight: u32) {
        let row = Row::RealServer(RealServer { weight, forwarding: Forwarding::Masquerade });
        self.write(Key::RealServer(self.key, self.address(index), BACKEND_PORT), Some(row));
    }

    fn remove(&mut self, index: usize) {
        self.write(Key::RealServer(self.key, self.address(index), BACKEND_PORT), None);
    }

    fn virtual_address(&self) -> IpAddr {
        match self.key {
            VirtualServerKey::Address { ip, .. } => ip,
            VirtualServerKey::Mark { .. } => panic!("not by mark here"),
        }
    }

    /// A client's socket; it hears only what comes from the virtual server.
    fn client(&self, index: usize) -> UdpSocket {
        let socket = UdpSocket::bind((self.clients[index], 0)).expect("a client");
        socket.connect((self.virtual_address(), PORT)).expect("a destination");
        socket.set_nonblocking(true).expect("nonblocking");
        socket
    }

    /// Sends one datagram, plays the real servers, and sees what becomes of it.
    fn ask(&self, client: &UdpSocket) -> Outcome {
        let mut buffer = [0; 16];
        let mut outcome = Outcome::Silence;
        if let Err(error) = client.send(b"?") {
            // IPVS drops at the output hook, which send(2) reports as EPERM, or has told an earlier one.
            let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
            assert!(kinds.contains(&error.kind()), "{error}");
            return Outcome::Refused;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for (index, backend) in self.backends.iter().enumerate() {
                if let Ok((_, from)) = backend.recv_from(&mut buffer) {
                    outcome = Outcome::Lost(index);
                    backend.send_to(&[index as u8], from).expect("an answer");
                }
            }
            match client.recv(&mut buffer) {
                Ok(_) => return Outcome::Answered(usize::from(buffer[0])),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Outcome::Refused,
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        outcome
    }

    /// Outcome of one datagram of a new flow from each client.
    fn ask_from_every_client(&self) -> Vec<Outcome> {
        (0..self.clients.len()).map(|index| self.ask(&self.client(index))).collect()
    }
}

fn add_addresses(all: &[IpAddr]) {
    let mut batch = String::new();
    for ip in all {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        batch.push_str(&format!("addr add {ip}/{length} dev lo nodad\n"));
    }
    let mut file = std::env::temp_dir();
    file.push(format!("addresses-{}-{:?}", std::process::id(), thread::current().id()));
    std::fs::write(&file, batch).expect("a scratch file");
    run(&["ip", "-batch", &file.to_string_lossy()]);
    std::fs::remove_file(&file).expect("the scratch file");
    // The kernel makes an IPv6 address's local route a moment after the address.
    eventually("every address takes packets", || {
        all.iter()
            .all(|ip| {
                let socket = UdpSocket::bind((*ip, 0)).expect("an address of ours");
                let to: SocketAddr = socket.local_addr().expect("bound");
                socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a bound on waiting");
                socket.send_to(b"x", to).is_ok() && socket.recv(&mut [0]).is_ok()
            })
            .then_some(())
    });
}

fn server(scheduler: &str, scheduler_flags: u8) -> VirtualServer {
    VirtualServer { scheduler: Scheduler::named(scheduler), scheduler_flags, persistence: None }
}

/// Every flow IPVS remembers, as `ipvsadm -Lnc` lists them.
fn remembered() -> usize {
    run(&["ipvsadm", "-Lnc"]).lines().filter(|line| line.starts_with("UDP")).count()
}

/// Removes the real server that has the flow of a client, purges, and hands back what is left to look at.
fn remove_the_real_server_of_a_flow(net: &mut Net, first: usize) -> usize {
    let gone = net.address(first);
    net.remove(first);
    let flows = Flows {
        destination: net.virtual_address(),
        protocol: Protocol::Udp,
        port: PORT,
        reply_source: Some((gone, BACKEND_PORT)),
    };
    Conntrack::open().expect("conntrack").delete(&flows).expect("deleted")
}

fn a_flow_of_a_removed_real_server_moves_with_its_next_datagram(v6: bool) {
    in_netns(|| {
        let mut net = Net::new(v6, 1, 2, server("rr", 0));
        let client = net.client(0);
        let Outcome::Answered(first) = net.ask(&client) else { panic!("no answer at all") };
        assert_eq!(net.ask(&client), Outcome::Answered(first), "a flow stays where it is");
        let bystander = net.client(0);
        let other = 1 - first;
        assert_eq!(net.ask(&bystander), Outcome::Answered(other));

        // From 5.9 on the kernel itself flushes IPVS's entries, a tick later, and their tracked flows with them.
        assert!(remove_the_real_server_of_a_flow(&mut net, first) <= 1);
        eventually("IPVS has forgotten the flow", || (remembered() == 1).then_some(()));
        assert_eq!(net.ask(&client), Outcome::Answered(other), "the very next datagram");
        assert_eq!(net.ask(&bystander), Outcome::Answered(other), "the other flow never noticed");
        let family = if v6 { "ipv6" } else { "ipv4" };
        let tracked = run(&["conntrack", "-L", "-f", family, "-p", "udp", "--orig-port-dst", "53"]);
        let gone = format!(" src={} ", net.address(first));
        assert_eq!(tracked.lines().count(), 2, "{tracked}");
        assert!(!tracked.contains(&gone), "{tracked}");
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn a_flow_of_a_removed_real_server_moves_with_its_next_datagram_v4() {
    a_flow_of_a_removed_real_server_moves_with_its_next_datagram(false);
}

#[test]
#[ignore = "vm: needs IPVS"]
fn a_flow_of_a_removed_real_server_moves_with_its_next_datagram_v6() {
    a_flow_of_a_removed_real_server_moves_with_its_next_datagram(true);
}

/// The reason for `net.ipv4.vs.expire_nodest_conn=1`: conntrack is not the only one that remembers.
#[test]
#[ignore = "vm: needs IPVS"]
fn without_expire_nodest_conn_a_purge_does_not_help() {
    in_netns(|| {
        let mut net = Net::new(false, 1, 2, server("rr", 0));
        sysctl("net/ipv4/vs/expire_nodest_conn", "0");
        let client = net.client(0);
        let Outcome::Answered(first) = net.ask(&client) else { panic!("no answer at all") };
        assert_eq!(remove_the_real_server_of_a_flow(&mut net, first), 1);
        assert_eq!(remembered(), 1, "IPVS keeps the entry");
        assert_eq!(net.ask(&client), Outcome::Refused);
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn counters_and_connections_tell_what_went_through() {
    in_netns(|| {
        let net = Net::new(false, 3, 2, server("rr", 0));
        let mut view = Connections::open().expect("IPVS");
        let real = |index| (net.key, net.address(index), BACKEND_PORT);
        let unknown = (net.key, net.clients[0], 1);
        let none = Some(ConnectionCount::default());
        assert_eq!(view.of(&[real(0), unknown, real(1)]).expect("read"), [none, None, none]);

        assert_eq!(net.ask_from_every_client().len(), 3);
        let counts = view.of(&[real(0), real(1)]).expect("read");
        let flows: u32 = counts.iter().map(|count| count.expect("there").inactive).sum();
        assert_eq!(flows, 3, "UDP flows count as inactive: {counts:?}");
        // Up to Linux 6.1 the counters one can read are brought up to date every two seconds.
        let counters = eventually("counters of three connections", || {
            let (_, counters) = view.service_counters().expect("read").remove(0);
            let all = (counters.connections, counters.packets_in, counters.packets_out);
            (all == (3, 3, 3)).then_some(counters)
        });
        // IPv4 and UDP headers, one byte of question, one of answer.
        assert_eq!((counters.bytes_in, counters.bytes_out), (3 * 29, 3 * 29));
        let listed = run(&["ipvsadm", "-Ln", "--stats", "--exact"]);
        let line = listed.lines().find(|line| line.starts_with("UDP")).expect("the virtual server");
        let numbers: Vec<&str> = line.split_whitespace().skip(2).collect();
        assert_eq!(numbers, ["3", "3", "3", "87", "87"], "{listed}");
    });
}

/// Where the flows of 32 clients go when the real server of the first is at weight 0: `(before, after)` for each
/// client's new flow, split into clients that had the drained real server and those that had not. Flows it already
/// has must stay, and once it is deleted every client must be served.
fn new_flows_at_weight_zero(scheduler: &str, flags: u8) -> [Vec<(Outcome, Outcome)>; 2] {
    in_netns(|| {
        let mut net = Net::new(false, 32, 3, server(scheduler, flags));
        let established = net.client(0);
        let first = net.ask(&established);
        let Outcome::Answered(drained) = first else { panic!("no answer at all: {first:?}") };
        let before = net.ask_from_every_client();
        net.weigh(drained, 0);
        let after = net.ask_from_every_client();
        assert_eq!(net.ask(&established), first, "a flow that is there goes on at weight 0");

        net.remove(drained);
        for outcome in net.ask_from_every_client() {
            assert!(matches!(outcome, Outcome::Answered(index) if index != drained), "{outcome:?}");
        }
        let pairs = before.into_iter().zip(after);
        let (had, had_not) = pairs.partition(|(before, _)| *before == first);
        [had, had_not]
    })
}

fn answered(outcomes: &[(Outcome, Outcome)]) -> bool {
    outcomes.iter().all(|(_, after)| matches!(after, Outcome::Answered(_)))
}

fn refused(outcomes: &[(Outcome, Outcome)]) -> bool {
    outcomes.iter().all(|(_, after)| *after == Outcome::Refused)
}

fn unmoved(outcomes: &[(Outcome, Outcome)]) -> bool {
    outcomes.iter().all(|(before, after)| before == after)
}

#[test]
#[ignore = "vm: needs IPVS"]
fn weight_zero_with_rr_and_lc_sends_new_flows_elsewhere() {
    for scheduler in ["rr", "lc"] {
        let [had, had_not] = new_flows_at_weight_zero(scheduler, 0);
        assert!(had.len() >= 8 && had_not.len() >= 16, "{scheduler}: {had:?} {had_not:?}");
        assert!(answered(&had) && answered(&had_not), "{scheduler}: {had:?} {had_not:?}");
        assert!(had.iter().all(|(before, after)| before != after), "{scheduler}: {had:?}");
    }
}

/// `sh` and `mh` go on hashing clients onto a real server of weight 0 and then refuse them.
#[test]
#[ignore = "vm: needs IPVS"]
fn weight_zero_with_sh_and_mh_refuses_its_clients_new_flows() {
    for scheduler in ["sh", "mh"] {
        let [had, had_not] = new_flows_at_weight_zero(scheduler, 0);
        assert!(had.len() >= 5 && had_not.len() >= 12, "{scheduler}: {had:?} {had_not:?}");
        assert!(refused(&had), "{scheduler}: {had:?}");
        assert!(unmoved(&had_not), "{scheduler}: {had_not:?}");
    }
}

/// With the fallback flag (`flag-1`) they hash those clients once more, and nobody else moves.
#[test]
#[ignore = "vm: needs IPVS"]
fn weight_zero_with_sh_and_mh_and_fallback_moves_only_its_clients() {
    for scheduler in ["sh", "mh"] {
        let [had, had_not] = new_flows_at_weight_zero(scheduler, 0x08);
        assert!(had.len() >= 5 && had_not.len() >= 12, "{scheduler}: {had:?} {had_not:?}");
        assert!(answered(&had), "{scheduler}: {had:?}");
        assert!(had.iter().all(|(before, after)| before != after), "{scheduler}: {had:?}");
        assert!(unmoved(&had_not), "{scheduler}: {had_not:?}");
    }
}

/// `dh` hashes the virtual address: one real server has every client, at weight 0 all of them are refused, and it has
/// no fallback. A real server behind `dh` cannot be drained, only deleted.
#[test]
#[ignore = "vm: needs IPVS"]
fn weight_zero_with_dh_refuses_everyone_whatever_the_flag() {
    for flags in [0, 0x08] {
        let [had, had_not] = new_flows_at_weight_zero("dh", flags);
        assert_eq!((had.len(), had_not.len()), (32, 0));
        assert!(refused(&had), "{had:?}");
    }
}

//! The IPVS lane on a real kernel; `ipvsadm` is the judge. Each case has a network namespace of its own.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use common::run;
use linux::ipvs::IpvsLane;
use linux::lane::{Change, Lane};
use linux::row::{
    Family, Forwarding, IpvsTimeouts, Key, Name, Protocol, RealServer, Row, Scheduler, VirtualServer,
    VirtualServerKey,
};

/// Up to Linux 6.1 at least, all namespaces share one table, and a dump of many rows skips some when others are removed
/// meanwhile: `ipvsadm`'s as much as ours. So a case with more rows than fit one datagram runs alone.
enum Company {
    Any,
    None,
}

fn in_netns(company: Company, case: impl FnOnce() + Send) {
    static TABLE: RwLock<()> = RwLock::new(());
    let _shared;
    let _alone;
    match company {
        Company::Any => _shared = TABLE.read().unwrap_or_else(PoisonError::into_inner),
        Company::None => _alone = TABLE.write().unwrap_or_else(PoisonError::into_inner),
    }
    common::in_netns(case);
}

const NO_TIMEOUTS: IpvsTimeouts = IpvsTimeouts { tcp: 0, tcp_fin: 0, udp: 0 };

fn lane() -> IpvsLane {
    IpvsLane::open(NO_TIMEOUTS).expect("IPVS")
}

fn address(ip: &str, protocol: Protocol, port: u16) -> VirtualServerKey {
    VirtualServerKey::Address { ip: ip.parse().expect("an address"), protocol, port }
}

fn server(scheduler: &str) -> VirtualServer {
    VirtualServer { scheduler: Scheduler::named(scheduler), scheduler_flags: 0, persistence: None }
}

fn service(key: VirtualServerKey, server: VirtualServer) -> (Key, Row) {
    (Key::VirtualServer(key), Row::VirtualServer(server.into()))
}

fn real(key: VirtualServerKey, ip: &str, port: u16, weight: u32, forwarding: Forwarding) -> (Key, Row) {
    let ip: IpAddr = ip.parse().expect("an address");
    (Key::RealServer(key, ip, port), Row::RealServer(RealServer { weight, forwarding }))
}

fn change(key: &Key, from: Option<&Row>, to: Option<&Row>) -> Change {
    Change { key: key.clone(), from: from.cloned(), to: to.cloned(), after: Vec::new() }
}

fn create((key, row): &(Key, Row)) -> Change {
    change(key, None, Some(row))
}

fn remove((key, row): &(Key, Row)) -> Change {
    change(key, Some(row), None)
}

/// Applies one stage in which nothing may be refused.
fn apply(lane: &mut IpvsLane, stage: &[Change]) {
    for (change, answer) in stage.iter().zip(lane.apply(stage)) {
        answer.unwrap_or_else(|refusal| panic!("{:?}: {refusal}", change.key));
    }
}

fn reason(lane: &mut IpvsLane, change: Change) -> String {
    let answer = lane.apply(&[change]).remove(0);
    answer.expect_err("must be refused").reason
}

fn read(lane: &mut IpvsLane) -> BTreeMap<Key, String> {
    lane.read().expect("a readable IPVS").into_iter().map(|(key, row)| (key, format!("{row:?}"))).collect()
}

fn as_read(rows: &[(Key, Row)]) -> BTreeMap<Key, String> {
    rows.iter().map(|(key, row)| (key.clone(), format!("{row:?}"))).collect()
}

/// What `ipvsadm` would have to be told to get the present table.
fn saved() -> BTreeSet<String> {
    run(&["ipvsadm", "-Sn"]).lines().map(|line| line.trim().to_owned()).collect()
}

fn lines(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
#[ignore = "vm: needs IPVS"]
fn rows_of_every_kind_are_written_as_ipvsadm_reads_them() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        let tcp = address("10.0.0.1", Protocol::Tcp, 80);
        let udp6 = address("fd00::1", Protocol::Udp, 53);
        let sctp = address("10.0.0.1", Protocol::Sctp, 80);
        let mark = VirtualServerKey::Mark { family: Family::V4, mark: 0x8000_0001 };
        let mark6 = VirtualServerKey::Mark { family: Family::V6, mark: 7 };
        let services = [
            service(tcp, VirtualServer { persistence: Some(10_800), ..server("lc") }),
            service(udp6, VirtualServer { scheduler_flags: 0x18, ..server("mh") }),
            service(sctp, VirtualServer { scheduler_flags: 0x08, ..server("sh") }),
            service(mark, server("rr")),
            service(mark6, server("dh")),
        ];
        let reals = [
            real(tcp, "10.1.0.1", 8080, 1, Forwarding::Masquerade),
            real(tcp, "10.1.0.2", 8080, 0, Forwarding::Masquerade),
            real(tcp, "10.1.0.3", 80, 100, Forwarding::DirectRoute),
            real(tcp, "fd00:1::9", 80, 5, Forwarding::Tunnel),
            real(udp6, "fd00:1::1", 5300, 65_535, Forwarding::Masquerade),
            real(sctp, "10.1.0.1", 8080, 1, Forwarding::Masquerade),
            real(mark, "10.1.0.4", 0, 1, Forwarding::Tunnel),
            real(mark6, "fd00:1::4", 80, 1, Forwarding::Local),
        ];
        apply(&mut lane, &services.each_ref().map(create));
        apply(&mut lane, &reals.each_ref().map(create));
        assert_eq!(
            saved(),
            lines(&[
                "-A -t 10.0.0.1:80 -s lc -p 10800",
                "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1",
                "-a -t 10.0.0.1:80 -r 10.1.0.2:8080 -m -w 0",
                "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 100",
                "-a -t 10.0.0.1:80 -r [fd00:1::9]:80 -i -w 5 --tun-type ipip",
                "-A -u [fd00::1]:53 -s mh -b mh-fallback,mh-port",
                "-a -u [fd00::1]:53 -r [fd00:1::1]:5300 -m -w 65535",
                "-A --sctp-service 10.0.0.1:80 -s sh -b sh-fallback",
                "-a --sctp-service 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1",
                "-A -f -2147483647 -s rr",
                "-a -f -2147483647 -r 10.1.0.4:0 -i -w 1 --tun-type ipip",
                "-A -f 7 -6 -s dh",
                "-a -f 7 -6 -r [fd00:1::4]:80 -g -w 1",
            ]),
            "(ipvsadm saves marks as signed numbers, and local real servers as directly routed)"
        );
        let listed = run(&["ipvsadm", "-Ln"]);
        let local =
            listed.lines().find(|line| line.contains("[fd00:1::4]:80")).expect("the local real server");
        assert!(local.contains("Local"), "{local}");
        let rows: Vec<(Key, Row)> = services.into_iter().chain(reals).collect();
        assert_eq!(read(&mut lane), as_read(&rows), "what is read equals what was written");
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn every_scheduler_follows_every_other_in_place() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        let key = address("10.0.0.1", Protocol::Tcp, 80);
        let mut there = service(key, server("rr"));
        let backend = real(key, "10.1.0.1", 8080, 1, Forwarding::Masquerade);
        apply(&mut lane, &[create(&there)]);
        apply(&mut lane, &[create(&backend)]);
        for scheduler in
            ["wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "rr"]
        {
            let next = service(key, server(scheduler));
            apply(&mut lane, &[change(&next.0, Some(&there.1), Some(&next.1))]);
            let expected = format!("-A -t 10.0.0.1:80 -s {scheduler}");
            assert_eq!(saved(), lines(&[&expected, "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1"]));
            there = next;
        }
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn rows_change_in_place() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        let key = address("10.0.0.1", Protocol::Tcp, 80);
        let before = service(key, VirtualServer { scheduler_flags: 0x18, ..server("mh") });
        let backend = real(key, "10.1.0.1", 80, 1, Forwarding::Masquerade);
        apply(&mut lane, &[create(&before)]);
        apply(&mut lane, &[create(&backend)]);

        let after =
            service(key, VirtualServer { persistence: Some(60), scheduler_flags: 0x10, ..server("mh") });
        apply(&mut lane, &[change(&after.0, Some(&before.1), Some(&after.1))]);
        let tunnelled = real(key, "10.1.0.1", 80, 7, Forwarding::Tunnel);
        apply(&mut lane, &[change(&tunnelled.0, Some(&backend.1), Some(&tunnelled.1))]);
        assert_eq!(
            saved(),
            lines(&[
                "-A -t 10.0.0.1:80 -s mh -p 60 -b mh-port",
                "-a -t 10.0.0.1:80 -r 10.1.0.1:80 -i -w 7 --tun-type ipip"
            ])
        );
        let plain = service(key, server("mh"));
        apply(&mut lane, &[change(&plain.0, Some(&after.1), Some(&plain.1))]);
        apply(&mut lane, &[change(&backend.0, Some(&tunnelled.1), Some(&backend.1))]);
        assert_eq!(saved(), lines(&["-A -t 10.0.0.1:80 -s mh", "-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1"]));
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn a_wrong_belief_costs_one_more_request_and_ends_in_the_desired_row() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        run(&["ipvsadm", "-A", "-t", "10.0.0.1:80", "-s", "wrr", "-p", "5"]);
        run(&[
            "ipvsadm",
            "-a",
            "-t",
            "10.0.0.1:80",
            "-r",
            "10.1.0.1:80",
            "-i",
            "-w",
            "9",
            "-x",
            "50",
            "-y",
            "5",
        ]);
        let key = address("10.0.0.1", Protocol::Tcp, 80);
        let wanted = service(key, server("rr"));
        let backend = real(key, "10.1.0.1", 80, 1, Forwarding::Masquerade);
        apply(&mut lane, &[create(&wanted), create(&backend)]);
        let expected = lines(&["-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1"]);
        assert_eq!(saved(), expected, "believed absent, was there with other content (and thresholds)");
        assert_eq!(lane.requests().expect("counted").writes(), 4);

        run(&["ipvsadm", "-C"]);
        apply(&mut lane, &[change(&wanted.0, Some(&wanted.1), Some(&wanted.1))]);
        apply(&mut lane, &[change(&backend.0, Some(&backend.1), Some(&backend.1))]);
        assert_eq!(saved(), expected, "believed there, was gone");
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn removal_takes_the_real_servers_along_and_is_success_when_repeated() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        let gone = address("10.0.0.1", Protocol::Tcp, 80);
        let stays = address("10.0.0.1", Protocol::Udp, 80);
        let services = [service(gone, server("rr")), service(stays, server("rr"))];
        let backends = [
            real(gone, "10.1.0.1", 80, 1, Forwarding::Masquerade),
            real(stays, "10.1.0.1", 80, 1, Forwarding::Masquerade),
            real(stays, "10.1.0.2", 80, 1, Forwarding::Masquerade),
        ];
        apply(&mut lane, &services.each_ref().map(create));
        apply(&mut lane, &backends.each_ref().map(create));
        for _ in 0..2 {
            apply(&mut lane, &[remove(&services[0]), remove(&backends[0]), remove(&backends[2])]);
            assert_eq!(
                saved(),
                lines(&["-A -u 10.0.0.1:80 -s rr", "-a -u 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1"])
            );
        }
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn refusals_name_the_cause_and_do_not_stop_the_others() {
    in_netns(Company::Any, || {
        let mut lane = lane();
        let bad = service(address("10.0.0.1", Protocol::Tcp, 80), server("nosuch"));
        let good = service(address("10.0.0.2", Protocol::Tcp, 80), server("rr"));
        let answers = lane.apply(&[create(&bad), create(&good)]);
        let refusal = answers[0].as_ref().expect_err("no such scheduler");
        assert!(refusal.reason.contains("modprobe ip_vs_nosuch"), "{refusal}");
        assert_eq!(refusal.errno, Some(2));
        assert_eq!(answers[1], Ok(()));
        assert_eq!(saved(), lines(&["-A -t 10.0.0.2:80 -s rr"]));

        let changed = service(address("10.0.0.2", Protocol::Tcp, 80), server("nosuch"));
        let text = reason(&mut lane, change(&changed.0, Some(&good.1), Some(&changed.1)));
        assert!(text.contains("modprobe ip_vs_nosuch"), "{text}");

        let orphan = real(address("10.0.0.1", Protocol::Tcp, 80), "10.1.0.1", 80, 1, Forwarding::Masquerade);
        let text = reason(&mut lane, create(&orphan));
        assert!(text.contains("its virtual server is not in the kernel"), "{text}");
        let text = reason(&mut lane, change(&orphan.0, Some(&orphan.1), Some(&orphan.1)));
        assert!(text.contains("its virtual server is not in the kernel"), "{text}");

        let there = address("10.0.0.2", Protocol::Tcp, 80);
        let multicast = real(there, "224.0.0.1", 80, 1, Forwarding::Masquerade);
        let text = reason(&mut lane, create(&multicast));
        assert!(text.contains("neither unicast nor local"), "{text}");
        let heavy = real(there, "10.1.0.1", 80, u32::MAX, Forwarding::Masquerade);
        let text = reason(&mut lane, create(&heavy));
        assert!(text.contains("weight is out of range"), "{text}");
        assert_eq!(saved(), lines(&["-A -t 10.0.0.2:80 -s rr"]));
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn timeouts_that_are_not_ours_read_as_zero_and_stay() {
    in_netns(Company::Any, || {
        run(&["ipvsadm", "--set", "901", "121", "301"]);
        let mut none = lane();
        assert_eq!(none.read().expect("read"), [], "no flag set: no row");
        let wanted = IpvsTimeouts { tcp: 0, tcp_fin: 45, udp: 90 };
        let mut lane = IpvsLane::open(wanted).expect("IPVS");
        let row = |timeouts| (Key::IpvsTimeouts, Row::IpvsTimeouts(timeouts));
        let before = IpvsTimeouts { tcp: 0, tcp_fin: 121, udp: 301 };
        assert_eq!(lane.read().expect("read"), [row(before)]);
        let (key, to) = row(wanted);
        apply(&mut lane, &[change(&key, Some(&Row::IpvsTimeouts(before)), Some(&to))]);
        assert_eq!(run(&["ipvsadm", "-L", "--timeout"]).trim(), "Timeout (tcp tcpfin udp): 901 45 90");
        assert_eq!(lane.read().expect("read"), [row(wanted)], "what is read equals what was written");
        let writes = lane.requests().expect("counted").writes();
        apply(&mut lane, &[change(&key, Some(&to), None)]);
        assert_eq!(lane.requests().expect("counted").writes(), writes, "giving timeouts up writes nothing");
        assert_eq!(run(&["ipvsadm", "-L", "--timeout"]).trim(), "Timeout (tcp tcpfin udp): 901 45 90");
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn five_thousand_virtual_servers_are_one_batch() {
    in_netns(Company::None, || {
        let mut lane = lane();
        let key = |n: u16| {
            let [high, low] = n.to_be_bytes();
            VirtualServerKey::Address { ip: [10, 9, high, low].into(), protocol: Protocol::Tcp, port: 80 }
        };
        let services: Vec<_> = (0..5000).map(|n| service(key(n), server("rr"))).collect();
        let backends: Vec<_> = (0..5000)
            .flat_map(|n| ["10.1.0.1", "10.1.0.2"].map(|ip| real(key(n), ip, 80, 1, Forwarding::Masquerade)))
            .collect();
        let started = Instant::now();
        apply(&mut lane, &services.iter().map(create).collect::<Vec<_>>());
        let created = started.elapsed();
        apply(&mut lane, &backends.iter().map(create).collect::<Vec<_>>());
        let filled = started.elapsed() - created;
        let started = Instant::now();
        let rows = read(&mut lane);
        let took = started.elapsed();
        println!("5000 virtual servers {created:?}, 10000 real servers {filled:?}, read {took:?}");
        let all: Vec<_> = services.iter().chain(&backends).cloned().collect();
        assert_eq!(rows, as_read(&all));
        assert_eq!(saved().len(), 15_000);
        let started = Instant::now();
        apply(&mut lane, &services.iter().map(remove).collect::<Vec<_>>());
        println!("removed {:?}", started.elapsed());
        assert_eq!(saved(), BTreeSet::new());
    });
}

#[test]
#[ignore = "vm: needs IPVS"]
fn odd_rows_of_others_are_read_without_harm() {
    in_netns(Company::Any, || {
        let foreign: &[&[&str]] = &[
            &["-A", "-u", "10.0.0.1:5060", "-s", "rr", "-o"],
            &["-A", "-u", "10.0.0.2:5060", "-s", "rr", "-p", "60", "--pe", "sip"],
            &["-A", "-t", "10.0.0.3:0", "-s", "wlc", "-p", "60"],
            &["-A", "-t", "10.0.0.4:80", "-s", "ovf", "-p", "60", "-M", "255.255.255.0"],
            &["-a", "-t", "10.0.0.4:80", "-r", "10.1.0.1:80", "-i", "-w", "1", "-x", "9", "-y", "3"],
            &[
                "-a",
                "-t",
                "10.0.0.4:80",
                "-r",
                "10.1.0.2:80",
                "-i",
                "--tun-type",
                "gue",
                "--tun-port",
                "6080",
            ],
            &["-A", "-t", "[fd00::4]:80", "-s", "rr", "-p", "60", "-M", "64"],
        ];
        for arguments in foreign {
            run(&[&["ipvsadm"], *arguments].concat());
        }
        let before = saved();
        let mut lane = lane();
        let overflow = address("10.0.0.4", Protocol::Tcp, 80);
        let persistent = |name: &str| VirtualServer { persistence: Some(60), ..server(name) };
        assert_eq!(
            read(&mut lane),
            as_read(&[
                service(address("10.0.0.1", Protocol::Udp, 5060), server("rr")),
                service(address("10.0.0.2", Protocol::Udp, 5060), persistent("rr")),
                service(address("10.0.0.3", Protocol::Tcp, 0), persistent("wlc")),
                service(
                    overflow,
                    VirtualServer { scheduler: Scheduler::Other(Name::from("ovf")), ..persistent("ovf") }
                ),
                service(address("fd00::4", Protocol::Tcp, 80), persistent("rr")),
                real(overflow, "10.1.0.1", 80, 1, Forwarding::Tunnel),
                real(overflow, "10.1.0.2", 80, 1, Forwarding::Tunnel),
            ])
        );
        assert_eq!(saved(), before);
    });
}

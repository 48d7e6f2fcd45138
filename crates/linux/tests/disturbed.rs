//! What the kernel cannot tell in one piece: notifications that a socket had no room for, and readings that somebody
//! changed under the reader. Both are provoked, and the kernel's own counts say that they happened.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::{in_netns, run};
use ipnet::IpNet;
use linux::netlink::Requests;
use linux::route::monitor::{Event, Monitor, Notice};
use linux::route::{OwnPorts, RouteScope, Rtnetlink, local_addresses};
use linux::row::Key;

fn scope() -> RouteScope {
    RouteScope { tables: vec![77], protocol: 17, ..RouteScope::default() }
}

fn sh(command: &str) -> String {
    run(&command.split_whitespace().collect::<Vec<_>>())
}

fn batch(name: &str, lines: &str) {
    let file = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    std::fs::write(&file, lines).expect("a file");
    run(&["ip", "-batch", file.to_str().expect("a path")]);
    std::fs::remove_file(file).expect("the file");
}

/// Notifications of rtnetlink that the kernel dropped in this namespace because a socket was full: the ninth column of
/// `/proc/net/netlink`, of protocol 0.
fn dropped() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").expect("the kernel's sockets");
    let drops = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, "0", _, _, _, _, _, _, drops, _] = columns.as_slice() else { return None };
        drops.parse::<u64>().ok()
    });
    drops.sum()
}

fn is_gone(event: &Event, route: &str) -> bool {
    let route: IpNet = route.parse().expect("a prefix");
    matches!(event, Event::RouteGone { key: Key::Route { destination, .. } } if *destination == route)
}

/// More than 16 MiB of notifications, of 768 octets or more each.
const FLOOD: usize = 40_000;

#[test]
fn an_overflow_is_told_and_what_comes_later_too() {
    in_netns(|| {
        sh("ip link add eth0 type bridge");
        sh("ip link set eth0 up");
        sh("ip addr add 192.0.2.1/24 dev eth0");
        for destination in ["10.244.1.0/24", "10.244.2.0/24"] {
            sh(&format!("ip route add {destination} via 192.0.2.10 proto 17"));
        }
        // A listener that waits for whoever takes the notices: nobody does at first, and the socket fills.
        let (seen, notices) = mpsc::sync_channel::<Notice>(0);
        let monitor = Monitor::spawn(scope(), OwnPorts::default(), move |notice| drop(seen.send(notice)))
            .expect("a monitor");
        assert_eq!(dropped(), 0);
        batch("overflow", &"addr change 192.0.2.1/24 dev eth0\n".repeat(FLOOD));
        assert!(dropped() > 0, "the socket had room for {FLOOD} notifications");
        sh("ip route del 10.244.1.0/24");

        // The kernel queues again once the socket is empty: when nothing has come for some seconds.
        let (mut told, mut lost) = (0, 0);
        let latest = Instant::now() + Duration::from_secs(60);
        loop {
            match notices.recv_timeout(Duration::from_secs(5)) {
                Ok(notice) if notice.event == Event::Lost => lost += 1,
                Ok(notice) => {
                    assert!(!is_gone(&notice.event, "10.244.1.0/24"), "lost, but told: {notice:?}");
                    told += 1;
                }
                Err(RecvTimeoutError::Timeout) if lost == 0 && Instant::now() < latest => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => panic!("the monitor has ended"),
            }
        }
        println!("{told} notices were told, of {lost} overflows, {} notifications dropped", dropped());
        assert!(lost > 0 && told > 0 && told < FLOOD, "{lost} overflows, {told} notices");

        sh("ip route del 10.244.2.0/24");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let notice = notices.recv_timeout(left).expect("a deletion after the overflow is told");
            if is_gone(&notice.event, "10.244.2.0/24") {
                break;
            }
        }
        // The listener may wait for somebody to take a notice.
        drop(notices);
        drop(monitor);
    });
}

/// So many addresses that the kernel tells them in several pieces, and so few that a reading is mostly done before the
/// next change.
const ADDRESSES: u16 = 1_000;

#[test]
fn a_reading_that_others_interrupt_is_made_again_and_is_whole() {
    in_netns(|| {
        let lines = (0..ADDRESSES).map(|at| {
            let [high, low] = at.to_be_bytes();
            format!("addr add 10.9.{high}.{low}/32 dev lo\n")
        });
        batch("addresses", &lines.collect::<String>());
        let changing: IpNet = "198.18.0.1/32".parse().expect("a prefix");
        let requests: Arc<Requests> = Arc::default();
        let mut kernel = Rtnetlink::open().expect("a socket");
        kernel.count_in(Arc::clone(&requests));
        // How many were told, and which.
        let mut read = || -> (usize, BTreeSet<IpNet>) {
            let all = local_addresses(&mut kernel).expect("the addresses");
            let others = all.into_iter().map(|address| address.net).filter(|net| *net != changing);
            let others: Vec<IpNet> = others.collect();
            (others.len(), others.into_iter().collect())
        };
        let (_, still) = read();
        assert!(still.len() > usize::from(ADDRESSES), "{} addresses", still.len());
        // Of links and of addresses.
        assert_eq!(requests.reads(), 2);

        let over = AtomicBool::new(false);
        let deadline = Instant::now() + Duration::from_secs(30);
        std::thread::scope(|threads| {
            // A process for each change: readings have room to succeed in between. They end by themselves, too, lest a
            // reading that fails wait for them.
            let others = threads.spawn(|| {
                while !over.load(Ordering::Relaxed) && Instant::now() < deadline {
                    sh("ip addr add 198.18.0.1/32 dev lo");
                    sh("ip addr del 198.18.0.1/32 dev lo");
                }
            });
            let (mut readings, mut interrupted) = (1u64, 0u64);
            while interrupted < 10 && Instant::now() < deadline && !others.is_finished() {
                let (told, now) = read();
                readings += 1;
                interrupted = requests.interrupted();
                assert_eq!(requests.reads(), 2 * readings + interrupted, "each is made anew");
                let whole = told == now.len() && now == still;
                assert!(whole, "{told} addresses, {} different ones, of {}", now.len(), still.len());
            }
            over.store(true, Ordering::Relaxed);
            others.join().expect("the changes");
            println!("{interrupted} of {readings} readings were interrupted");
            assert!(interrupted > 0, "none of {readings} readings was interrupted");
        });
    });
}

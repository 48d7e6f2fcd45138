//! Sets against the real kernel; the `ipset` program is the judge.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

mod common;

use std::time::Instant;

use common::{in_netns, run};
use linux::ipset::{Edit, Sets, errno};
use linux::row::{Family, Member, Protocol, SetHeader, SetKind};

fn header(kind: SetKind) -> SetHeader {
    SetHeader { kind, max_members: 70_000, timeout: None }
}

fn all_good(outcomes: &[Result<(), linux::netlink::Error>]) -> bool {
    outcomes.iter().all(Result::is_ok)
}

/// Members of every type in both families, with the text `ipset` prints for each.
/// A kind, its name, and members with the text `ipset` prints for each.
type Example = (SetKind, &'static str, Vec<(Member, &'static str)>);

fn examples(family: Family) -> Vec<Example> {
    let v4 = family == Family::V4;
    let ip = |four: &str, six: &str| if v4 { four } else { six }.parse().unwrap();
    let net = |four: &str, six: &str| if v4 { four } else { six }.parse().unwrap();
    let text = |four: &'static str, six: &'static str| if v4 { four } else { six };
    vec![
        (
            SetKind::HashIp,
            "hash:ip",
            vec![
                (Member::Ip(ip("10.0.0.1", "fd00::1")), text("10.0.0.1", "fd00::1")),
                (Member::Ip(ip("255.255.255.255", "::1")), text("255.255.255.255", "::1")),
            ],
        ),
        (
            SetKind::HashNet,
            "hash:net",
            vec![
                (Member::Net(net("0.0.0.0/1", "::/1")), text("0.0.0.0/1", "::/1")),
                (Member::Net(net("128.0.0.0/1", "8000::/1")), text("128.0.0.0/1", "8000::/1")),
                (Member::Net(net("10.1.2.0/24", "fd00:1::/64")), text("10.1.2.0/24", "fd00:1::/64")),
                (Member::Net(net("10.9.9.9/32", "fd00::9/128")), text("10.9.9.9", "fd00::9")),
            ],
        ),
        (
            SetKind::HashIpPort,
            "hash:ip,port",
            vec![
                (
                    Member::IpPort(ip("10.0.0.1", "fd00::1"), Protocol::Tcp, 80),
                    text("10.0.0.1,tcp:80", "fd00::1,tcp:80"),
                ),
                (
                    Member::IpPort(ip("10.0.0.1", "fd00::1"), Protocol::Sctp, 65535),
                    text("10.0.0.1,sctp:65535", "fd00::1,sctp:65535"),
                ),
            ],
        ),
        (
            SetKind::HashIpPortIp,
            "hash:ip,port,ip",
            vec![(
                Member::IpPortIp(ip("10.0.0.1", "fd00::1"), Protocol::Udp, 53, ip("10.0.0.2", "fd00::2")),
                text("10.0.0.1,udp:53,10.0.0.2", "fd00::1,udp:53,fd00::2"),
            )],
        ),
        (
            SetKind::HashNetPort,
            "hash:net,port",
            vec![(
                Member::NetPort(net("10.1.0.0/16", "fd00:2::/48"), Protocol::Tcp, 443),
                text("10.1.0.0/16,tcp:443", "fd00:2::/48,tcp:443"),
            )],
        ),
    ]
}

/// `add` lines of `ipset save`, without the command and the set name, sorted.
fn saved_members(name: &str) -> Vec<String> {
    let saved = run(&["ipset", "save", name]);
    let line = |line: &str| line.strip_prefix(&format!("add {name} ")).map(str::to_owned);
    let mut members: Vec<String> = saved.lines().filter_map(line).collect();
    members.sort();
    members
}

#[test]
fn every_type_and_family_is_what_ipset_sees() {
    in_netns(|| {
        let mut sets = Sets::open().unwrap();
        for family in Family::ALL {
            for (number, (kind, kind_name, members)) in examples(family).into_iter().enumerate() {
                let name = format!("{}t{number}", if family == Family::V6 { "inet6:" } else { "" });
                let timeout = (number % 2 == 0).then_some(0);
                let header = SetHeader { timeout, ..header(kind) };
                sets.create(&name, family, &header).unwrap();
                sets.create(&name, family, &header).expect("an equal set is there");
                let (plain, mut texts): (Vec<Member>, Vec<String>) =
                    members.into_iter().map(|(member, text)| (member, text.to_owned())).unzip();
                assert!(all_good(&sets.change(Edit::Add, &name, &plain).unwrap()), "{name}");
                assert!(all_good(&sets.change(Edit::Add, &name, &plain).unwrap()), "{name} again");

                let listed = run(&["ipset", "list", &name]);
                assert!(listed.contains(&format!("Type: {kind_name}\n")), "{listed}");
                let family_word = if family == Family::V6 { "family inet6" } else { "family inet " };
                assert!(listed.contains(family_word) && listed.contains("maxelem 70000"), "{listed}");
                assert_eq!(listed.contains("timeout 0"), timeout.is_some(), "{listed}");
                texts.sort();
                let saved: Vec<String> =
                    saved_members(&name).iter().map(|line| line.replace(" timeout 0", "")).collect();
                assert_eq!(saved, texts);

                let (description, mut read) = sets.members(&name).unwrap().unwrap();
                let mut written = plain.clone();
                read.sort();
                written.sort();
                assert_eq!((description.header, read), (Some(header), written));

                let missing_too = sets.change(Edit::Delete, &name, &plain).unwrap();
                assert!(all_good(&missing_too));
                assert!(all_good(&sets.change(Edit::Delete, &name, &plain).unwrap()), "missing is removed");
                assert!(saved_members(&name).is_empty());
            }
        }
        assert_eq!(sets.describe().unwrap().len(), 10);
        assert!(all_good(&sets.destroy(&["t0".into(), "t0".into(), "never".into()]).unwrap()));
        assert!(sets.members("t0").unwrap().is_none());
        assert!(!run(&["ipset", "list", "-n"]).lines().any(|name| name == "t0"));
    });
}

#[test]
fn what_ipset_made_is_read() {
    in_netns(|| {
        run(&["ipset", "create", "kube-router-svip", "hash:ip", "timeout", "0"]);
        run(&["ipset", "add", "kube-router-svip", "10.96.0.1"]);
        run(&["ipset", "create", "nets", "hash:net", "family", "inet"]);
        run(&["ipset", "add", "nets", "10.0.0.0/8"]);
        run(&["ipset", "add", "nets", "10.1.0.0/16", "nomatch"]);
        run(&["ipset", "create", "other", "list:set"]);
        let mut sets = Sets::open().unwrap();
        let (description, members) = sets.members("kube-router-svip").unwrap().unwrap();
        let expected = SetHeader { kind: SetKind::HashIp, max_members: 65536, timeout: Some(0) };
        assert_eq!(description.header, Some(expected));
        assert_eq!(members, [Member::Ip("10.96.0.1".parse().unwrap())]);
        let (_, members) = sets.members("nets").unwrap().unwrap();
        assert_eq!(members, [Member::Net("10.0.0.0/8".parse().unwrap())], "an exception is no member");
        let other = sets.describe().unwrap().into_iter().find(|set| &*set.key.name == "other").unwrap();
        assert_eq!((other.header, other.kind_name.as_str()), (None, "list:set"));
    });
}

#[test]
fn a_bad_member_keeps_none_of_its_neighbours_out() {
    in_netns(|| {
        let mut sets = Sets::open().unwrap();
        sets.create("nets", Family::V4, &header(SetKind::HashNet)).unwrap();
        let mut members: Vec<Member> = (0..3000u32)
            .map(|at| Member::Net(format!("10.{}.{}.0/24", at / 256, at % 256).parse().unwrap()))
            .collect();
        members[1700] = Member::Net("0.0.0.0/0".parse().unwrap());
        members[2900] = Member::Net("fd00::/64".parse().unwrap());
        let outcomes = sets.change(Edit::Add, "nets", &members).unwrap();
        let refused: Vec<usize> =
            outcomes.iter().enumerate().filter(|(_, one)| one.is_err()).map(|(at, _)| at).collect();
        assert_eq!(refused, [1700, 2900]);
        let why = errno::refusal("adding", outcomes[1700].as_ref().unwrap_err());
        assert!(why.reason.contains("prefix length is not allowed"), "{why}");
        assert_eq!(saved_members("nets").len(), 2998);
    });
}

#[test]
fn refusals_are_in_words() {
    in_netns(|| {
        let mut sets = Sets::open().unwrap();
        let small = SetHeader { kind: SetKind::HashIp, max_members: 2, timeout: None };
        sets.create("small", Family::V4, &small).unwrap();
        let members: Vec<Member> = (1..=3u8).map(|last| Member::Ip([10, 0, 0, last].into())).collect();
        let outcomes = sets.change(Edit::Add, "small", &members).unwrap();
        let full = errno::refusal("adding", outcomes[2].as_ref().unwrap_err());
        assert_eq!((full.errno, full.reason.as_str()), (Some(4352), "adding: the set is full (maxelem)"));

        sets.create("nets", Family::V4, &header(SetKind::HashNet)).unwrap();
        assert_eq!(sets.swap("small", "nets").unwrap_err().errno(), Some(errno::TYPE_MISMATCH));
        run(&["iptables-legacy", "-A", "INPUT", "-m", "set", "--match-set", "nets", "src", "-j", "DROP"]);
        let outcomes = sets.destroy(&["nets".into(), "small".into()]).unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap_err().errno(), Some(errno::BUSY));
        assert!(outcomes[1].is_ok());
    });
}

#[test]
fn a_hundred_thousand_members_take_a_moment() {
    in_netns(|| {
        let mut sets = Sets::open().unwrap();
        let big = SetHeader { kind: SetKind::HashIpPort, max_members: 200_000, timeout: None };
        sets.create("inet6:big", Family::V6, &big).unwrap();
        let members: Vec<Member> = (0..100_000u128)
            .map(|at| {
                let ip = std::net::Ipv6Addr::from((0xfd00u128 << 112) + at);
                Member::IpPort(ip.into(), Protocol::Tcp, (at % 60_000) as u16 + 1)
            })
            .collect();
        let begun = Instant::now();
        assert!(all_good(&sets.change(Edit::Add, "inet6:big", &members).unwrap()));
        let added = begun.elapsed();
        let (description, read) = sets.members("inet6:big").unwrap().unwrap();
        let listed = begun.elapsed() - added;
        assert_eq!((description.count, read.len()), (100_000, 100_000));
        assert_eq!(
            run(&["ipset", "list", "-t", "inet6:big"]).lines().last(),
            Some("Number of entries: 100000")
        );
        println!("100000 members: added in {added:?}, listed in {listed:?}");
    });
}

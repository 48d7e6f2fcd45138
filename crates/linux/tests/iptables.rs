//! Rules against the real kernel, in both flavours and both families: `iptables-*-save` and packets are the judges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

mod common;

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{in_netns, run};
use linux::iptables::restore::{Edit, Line, commit};
use linux::iptables::tool::{Flavour, Programs};
use linux::iptables::{check, parse, render, save};
use linux::row::{Family, FilterTable, Protocol};
use linux::rule::{Action, ConntrackState, Direction, IpvsMatch, Match, Rule};

const FLAVOURS: [Flavour; 2] = [Flavour::Legacy, Flavour::Nft];

/// Every kind of rule of one table that needs no IPVS.
fn kinds(family: Family, table: FilterTable) -> Vec<Rule> {
    let v4 = family == Family::V4;
    let net = |four: &str, six: &str| if v4 { four } else { six }.parse().unwrap();
    let source = |not| Match::Source { net: net("10.0.0.0/24", "fd00:1::/64"), not };
    let destination = |not| Match::Destination { net: net("10.0.0.1/32", "fd00::1/128"), not };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let set = |name: &str, directions: &[Direction], not| Match::Set {
        name: name.into(),
        directions: directions.to_vec(),
        not,
    };
    let mark = |value, mask, not| Match::Mark { value, mask, not };
    let connection_mark = |value, mask, not| Match::ConnectionMark { value, mask, not };
    match table {
        FilterTable::Mangle => {
            let marks = [(0x4d2, u32::MAX), (0, 0x10000), (0x20000, 0x20000), (0x10, 0)];
            let mut rules: Vec<Rule> = marks
                .iter()
                .map(|(value, mask)| Rule::new([], Action::Mark { value: *value, mask: *mask }))
                .collect();
            for protocol in protocols {
                let matches = [destination(false), Match::Protocol(protocol), Match::DestinationPort(80, 80)];
                rules.push(Rule::new(matches, Action::Mark { value: 7, mask: u32::MAX }));
            }
            rules
        }
        FilterTable::Nat => {
            let to: IpAddr = if v4 { "192.0.2.1" } else { "fd00::99" }.parse().unwrap();
            [true, false]
                .into_iter()
                .flat_map(|random_fully| {
                    [
                        Rule::new([source(true), destination(true)], Action::SourceNat { to, random_fully })
                            .comment(""),
                        Rule::new([Match::OutLink("eth0".into())], Action::Masquerade { random_fully }),
                    ]
                })
                .collect()
        }
        FilterTable::Filter => {
            use ConntrackState::{Established, Invalid, New, Related};
            use Direction::{Destination, Source};
            let icmp: &[u8] = if v4 { &[8, 3, 11, 0] } else { &[128, 1, 3, 129, 135, 136] };
            let mut rules: Vec<Rule> = icmp
                .iter()
                .map(|kind| Rule::new([Match::IcmpType(*kind)], Action::Accept).comment("allow icmp"))
                .collect();
            for protocol in protocols {
                let protocol = Match::Protocol(protocol);
                let local = Match::LocalAddress { direction: Destination, not: false };
                let ranged = Match::DestinationPorts(30000, 32767);
                rules
                    .push(Rule::new([protocol.clone(), local, ranged], Action::Return).comment("node ports"));
                rules.push(Rule::new([protocol.clone(), Match::DestinationPorts(5, 5)], Action::Return));
                rules.push(Rule::new([protocol.clone(), Match::DestinationPort(53, 60)], Action::Drop));
                rules.push(Rule::new([protocol], Action::Reject).comment("it's \"quoted\" \\ here"));
            }
            let links = [Match::InLink("eth0".into()), Match::OutLink("veth+".into())];
            let log = |group, prefix: Option<&str>| Action::Log { group, prefix: prefix.map(Into::into) };
            rules.extend([
                Rule::new([source(false), destination(false)], Action::Accept),
                Rule::new([source(true), destination(true)], Action::Jump("KUBE-TARGET".into())),
                Rule::new(links, Action::Accept),
                Rule::new([set("pairs", &[Destination, Destination], false)], Action::Accept)
                    .comment("to services"),
                Rule::new([set("ips", &[Destination], true)], Action::Reject).comment("reject others"),
                Rule::new([set("ips", &[Source], false)], Action::Drop),
                Rule::new([mark(0x20000, 0x20000, false)], Action::Accept).comment("netpol-ok"),
                Rule::new([mark(1, u32::MAX, true)], Action::Drop),
                Rule::new([connection_mark(0x40000, 0x40000, false)], Action::Reject)
                    .comment("no longer allowed"),
                Rule::new([connection_mark(0, 0x40000, true)], Action::Drop),
                Rule::new([connection_mark(7, u32::MAX, true)], Action::Drop),
                Rule::new([Match::ConntrackState(vec![Invalid])], Action::Drop).comment("\"quoted comment\""),
                Rule::new([Match::ConntrackState(vec![New, Related, Established])], Action::Accept),
                Rule::new([Match::LocalAddress { direction: Source, not: true }], Action::Accept),
                Rule::new([destination(false), Match::Bridged], Action::Jump("KUBE-TARGET".into()))
                    .comment("ns/pod in"),
                Rule::new(
                    [mark(0x10000, 0x10000, true), Match::Limit { per_minute: 10, burst: 10 }],
                    log(100, None),
                )
                .comment("ns/pod log-drop"),
                Rule::new([Match::Limit { per_minute: 60, burst: 5 }], log(0, Some("a b"))),
                Rule::new([Match::Limit { per_minute: 7, burst: 6 }], log(1, Some("plain"))),
                Rule::new([], Action::Jump("KUBE-TARGET".into())).comment("żółć - ABCDEF"),
            ]);
            rules
        }
    }
}

fn chain_edit(name: &str, rules: &[Rule], family: Family) -> Edit {
    Edit {
        declare: Some(name.into()),
        refers: rules.iter().filter_map(Rule::jump_target).cloned().collect(),
        lines: rules.iter().map(|rule| Line::new(format!("-A {name} {}", render(rule, family)))).collect(),
        remove: false,
    }
}

fn make_sets(prefix: &str, family: &str) {
    run(&["ipset", "create", &format!("{prefix}ips"), "hash:ip", "family", family]);
    run(&["ipset", "create", &format!("{prefix}pairs"), "hash:ip,port", "family", family]);
}

fn write(programs: &Programs, family: Family, table: FilterTable, edits: Vec<Edit>) {
    for outcome in commit(table, edits, &mut |input| programs.restore(family, input)) {
        outcome.unwrap();
    }
}

#[test]
fn every_kind_of_rule_is_saved_as_it_was_rendered() {
    for flavour in FLAVOURS {
        in_netns(move || {
            make_sets("", "inet");
            make_sets("inet6:", "inet6");
            let programs = Programs::of(flavour).unwrap();
            for family in Family::ALL {
                for table in FilterTable::ALL {
                    let rules = kinds(family, table);
                    rules.iter().for_each(|rule| assert_eq!(check(rule, family), Ok(())));
                    let edits =
                        vec![chain_edit("KUBE-ALL", &rules, family), chain_edit("KUBE-TARGET", &[], family)];
                    write(&programs, family, table, edits);
                    let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
                    let dump = run(&[&format!("{base}-{flavour}-save"), "-t", table.as_str()]);
                    let saved = save::tables(&dump)[&table]["KUBE-ALL"].clone();
                    let rendered: Vec<String> = rules.iter().map(|rule| render(rule, family)).collect();
                    assert_eq!(saved, rendered, "{flavour} {family:?} {table:?}");
                    let read: Vec<Rule> = saved.iter().map(|text| parse(text, family)).collect();
                    assert_eq!(read, rules);
                    assert!(programs.save(family).unwrap().contains("KUBE-ALL"));
                }
            }
        });
    }
}

#[test]
#[ignore = "vm: needs xt_ipvs"]
fn every_ipvs_rule_is_saved_as_it_was_rendered() {
    for flavour in FLAVOURS {
        in_netns(move || {
            let programs = Programs::of(flavour).unwrap();
            for family in Family::ALL {
                let address =
                    if family == Family::V4 { "10.96.0.1/32" } else { "fd00::1/128" }.parse().unwrap();
                let to = if family == Family::V4 { "192.0.2.1" } else { "fd00::99" }.parse().unwrap();
                let original = IpvsMatch { original_direction: true, ..IpvsMatch::default() };
                let vip = IpvsMatch { address: Some(address), port: Some(80), ..IpvsMatch::default() };
                let masquerade = IpvsMatch { masquerade: true, ..original.clone() };
                let protocol = IpvsMatch { protocol: Some(Protocol::Tcp), ..vip.clone() };
                let snat = || Action::SourceNat { to, random_fully: true };
                let pod = Match::Source { net: address, not: false };
                let rules = [
                    Rule::new([Match::Ipvs(IpvsMatch::default())], Action::Accept),
                    Rule::new([Match::Ipvs(original)], Action::Jump("KUBE-TARGET".into())),
                    Rule::new([pod, Match::Ipvs(vip)], snat()),
                    Rule::new([Match::Ipvs(masquerade)], snat()).comment(""),
                    Rule::new([Match::Ipvs(protocol)], snat()),
                ];
                let edits =
                    vec![chain_edit("KUBE-ALL", &rules, family), chain_edit("KUBE-TARGET", &[], family)];
                write(&programs, family, FilterTable::Nat, edits);
                let dump = programs.save(family).unwrap();
                let saved = save::tables(&dump)[&FilterTable::Nat]["KUBE-ALL"].clone();
                let rendered: Vec<String> = rules.iter().map(|rule| render(rule, family)).collect();
                assert_eq!(saved, rendered, "{flavour} {family:?}");
                assert_eq!(saved.iter().map(|text| parse(text, family)).collect::<Vec<_>>(), rules);
            }
        });
    }
}

#[test]
fn refused_edits_leave_the_others_and_their_own_last_state() {
    for flavour in FLAVOURS {
        in_netns(move || {
            let programs = Programs::of(flavour).unwrap();
            let family = Family::V4;
            let accept = [Rule::new([], Action::Accept)];
            write(&programs, family, FilterTable::Filter, vec![chain_edit("KEPT", &accept, family)]);
            let no_set =
                Match::Set { name: "nowhere".into(), directions: vec![Direction::Source], not: false };
            let edits = vec![
                chain_edit("GOOD", &[Rule::new([], Action::Jump("LATER".into()))], family),
                // Told at parsing, by line.
                chain_edit("KEPT", &[Rule::new([no_set], Action::Drop)], family),
                // Told by the kernel at commit, for MASQUERADE works in nat only: by line in nft, by none in legacy.
                chain_edit("WRONG", &[Rule::new([], Action::Masquerade { random_fully: false })], family),
                Edit { declare: Some("KUBE-USED".into()), remove: true, ..Edit::default() },
                chain_edit("LATER", &[Rule::new([], Action::Drop)], family),
            ];
            run(&[&format!("iptables-{flavour}"), "-N", "KUBE-USED"]);
            run(&[&format!("iptables-{flavour}"), "-A", "INPUT", "-j", "KUBE-USED"]);
            let mut runs = 0;
            let outcomes = commit(FilterTable::Filter, edits, &mut |input| {
                runs += 1;
                programs.restore(family, input)
            });
            let good: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, false, false, false, true], "{flavour} {outcomes:?}");
            assert!(outcomes[1].as_ref().unwrap_err().reason.contains("nowhere"));
            assert!(runs <= 12, "{runs} transactions");
            let dump = run(&[&format!("iptables-{flavour}-save")]);
            let tables = save::tables(&dump);
            let filter = &tables[&FilterTable::Filter];
            assert_eq!(filter["KEPT"], ["-j ACCEPT"]);
            assert_eq!((&filter["GOOD"], &filter["LATER"]), (&vec!["-j LATER"], &vec!["-j DROP"]));
            assert!(!filter.contains_key("WRONG") && filter["INPUT"] == ["-j KUBE-USED"], "{dump}");
        });
    }
}

#[test]
fn the_flavour_in_use_is_found() {
    in_netns(|| {
        let fresh = Programs::detect().unwrap();
        assert!(run(&["iptables-restore", "--version"]).contains(match fresh.flavour() {
            Flavour::Legacy => "legacy",
            Flavour::Nft => "nf_tables",
        }));
        assert!(fresh.random_fully() && fresh.version() >= (1, 8, 0));
        run(&["ip6tables-legacy", "-t", "nat", "-N", "KUBE-OTHER"]);
        assert_eq!(Programs::detect().unwrap().flavour(), Flavour::Legacy, "the only rules are legacy's");
        for _ in 0..5 {
            run(&["iptables-nft", "-A", "INPUT", "-j", "ACCEPT"]);
        }
        assert_eq!(
            Programs::detect().unwrap().flavour(),
            Flavour::Legacy,
            "Kubernetes chains weigh more than rules"
        );
        run(&["iptables-nft", "-N", "KUBE-A"]);
        run(&["iptables-nft", "-N", "KUBE-B"]);
        assert_eq!(Programs::detect().unwrap().flavour(), Flavour::Nft);
    });
    in_netns(|| {
        let legacy = Programs::of(Flavour::Legacy).unwrap();
        assert_eq!(legacy.save(Family::V4).unwrap(), "");
        let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        assert_eq!(names, "", "looking made no tables");
    });
}

#[test]
fn packets_obey_the_rules_as_rendered() {
    for flavour in FLAVOURS {
        for (family, address) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            in_netns(move || {
                let programs = Programs::of(flavour).unwrap();
                let address: IpAddr = address.parse().unwrap();
                let allowed = TcpListener::bind((address, 0)).unwrap();
                let other = TcpListener::bind((address, 0)).unwrap();
                let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
                let reach = |listener: &TcpListener| {
                    TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(5))
                        .map(drop)
                };
                reach(&allowed).unwrap();
                reach(&other).unwrap();
                let to_port = |port| [Match::Protocol(Protocol::Tcp), Match::DestinationPort(port, port)];
                let states =
                    Match::ConntrackState(vec![ConntrackState::Related, ConntrackState::Established]);
                let rules = [
                    Rule::new([states], Action::Accept),
                    Rule::new(to_port(port(&allowed)), Action::Accept).comment("let in"),
                    Rule::new(
                        [Match::LocalAddress { direction: Direction::Destination, not: false }],
                        Action::Reject,
                    )
                    .comment("all else"),
                ];
                let jump = Edit {
                    refers: vec!["KUBE-IN".into()],
                    lines: vec![Line::new("-I INPUT 1 -j KUBE-IN".into())],
                    ..Edit::default()
                };
                let edits = vec![jump, chain_edit("KUBE-IN", &rules, family)];
                write(&programs, family, FilterTable::Filter, edits);
                reach(&allowed).unwrap();
                let refused = reach(&other).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    std::io::ErrorKind::ConnectionRefused,
                    "{flavour} {family:?}: {refused}"
                );
                let udp = UdpSocket::bind((address, 0)).unwrap();
                udp.connect((address, port(&allowed))).unwrap();
                udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                udp.send(b"x").unwrap();
                let refused = udp.recv(&mut [0; 8]).unwrap_err();
                assert_eq!(
                    refused.kind(),
                    std::io::ErrorKind::ConnectionRefused,
                    "an ICMP error came: {refused}"
                );
            });
        }
    }
}

//! Golden texts, taken from `iptables-save` 1.8.9, and the round trip of arbitrary rules.

use proptest::prelude::*;

use super::*;
use crate::row::Protocol;
use crate::rule::{Action, ConntrackState, Direction, IpvsMatch, KnownRule, Match};

fn both_ways(family: Family, rule: Rule, text: &str) {
    assert_eq!(render(&rule, family), text);
    assert_eq!(parse(text, family), rule, "{text}");
}

fn source(net: &str) -> Match {
    Match::Source { net: net.parse().unwrap(), not: false }
}

fn ipvs(ipvs: IpvsMatch) -> Match {
    Match::Ipvs(IpvsMatch { ipvs: true, ..ipvs })
}

#[test]
fn rules_of_go_kube_router_are_known() {
    let set = |name: &str, directions: &[Direction], not| Match::Set {
        name: name.into(),
        directions: directions.to_vec(),
        not,
    };
    use Direction::Destination;
    both_ways(
        Family::V4,
        Rule::new([set("kube-router-svip-prt", &[Destination, Destination], false)], Action::Accept)
            .comment("allow input traffic to ipvs services"),
        "-m comment --comment \"allow input traffic to ipvs services\" -m set --match-set kube-router-svip-prt dst,dst -j ACCEPT",
    );
    both_ways(
        Family::V6,
        Rule::new([set("kube-router-local-ips", &[Destination], true)], Action::Reject)
            .comment("reject all unexpected traffic to service IPs"),
        "-m comment --comment \"reject all unexpected traffic to service IPs\" -m set ! --match-set inet6:kube-router-local-ips dst -j REJECT --reject-with icmp6-port-unreachable",
    );
    both_ways(
        Family::V4,
        Rule::new(
            [
                Match::Source { net: "10.244.0.0/24".parse().unwrap(), not: true },
                Match::Destination { net: "10.244.0.0/24".parse().unwrap(), not: true },
                ipvs(IpvsMatch { original_direction: true, masquerade: true, ..IpvsMatch::default() }),
            ],
            Action::SourceNat { to: "192.0.2.1".parse().unwrap(), random_fully: true },
        )
        .comment(""),
        "! -s 10.244.0.0/24 ! -d 10.244.0.0/24 -m ipvs --vdir ORIGINAL --vmethod MASQ -m comment --comment \"\" -j SNAT --to-source 192.0.2.1 --random-fully",
    );
    both_ways(
        Family::V4,
        Rule::new(
            [
                Match::Mark { value: 0x10000, mask: 0x10000, not: true },
                Match::Limit { per_minute: 10, burst: 10 },
            ],
            Action::Log { group: 100, prefix: None },
        )
        .comment("ns/pod log-drop"),
        "-m comment --comment \"ns/pod log-drop\" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100",
    );
    both_ways(
        Family::V4,
        Rule::new([source("10.0.0.2/32"), Match::Bridged], Action::Jump("KUBE-POD-FW-A".into()))
            .comment("a/b out"),
        "-s 10.0.0.2/32 -m physdev --physdev-is-bridged -m comment --comment \"a/b out\" -j KUBE-POD-FW-A",
    );
}

#[test]
fn every_other_kind_is_as_saved() {
    let v4 = |matches: &[Match], action, text: &str| both_ways(Family::V4, Rule::new(matches, action), text);
    let tcp = Match::Protocol(Protocol::Tcp);
    v4(&[Match::IcmpType(3)], Action::Accept, "-p icmp -m icmp --icmp-type 3 -j ACCEPT");
    both_ways(
        Family::V6,
        Rule::new([Match::IcmpType(135)], Action::Accept),
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT",
    );
    let ports = |first, last| [Match::Protocol(Protocol::Sctp), Match::DestinationPort(first, last)];
    v4(&ports(53, 60), Action::Return, "-p sctp -m sctp --dport 53:60 -j RETURN");
    v4(&ports(53, 53), Action::Drop, "-p sctp -m sctp --dport 53 -j DROP");
    let local = Match::LocalAddress { direction: Direction::Source, not: true };
    v4(
        &[tcp.clone(), local, Match::DestinationPorts(30000, 32767)],
        Action::Return,
        "-p tcp -m addrtype ! --src-type LOCAL -m multiport --dports 30000:32767 -j RETURN",
    );
    let states = vec![ConntrackState::Related, ConntrackState::Established];
    v4(
        &[Match::InLink("eth0".into()), Match::OutLink("veth+".into()), Match::ConntrackState(states)],
        Action::Accept,
        "-i eth0 -o veth+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    );
    let mark = Match::Mark { value: 1, mask: u32::MAX, not: false };
    v4(
        &[mark],
        Action::Mark { value: 0, mask: 0x10000 },
        "-m mark --mark 0x1 -j MARK --set-xmark 0x0/0x10000",
    );
    let refused = |mask, not| [Match::ConnectionMark { value: 0x40000, mask, not }];
    v4(
        &refused(0x40000, false),
        Action::Reject,
        "-m connmark --mark 0x40000/0x40000 -j REJECT --reject-with icmp-port-unreachable",
    );
    v4(&refused(u32::MAX, true), Action::Accept, "-m connmark ! --mark 0x40000 -j ACCEPT");
    v4(&[], Action::Masquerade { random_fully: true }, "-j MASQUERADE --random-fully");
    v4(
        &[Match::Limit { per_minute: 60, burst: 5 }],
        Action::Log { group: 0, prefix: Some("a b".into()) },
        "-m limit --limit 1/sec -j NFLOG --nflog-prefix \"a b\"",
    );
    let all = IpvsMatch {
        ipvs: true,
        protocol: Some(Protocol::Tcp),
        address: Some("10.96.0.1/32".parse().unwrap()),
        port: Some(80),
        original_direction: true,
        masquerade: true,
    };
    v4(
        &[Match::Ipvs(all)],
        Action::Accept,
        "-m ipvs --vproto 6 --vaddr 10.96.0.1 --vport 80 --vdir ORIGINAL --vmethod MASQ -j ACCEPT",
    );
    v4(&[ipvs(IpvsMatch::default())], Action::Accept, "-m ipvs --ipvs -j ACCEPT");
    both_ways(Family::V6, Rule::new([source("::1.2.3.4/128")], Action::Accept), "-s ::1.2.3.4/128 -j ACCEPT");
}

#[test]
fn comments_are_quoted_as_saved() {
    let text = r#"-m comment --comment "say \"hi\" \'x\' \\ back" -j ACCEPT"#;
    both_ways(Family::V4, Rule::new([], Action::Accept).comment(r#"say "hi" 'x' \ back"#), text);
    both_ways(
        Family::V4,
        Rule::new([], Action::Accept).comment("plain_1-2"),
        "-m comment --comment plain_1-2 -j ACCEPT",
    );
}

#[test]
fn what_is_not_understood_is_kept_as_it_is() {
    for text in [
        "-p icmp -m icmp --icmp-type 3/1 -j ACCEPT",
        "-j REJECT --reject-with tcp-reset",
        "! -o veth+ ! -p tcp -j ACCEPT",
        "-g KUBE-POD-FW-A",
        "-p tcp -m multiport --dports 53,80 -j RETURN",
        "-p tcp -m tcp ! --dport 80 -j ACCEPT",
        "-p icmp -j ACCEPT",
        "-m set --match-set a src --return-nomatch -j ACCEPT",
        "-j LOG --log-prefix \"x \"",
        "-m limit --limit 1/hour -j ACCEPT",
        "-m comment --comment \"unterminated",
        "-m mark --mark",
        "-s",
        "-m",
        "!",
        "",
    ] {
        assert_eq!(parse(text, Family::V4), Rule::Unknown(text.into()), "{text}");
        assert_eq!(render(&parse(text, Family::V4), Family::V4), text);
    }
    // A set of the other family's naming is not ours.
    let text = "-m set --match-set plain src -j ACCEPT";
    assert_eq!(parse(text, Family::V6), Rule::Unknown(text.into()));
}

#[test]
fn a_rule_that_would_read_back_differently_is_refused() {
    let known = |condition| {
        let matches = vec![condition];
        Rule::Known(Box::new(KnownRule { matches, comment: None, action: Action::Accept }))
    };
    assert!(check(&known(source("10.0.0.1/8")), Family::V4).is_err());
    assert!(check(&known(source("0.0.0.0/0")), Family::V4).is_err());
    use ConntrackState::{Established, New, Related};
    assert!(check(&known(Match::ConntrackState(vec![Established, New])), Family::V4).is_err());
    let by_map = Action::VerdictMap { map: "pods".into(), of: Direction::Source };
    assert!(check(&Rule::new([], by_map), Family::V4).unwrap_err().contains("verdict maps"));
    assert!(check(&Rule::new([], Action::Accept).comment("two\nlines"), Family::V4).is_err());
    // What can be brought into normal form is.
    let states = Match::ConntrackState(vec![Established, Related, Established]);
    both_ways(
        Family::V4,
        Rule::new([states, source("0.0.0.0/0")], Action::Accept),
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    );
    let reject = Rule::new([Match::Protocol(Protocol::Tcp)], Action::Reject);
    assert!(check(&reject, Family::V4).is_ok() && check(&reject, Family::V6).is_ok());
    // Whatever order a plan gives matches in, they are written in iptables' own.
    let reversed = Rule::new([Match::Protocol(Protocol::Udp), source("10.0.0.0/8")], Action::Drop);
    assert_eq!(check(&reversed, Family::V4), Ok(()));
}

#[test]
fn a_target_is_found_behind_any_comment() {
    let text = r#"-m comment --comment "goes -j NOWHERE" -m foo --bar -j KUBE-X --opt"#;
    assert_eq!(parse::target(text).as_deref(), Some("KUBE-X"));
    assert_eq!(parse::target("-m comment --comment \"-j\" -g B").as_deref(), Some("B"));
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

fn any_match(family: Family) -> impl Strategy<Value = Vec<Match>> {
    let net = move || {
        (any::<u128>(), 1..=family.host_len()).prop_map(move |(bits, length)| {
            let ip = match family {
                Family::V4 => std::net::IpAddr::from((bits as u32).to_be_bytes()),
                Family::V6 => std::net::IpAddr::from(bits.to_be_bytes()),
            };
            ipnet::IpNet::new(ip, length).unwrap().trunc()
        })
    };
    let direction = || prop_oneof![Just(Direction::Source), Just(Direction::Destination)];
    let ordered = |(a, b): (u16, u16)| (a.min(b), a.max(b));
    prop_oneof![
        (net(), any::<bool>()).prop_map(|(net, not)| vec![Match::Source { net, not }]),
        (net(), any::<bool>()).prop_map(|(net, not)| vec![Match::Destination { net, not }]),
        "[a-z]{1,8}[0-9+]".prop_map(|link| vec![Match::InLink(link.into())]),
        (any_protocol(), any::<(u16, u16)>().prop_map(ordered)).prop_map(|(protocol, (first, last))| vec![
            Match::Protocol(protocol),
            Match::DestinationPort(first, last)
        ]),
        any::<u8>().prop_map(|kind| vec![Match::IcmpType(kind)]),
        ("[a-zA-Z0-9_-]{1,20}", proptest::collection::vec(direction(), 1..4), any::<bool>())
            .prop_map(|(name, directions, not)| vec![Match::Set { name: name.into(), directions, not }]),
        any::<(u32, u32, bool)>().prop_map(|(value, mask, not)| vec![Match::Mark { value, mask, not }]),
        any::<(u32, u32, bool)>().prop_map(|(value, mask, not)| vec![Match::ConnectionMark {
            value,
            mask,
            not
        }]),
        (direction(), any::<bool>())
            .prop_map(|(direction, not)| vec![Match::LocalAddress { direction, not }]),
        (1u32..=600, any::<u16>())
            .prop_map(|(per_minute, burst)| { vec![Match::Limit { per_minute, burst: burst.into() }] }),
        (
            proptest::option::of(any_protocol()),
            proptest::option::of(net()),
            any::<(Option<u16>, bool, bool)>()
        )
            .prop_map(|(protocol, address, (port, original_direction, masquerade))| {
                let ipvs = true;
                vec![Match::Ipvs(IpvsMatch { ipvs, protocol, address, port, original_direction, masquerade })]
            }),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Accept),
        Just(Action::Reject),
        "KUBE-[A-Z0-9]{1,20}".prop_map(|chain| Action::Jump(chain.into())),
        any::<(u32, u32)>().prop_map(|(value, mask)| Action::Mark { value, mask }),
        any::<bool>().prop_map(|random_fully| Action::Masquerade { random_fully }),
        (any::<u16>(), proptest::option::of("[ -~]{1,30}"))
            .prop_map(|(group, prefix)| Action::Log { group, prefix: prefix.map(Into::into) }),
    ]
}

proptest! {
    #[test]
    fn what_is_rendered_is_parsed(
        v6 in any::<bool>(),
        action in any_action(),
        comment in proptest::option::of("[^\\p{Cc}]{0,60}"),
        (four, six) in (any_match(Family::V4), any_match(Family::V6)),
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let rule = Rule::new(if v6 { six } else { four }, action);
        let rule = comment.map_or(rule.clone(), |comment| rule.comment(&comment));
        prop_assert_eq!(check(&rule, family), Ok(()));
    }

    #[test]
    fn any_text_is_some_rule_and_comes_back(text in "[ -~]{0,80}") {
        for family in Family::ALL {
            if let rule @ Rule::Unknown(_) = parse(&text, family) {
                prop_assert_eq!(render(&rule, family), &*text);
            }
        }
    }
}

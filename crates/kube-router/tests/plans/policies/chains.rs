//! Rows read as the kernel reads them: what chains and sets do to the first packet of a flow.
//!
//! Only as much of the packet filter as our rules use. Packets in the lab are the judge of the real thing; this finds out
//! in thousands of random clusters whether rules say what was meant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use linux::row::{ChainKey, Family, FilterTable, Key, Member, Name, Protocol, Row, SetKey};
use linux::rule::{Action, ConntrackState, Direction, Match, Rule};

use super::node::NODE_IPS;

/// A packet and the mark it has gathered.
#[derive(Debug, Clone)]
struct Skb {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
    mark: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Refuse,
    Return,
}

/// Whether a forwarded packet passes.
pub(crate) fn forwards(
    rows: &BTreeMap<Key, Row>,
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
) -> bool {
    let mut packet = Skb { source, destination, protocol, port, mark: 0 };
    let family = Family::of(&source);
    let jump = rows.keys().find_map(|key| match key {
        Key::ForeignRule(chain, rule) if chain.family == family && *chain.name == *"FORWARD" => {
            rule.jump_target()
        }
        _ => None,
    });
    walk(rows, family, jump.expect("a jump from FORWARD"), &mut packet) != Verdict::Refuse
}

fn walk(rows: &BTreeMap<Key, Row>, family: Family, name: &Name, packet: &mut Skb) -> Verdict {
    let key = ChainKey { family, table: FilterTable::Filter, name: name.clone() };
    let Some(Row::Chain(rules)) = rows.get(&Key::Chain(key)) else { panic!("no chain {name}") };
    for rule in rules.iter() {
        let Rule::Known(rule) = rule else { panic!("a rule of ours") };
        if !rule.matches.iter().all(|condition| matches(rows, family, condition, packet)) {
            continue;
        }
        match &rule.action {
            Action::Accept => return Verdict::Accept,
            Action::Drop | Action::Reject => return Verdict::Refuse,
            Action::Return => return Verdict::Return,
            Action::Mark { value, mask } => packet.mark = packet.mark & !mask ^ value,
            Action::Log { .. } => {}
            Action::Jump(chain) => match walk(rows, family, chain, packet) {
                Verdict::Return => {}
                verdict => return verdict,
            },
            Action::VerdictMap { map, of } => {
                let key = SetKey { family, name: map.clone() };
                assert!(rows.contains_key(&Key::VerdictMap(key.clone())), "no map {map}");
                let ip = if *of == Direction::Source { packet.source } else { packet.destination };
                if let Some(Row::Verdict(chain)) = rows.get(&Key::Verdict(key, ip)) {
                    return walk(rows, family, chain, packet);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    Verdict::Return
}

fn matches(rows: &BTreeMap<Key, Row>, family: Family, condition: &Match, packet: &Skb) -> bool {
    match condition {
        Match::Source { net, not } => net.contains(&packet.source) != *not,
        Match::Destination { net, not } => net.contains(&packet.destination) != *not,
        Match::Protocol(protocol) => packet.protocol == Some(*protocol),
        Match::DestinationPort(first, last) => (*first..=*last).contains(&packet.port),
        Match::Mark { value, mask, not } => (packet.mark & mask == *value) != *not,
        Match::ConnectionMark { value, mask, not } => (mask & *value == 0) != *not,
        Match::ConntrackState(states) => states.contains(&ConntrackState::New),
        Match::LocalAddress { direction: Direction::Source, not } => {
            NODE_IPS.iter().any(|ip| ip.parse() == Ok(packet.source)) != *not
        }
        Match::Limit { .. } => true,
        Match::IcmpType(_) => false,
        Match::Set { name, directions, not } => {
            let key = SetKey { family, name: name.clone() };
            assert!(rows.contains_key(&Key::Set(key.clone())), "no set {name}");
            is_member(rows, &key, directions, packet) != *not
        }
        other => panic!("{other:?}"),
    }
}

fn is_member(rows: &BTreeMap<Key, Row>, set: &SetKey, directions: &[Direction], packet: &Skb) -> bool {
    let ip = |direction: &Direction| match direction {
        Direction::Source => packet.source,
        Direction::Destination => packet.destination,
    };
    let members = rows.keys().filter_map(|key| match key {
        Key::Member(of, member) if **of == *set => Some(member),
        _ => None,
    });
    let mut members = members.peekable();
    members.any(|member| match (member, directions) {
        (Member::Ip(one), [direction]) => *one == ip(direction),
        (Member::Net(net), [direction]) => net.contains(&ip(direction)),
        (Member::IpPort(one, protocol, port), [direction, Direction::Destination]) => {
            *one == ip(direction) && packet.protocol == Some(*protocol) && packet.port == *port
        }
        other => panic!("{other:?}"),
    })
}

//! Rule to expressions.
//!
//! Every kind of match and action has one form; [`super::parse`] knows the same forms, and [`super::check`] refuses
//! what would read back as something else. Decided here: how conditions are said that nftables has no word for. A
//! connection through IPVS is one whose first packet was sent to an address, protocol and port in the set of service
//! ports; it is masqueraded by IPVS if the packet itself is no longer addressed so.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{Comparison, Expression, FIB_DESTINATION, FIB_SOURCE, Slot, Verdict};
use super::names::chain_name;
use super::wire::{conntrack, meta, payload};
use crate::row::{ChainKey, Family, FilterTable, Name, Protocol};
use crate::rule::{Action, ConntrackState, Direction, IpvsMatch, KnownRule, Match};

/// `IFNAMSIZ`
pub(super) const LINK_BYTES: usize = 16;
/// `RTN_LOCAL`
pub(super) const LOCAL: u32 = 2;
/// `NFT_REJECT_ICMP_UNREACH`
pub(super) const REJECT_UNREACHABLE: u32 = 0;
/// Seconds in the unit that limits are given in.
pub(super) const MINUTE: u64 = 60;
/// `NF_LOG_PREFIXLEN` less the terminating zero.
const LOG_PREFIX_BYTES: usize = 127;

/// What a rule's expressions depend on beside the rule.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) family: Family,
    /// The table of its chain, to which the chains it jumps to belong as well.
    pub(super) table: FilterTable,
    /// The set of service addresses, protocols and ports, by which connections through IPVS are told.
    pub(super) service_ports: Name,
}

/// Where addresses are in packets of a family, and how they lie in registers.
pub(super) struct Layout {
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) length: u32,
    /// Registers an address takes.
    pub(super) slots: Slot,
    pub(super) icmp: u8,
    pub(super) port_unreachable: u8,
    pub(super) conntrack_destination: u32,
}

impl Layout {
    pub(super) fn of(family: Family) -> Layout {
        match family {
            Family::V4 => Layout {
                source: 12,
                destination: 16,
                length: 4,
                slots: 1,
                icmp: 1,
                port_unreachable: 3,
                conntrack_destination: conntrack::DESTINATION_V4,
            },
            Family::V6 => Layout {
                source: 8,
                destination: 24,
                length: 16,
                slots: 4,
                icmp: 58,
                port_unreachable: 4,
                conntrack_destination: conntrack::DESTINATION_V6,
            },
        }
    }

    pub(super) fn address(&self, direction: Direction, to: Slot) -> Expression {
        let offset = match direction {
            Direction::Source => self.source,
            Direction::Destination => self.destination,
        };
        Expression::Payload { base: payload::NETWORK, offset, length: self.length, to }
    }
}

pub(super) fn port(direction: Direction, to: Slot) -> Expression {
    let offset = match direction {
        Direction::Source => 0,
        Direction::Destination => 2,
    };
    Expression::Payload { base: payload::TRANSPORT, offset, length: 2, to }
}

/// The expressions of a rule.
///
/// # Errors
/// Names what cannot be said, or not so.
pub(super) fn render(rule: &KnownRule, context: &Context) -> Result<Vec<Expression>, String> {
    let mut list = Vec::with_capacity(2 * rule.matches.len() + 4);
    for condition in &rule.matches {
        self::condition(condition, context, &mut list)?;
    }
    list.push(Expression::Counter);
    action(&rule.action, context, &mut list)?;
    Ok(list)
}

fn condition(condition: &Match, context: &Context, list: &mut Vec<Expression>) -> Result<(), String> {
    let layout = Layout::of(context.family);
    match condition {
        always if always.is_always_true() => {}
        Match::Source { net, not } => network(list, layout.address(Direction::Source, 0), net, *not),
        Match::Destination { net, not } => {
            network(list, layout.address(Direction::Destination, 0), net, *not);
        }
        Match::InLink(link) => link_name(list, meta::IN_LINK, link)?,
        Match::OutLink(link) => link_name(list, meta::OUT_LINK, link)?,
        Match::Protocol(protocol) => protocol_is(list, protocol.number()),
        Match::DestinationPort(first, last) => {
            list.push(port(Direction::Destination, 0));
            if first == last {
                list.push(compare(Comparison::Equal, first.to_be_bytes()));
            } else {
                list.push(compare(Comparison::AtLeast, first.to_be_bytes()));
                list.push(compare(Comparison::AtMost, last.to_be_bytes()));
            }
        }
        // The same, in the other of the two forms there are, so that it is read back as what it was.
        Match::DestinationPorts(first, last) => {
            list.push(port(Direction::Destination, 0));
            let (from, to) = (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec());
            list.push(Expression::Range { slot: 0, from, to });
        }
        Match::IcmpType(kind) => {
            protocol_is(list, layout.icmp);
            list.push(Expression::Payload { base: payload::TRANSPORT, offset: 0, length: 1, to: 0 });
            list.push(compare(Comparison::Equal, [*kind]));
        }
        Match::Set { name, directions, not } => {
            packet_key(list, &layout, directions)?;
            list.push(Expression::Lookup { set: name.clone(), slot: 0, not: *not });
        }
        Match::Mark { value, mask, not } => {
            list.push(Expression::Meta { key: meta::MARK, to: 0 });
            masked(list, *value, *mask, *not);
        }
        Match::ConnectionMark { value, mask, not } => {
            list.push(Expression::Conntrack { key: conntrack::MARK, of_original: false, to: 0 });
            masked(list, *value, *mask, *not);
        }
        Match::ConntrackState(states) => {
            list.push(Expression::Conntrack { key: conntrack::STATE, of_original: false, to: 0 });
            let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
            list.push(bitwise(bits.to_ne_bytes(), [0; 4]));
            list.push(compare(Comparison::NotEqual, [0; 4]));
        }
        Match::LocalAddress { direction, not } => {
            let of = match direction {
                Direction::Source => FIB_SOURCE,
                Direction::Destination => FIB_DESTINATION,
            };
            list.push(Expression::AddressType { of, to: 0 });
            list.push(compare(equal(*not), LOCAL.to_ne_bytes()));
        }
        Match::Ipvs(ipvs) => self::ipvs(list, ipvs, &layout, context),
        Match::Bridged => return Err("nftables cannot tell bridged packets from routed ones".to_owned()),
        Match::Limit { per_minute, burst } => {
            let packets = u64::from(*per_minute);
            list.push(Expression::Limit { packets, seconds: MINUTE, burst: *burst });
        }
    }
    Ok(())
}

fn ipvs(list: &mut Vec<Expression>, ipvs: &IpvsMatch, layout: &Layout, context: &Context) {
    let services = |not| Expression::Lookup { set: context.service_ports.clone(), slot: 0, not };
    list.push(first_packet(layout.conntrack_destination, 0));
    list.push(first_packet(conntrack::PROTOCOL, layout.slots));
    list.push(first_packet(conntrack::DESTINATION_PORT, layout.slots + 1));
    list.push(services(false));
    if ipvs.original_direction {
        list.push(Expression::Conntrack { key: conntrack::DIRECTION, of_original: false, to: 0 });
        list.push(compare(Comparison::Equal, [0]));
    }
    if let Some(protocol) = ipvs.protocol {
        list.push(first_packet(conntrack::PROTOCOL, 0));
        list.push(compare(Comparison::Equal, [Protocol::number(protocol)]));
    }
    if let Some(net) = &ipvs.address {
        network(list, first_packet(layout.conntrack_destination, 0), net, false);
    }
    if let Some(port) = ipvs.port {
        list.push(first_packet(conntrack::DESTINATION_PORT, 0));
        list.push(compare(Comparison::Equal, port.to_be_bytes()));
    }
    if ipvs.masquerade {
        list.push(layout.address(Direction::Destination, 0));
        list.push(Expression::Meta { key: meta::PROTOCOL, to: layout.slots });
        list.push(port(Direction::Destination, layout.slots + 1));
        list.push(services(true));
    }
}

/// Loads something of the packet that opened the connection. Its protocol is the same in both directions.
pub(super) fn first_packet(key: u32, to: Slot) -> Expression {
    Expression::Conntrack { key, of_original: key != conntrack::PROTOCOL, to }
}

/// Loads what a set of so many dimensions has as its key: address; address, protocol and port; both and an address.
fn packet_key(list: &mut Vec<Expression>, layout: &Layout, directions: &[Direction]) -> Result<(), String> {
    let (address, rest) = match directions {
        [address] => (address, None),
        [address, ports] => (address, Some((ports, None))),
        [address, ports, second] => (address, Some((ports, Some(second)))),
        _ => return Err(format!("no set has {} dimensions", directions.len())),
    };
    list.push(layout.address(*address, 0));
    if let Some((ports, second)) = rest {
        list.push(Expression::Meta { key: meta::PROTOCOL, to: layout.slots });
        list.push(port(*ports, layout.slots + 1));
        list.extend(second.map(|second| layout.address(*second, layout.slots + 2)));
    }
    Ok(())
}

fn action(action: &Action, context: &Context, list: &mut Vec<Expression>) -> Result<(), String> {
    let (family, layout) = (context.family, Layout::of(context.family));
    let verdict = |verdict| Expression::Verdict(verdict);
    match action {
        Action::Accept => list.push(verdict(Verdict::Accept)),
        Action::Drop => list.push(verdict(Verdict::Drop)),
        Action::Return => list.push(verdict(Verdict::Return)),
        Action::Jump(chain) => {
            let target = ChainKey { family, table: context.table, name: chain.clone() };
            list.push(verdict(Verdict::Jump(chain_name(&target)?.into())));
        }
        Action::Reject => {
            list.push(Expression::Reject { kind: REJECT_UNREACHABLE, code: layout.port_unreachable });
        }
        Action::VerdictMap { map, of } => {
            list.push(layout.address(*of, 0));
            list.push(Expression::VerdictMap { map: map.clone(), slot: 0 });
        }
        Action::Mark { value, mask: u32::MAX } => {
            list.push(Expression::Value { to: 0, value: value.to_ne_bytes().to_vec() });
            list.push(Expression::SetMeta { key: meta::MARK, from: 0 });
        }
        Action::Mark { value, mask } => {
            list.push(Expression::Meta { key: meta::MARK, to: 0 });
            list.push(bitwise((!mask).to_ne_bytes(), value.to_ne_bytes()));
            list.push(Expression::SetMeta { key: meta::MARK, from: 0 });
        }
        Action::SourceNat { to, random_fully } => {
            if Family::of(to) != family {
                return Err(format!("{to} is no address of this family"));
            }
            list.push(Expression::Value { to: 0, value: octets(*to) });
            list.push(Expression::SourceNat { family, address: 0, random_fully: *random_fully });
        }
        Action::Masquerade { random_fully } => {
            list.push(Expression::Masquerade { random_fully: *random_fully });
        }
        Action::Log { group, prefix } => {
            if prefix.as_ref().is_some_and(|prefix| prefix.len() > LOG_PREFIX_BYTES) {
                return Err(format!("a log prefix has at most {LOG_PREFIX_BYTES} bytes"));
            }
            list.push(Expression::Log { group: *group, prefix: prefix.clone() });
        }
    }
    Ok(())
}

fn network(list: &mut Vec<Expression>, load: Expression, net: &IpNet, not: bool) {
    list.push(load);
    if net.prefix_len() < net.max_prefix_len() {
        let mask = octets(net.netmask());
        let xor = vec![0; mask.len()];
        list.push(Expression::Bitwise { slot: 0, mask, xor });
    }
    list.push(Expression::Compare { slot: 0, how: equal(not), value: octets(net.addr()) });
}

/// A whole name is compared with its terminating zeros, the beginning of one without.
fn link_name(list: &mut Vec<Expression>, key: u32, link: &str) -> Result<(), String> {
    let value = match link.strip_suffix('+') {
        Some("") => return Err("'+' stands for every link; leave the condition out".to_owned()),
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => link.bytes().chain(std::iter::repeat(0)).take(LINK_BYTES.max(link.len())).collect(),
    };
    if link.is_empty() || link.len() >= LINK_BYTES {
        return Err(format!("'{link}' is no name of a link"));
    }
    list.push(Expression::Meta { key, to: 0 });
    list.push(Expression::Compare { slot: 0, how: Comparison::Equal, value });
    Ok(())
}

fn protocol_is(list: &mut Vec<Expression>, number: u8) {
    list.push(Expression::Meta { key: meta::PROTOCOL, to: 0 });
    list.push(compare(Comparison::Equal, [number]));
}

fn masked(list: &mut Vec<Expression>, value: u32, mask: u32, not: bool) {
    if mask != u32::MAX {
        list.push(bitwise(mask.to_ne_bytes(), [0; 4]));
    }
    list.push(compare(equal(not), value.to_ne_bytes()));
}

fn compare<const N: usize>(how: Comparison, value: [u8; N]) -> Expression {
    Expression::Compare { slot: 0, how, value: value.to_vec() }
}

fn bitwise<const N: usize>(mask: [u8; N], xor: [u8; N]) -> Expression {
    Expression::Bitwise { slot: 0, mask: mask.to_vec(), xor: xor.to_vec() }
}

fn equal(not: bool) -> Comparison {
    if not { Comparison::NotEqual } else { Comparison::Equal }
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// `NF_CT_STATE_BIT`
pub(super) fn state_bit(state: ConntrackState) -> u32 {
    match state {
        ConntrackState::Invalid => 1,
        ConntrackState::Established => 2,
        ConntrackState::Related => 4,
        ConntrackState::New => 8,
    }
}

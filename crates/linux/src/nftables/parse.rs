//! Expressions to rule: the forms [`super::render`] writes, and no other.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{Comparison, Expression, FIB_DESTINATION, FIB_SOURCE, Verdict};
use super::names::key_of;
use super::render::{
    Context, LINK_BYTES, LOCAL, Layout, MINUTE, REJECT_UNREACHABLE, first_packet, state_bit,
};
use super::wire::{conntrack, meta, payload};
use crate::row::{Name, Protocol};
use crate::rule::{Action, ConntrackState, Direction, IpvsMatch, KnownRule, Match};

/// The rule of a list of expressions; `None` if one of them, or their order, is not ours. O(expressions).
pub(super) fn parse(list: &[Expression], comment: Option<Name>, context: &Context) -> Option<KnownRule> {
    let layout = Layout::of(context.family);
    let mut matches = Vec::new();
    let mut rest = list;
    loop {
        if let [Expression::Counter, action @ ..] = rest {
            let action = self::action(action, &layout, context)?;
            return Some(KnownRule { matches, comment, action });
        }
        let (condition, behind) = condition(rest, &layout, context)?;
        matches.push(condition);
        rest = behind;
    }
}

/// A value in a register compared with another, in the forms there are.
struct Compared<'a> {
    mask: Option<&'a [u8]>,
    value: &'a [u8],
    not: bool,
    rest: &'a [Expression],
}

fn compared(list: &[Expression]) -> Option<Compared<'_>> {
    let (mask, list) = match list {
        [Expression::Bitwise { slot: 0, mask, xor }, rest @ ..] if xor.iter().all(|byte| *byte == 0) => {
            (Some(mask.as_slice()), rest)
        }
        _ => (None, list),
    };
    let [Expression::Compare { slot: 0, how, value }, rest @ ..] = list else { return None };
    let not = match how {
        Comparison::Equal => false,
        Comparison::NotEqual => true,
        _ => return None,
    };
    Some(Compared { mask, value, not, rest })
}

type Parsed<'a, T> = Option<(T, &'a [Expression])>;

fn condition<'a>(list: &'a [Expression], layout: &Layout, context: &Context) -> Parsed<'a, Match> {
    let (first, rest) = list.split_first()?;
    match first {
        Expression::Payload { base: payload::NETWORK, .. } => addressed(list, layout),
        Expression::Payload { base: payload::TRANSPORT, .. } => ports(list),
        Expression::Meta { key, to: 0 } => of_meta(*key, rest, layout),
        Expression::Conntrack { of_original: true, .. } => ipvs(list, layout, context),
        Expression::Conntrack { key: conntrack::MARK, to: 0, .. } => {
            let (value, mask, not, rest) = marked(rest)?;
            Some((Match::ConnectionMark { value, mask, not }, rest))
        }
        Expression::Conntrack { key: conntrack::STATE, to: 0, .. } => {
            let Compared { mask: Some(bits), value: [0, 0, 0, 0], not: true, rest } = compared(rest)? else {
                return None;
            };
            Some((Match::ConntrackState(states(number(bits)?)?), rest))
        }
        Expression::AddressType { of, to: 0 } => {
            let direction = match *of {
                FIB_SOURCE => Direction::Source,
                FIB_DESTINATION => Direction::Destination,
                _ => return None,
            };
            let Compared { mask: None, value, not, rest } = compared(rest)? else { return None };
            (number(value)? == LOCAL).then_some((Match::LocalAddress { direction, not }, rest))
        }
        Expression::Limit { packets, seconds: MINUTE, burst } => {
            let per_minute = u32::try_from(*packets).ok()?;
            Some((Match::Limit { per_minute, burst: *burst }, rest))
        }
        _ => None,
    }
}

fn of_meta<'a>(key: u32, rest: &'a [Expression], layout: &Layout) -> Parsed<'a, Match> {
    if key == meta::MARK {
        let (value, mask, not, rest) = marked(rest)?;
        return Some((Match::Mark { value, mask, not }, rest));
    }
    let Compared { mask: None, value, not: false, rest } = compared(rest)? else { return None };
    match (key, value) {
        (meta::IN_LINK, name) => Some((Match::InLink(link_name(name)?), rest)),
        (meta::OUT_LINK, name) => Some((Match::OutLink(link_name(name)?), rest)),
        (meta::PROTOCOL, [icmp]) if *icmp == layout.icmp => {
            let [
                Expression::Payload { base: payload::TRANSPORT, offset: 0, length: 1, to: 0 },
                Expression::Compare { slot: 0, how: Comparison::Equal, value },
                rest @ ..,
            ] = rest
            else {
                return None;
            };
            let [kind] = value.as_slice() else { return None };
            Some((Match::IcmpType(*kind), rest))
        }
        (meta::PROTOCOL, [number]) => Some((Match::Protocol(Protocol::from_number(*number)?), rest)),
        _ => None,
    }
}

/// What begins with an address of the packet: a prefix, or the key of a set.
fn addressed<'a>(list: &'a [Expression], layout: &Layout) -> Parsed<'a, Match> {
    let (first, mut rest) = list.split_first()?;
    let direction = direction(first, layout, 0)?;
    if let Some(compared) = compared(rest) {
        let (net, not) = (net(&compared)?, compared.not);
        let condition = match direction {
            Direction::Source => Match::Source { net, not },
            Direction::Destination => Match::Destination { net, not },
        };
        return Some((condition, compared.rest));
    }
    let mut directions = vec![direction];
    if let [Expression::Meta { key: meta::PROTOCOL, to }, port, behind @ ..] = rest {
        (*to == layout.slots).then_some(())?;
        directions.push(port_direction(port, layout.slots + 1)?);
        rest = behind;
        if let [second, behind @ ..] = rest
            && let Some(second) = self::direction(second, layout, layout.slots + 2)
        {
            directions.push(second);
            rest = behind;
        }
    }
    let [Expression::Lookup { set, slot: 0, not }, rest @ ..] = rest else { return None };
    Some((Match::Set { name: set.clone(), directions, not: *not }, rest))
}

fn ports(list: &[Expression]) -> Parsed<'_, Match> {
    let (first, rest) = list.split_first()?;
    (port_direction(first, 0)? == Direction::Destination).then_some(())?;
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
    match rest {
        [Expression::Range { slot: 0, from, to }, rest @ ..] => {
            Some((Match::DestinationPorts(port(from)?, port(to)?), rest))
        }
        [Expression::Compare { slot: 0, how: Comparison::Equal, value }, rest @ ..] => {
            Some((Match::DestinationPort(port(value)?, port(value)?), rest))
        }
        [
            Expression::Compare { slot: 0, how: Comparison::AtLeast, value: from },
            Expression::Compare { slot: 0, how: Comparison::AtMost, value: to },
            rest @ ..,
        ] => Some((Match::DestinationPort(port(from)?, port(to)?), rest)),
        _ => None,
    }
}

fn ipvs<'a>(list: &'a [Expression], layout: &Layout, context: &Context) -> Parsed<'a, Match> {
    let first = |one: &Expression, wanted: u32, slot: u32| *one == first_packet(wanted, slot);
    let looked_up = |not| Expression::Lookup { set: context.service_ports.clone(), slot: 0, not };
    let services = |one: &Expression, inverted: bool| *one == looked_up(inverted);
    let destination = layout.conntrack_destination;
    let [address, protocol, port, lookup, rest @ ..] = list else { return None };
    let through = first(address, destination, 0)
        && first(protocol, conntrack::PROTOCOL, layout.slots)
        && first(port, conntrack::DESTINATION_PORT, layout.slots + 1)
        && services(lookup, false);
    through.then_some(())?;
    let mut ipvs = IpvsMatch { ipvs: true, ..IpvsMatch::default() };
    let mut rest = rest;
    if let [Expression::Conntrack { key: conntrack::DIRECTION, of_original: false, to: 0 }, behind @ ..] =
        rest
    {
        let Compared { mask: None, value: [0], not: false, rest: behind } = compared(behind)? else {
            return None;
        };
        (ipvs.original_direction, rest) = (true, behind);
    }
    if let [one, behind @ ..] = rest
        && first(one, conntrack::PROTOCOL, 0)
    {
        let Compared { mask: None, value: [number], not: false, rest: behind } = compared(behind)? else {
            return None;
        };
        (ipvs.protocol, rest) = (Some(Protocol::from_number(*number)?), behind);
    }
    if let [one, behind @ ..] = rest
        && first(one, destination, 0)
    {
        let compared = compared(behind).filter(|compared| !compared.not)?;
        (ipvs.address, rest) = (Some(net(&compared)?), compared.rest);
    }
    if let [one, behind @ ..] = rest
        && first(one, conntrack::DESTINATION_PORT, 0)
    {
        let Compared { mask: None, value, not: false, rest: behind } = compared(behind)? else { return None };
        (ipvs.port, rest) = (Some(u16::from_be_bytes(value.try_into().ok()?)), behind);
    }
    if let [address, Expression::Meta { key: meta::PROTOCOL, to }, port, lookup, behind @ ..] = rest
        && direction(address, layout, 0) == Some(Direction::Destination)
        && *to == layout.slots
        && port_direction(port, layout.slots + 1) == Some(Direction::Destination)
        && services(lookup, true)
    {
        (ipvs.masquerade, rest) = (true, behind);
    }
    Some((Match::Ipvs(ipvs), rest))
}

fn action(list: &[Expression], layout: &Layout, context: &Context) -> Option<Action> {
    Some(match list {
        [Expression::Verdict(verdict)] => match verdict {
            Verdict::Accept => Action::Accept,
            Verdict::Drop => Action::Drop,
            Verdict::Return => Action::Return,
            Verdict::Jump(chain) => {
                let target = key_of(context.family, chain);
                (target.table == context.table).then_some(Action::Jump(target.name))?
            }
            // Ours are in maps only.
            Verdict::Goto(_) => return None,
        },
        [Expression::Reject { kind: REJECT_UNREACHABLE, code }] if *code == layout.port_unreachable => {
            Action::Reject
        }
        [address, Expression::VerdictMap { map, slot: 0 }] => {
            Action::VerdictMap { map: map.clone(), of: direction(address, layout, 0)? }
        }
        [
            Expression::Meta { key: meta::MARK, to: 0 },
            Expression::Bitwise { slot: 0, mask, xor },
            Expression::SetMeta { key: meta::MARK, from: 0 },
        ] => Action::Mark { value: number(xor)?, mask: !number(mask)? },
        [Expression::Value { to: 0, value }, Expression::SetMeta { key: meta::MARK, from: 0 }] => {
            Action::Mark { value: number(value)?, mask: u32::MAX }
        }
        [Expression::Value { to: 0, value }, Expression::SourceNat { address: 0, random_fully, .. }] => {
            Action::SourceNat { to: address(value)?, random_fully: *random_fully }
        }
        [Expression::Masquerade { random_fully }] => Action::Masquerade { random_fully: *random_fully },
        [Expression::Log { group, prefix }] => Action::Log { group: *group, prefix: prefix.clone() },
        _ => return None,
    })
}

fn direction(load: &Expression, layout: &Layout, slot: u32) -> Option<Direction> {
    [Direction::Source, Direction::Destination]
        .into_iter()
        .find(|direction| *load == layout.address(*direction, slot))
}

fn port_direction(load: &Expression, slot: u32) -> Option<Direction> {
    [Direction::Source, Direction::Destination]
        .into_iter()
        .find(|direction| *load == super::render::port(*direction, slot))
}

fn marked(list: &[Expression]) -> Option<(u32, u32, bool, &[Expression])> {
    let compared = compared(list)?;
    let mask = compared.mask.map_or(Some(u32::MAX), number)?;
    Some((number(compared.value)?, mask, compared.not, compared.rest))
}

fn net(compared: &Compared<'_>) -> Option<IpNet> {
    let ip = address(compared.value)?;
    let net = match compared.mask {
        None => IpNet::from(ip),
        Some(mask) => IpNet::with_netmask(ip, address(mask)?).ok()?,
    };
    (net.trunc() == net).then_some(net)
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn link_name(bytes: &[u8]) -> Option<Name> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    if bytes.len() < LINK_BYTES {
        return Some(format!("{}+", text(bytes)?).into());
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(text(bytes.get(..end)?)?.into())
}

fn states(bits: u32) -> Option<Vec<ConntrackState>> {
    use ConntrackState::{Established, Invalid, New, Related};
    let all = [Invalid, New, Related, Established];
    let known = all.iter().fold(0, |known, state| known | state_bit(*state));
    let states = all.into_iter().filter(|state| bits & state_bit(*state) != 0).collect();
    (bits & !known == 0).then_some(states)
}

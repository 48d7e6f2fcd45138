//! Sets and maps: what kind of nftables set each is, and how members lie in its keys.
//!
//! Every part of a key takes whole registers of four bytes. Prefixes are half-open intervals of two elements, their
//! first address and the one behind their last; the highest has no end.

use std::net::IpAddr;

use ipnet::IpNet;

use super::parse::address;
use super::render::octets;
use super::wire::set;
use crate::netlink::attribute::{Attributes, MessageBuilder};
use crate::row::{Family, Member, Protocol, SetKind};

/// Numbers of nft's own types (`enum datatypes`), by which `nft list` shows keys; the kernel does not look at them.
const TYPE_V4: u32 = 7;
const TYPE_V6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
/// Bits of each part in the type of a concatenation.
const TYPE_BITS: u32 = 6;
const REGISTER: usize = 4;

/// A named set or map of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Members of an ipset type.
    Set(SetKind),
    /// Addresses to verdicts.
    VerdictMap,
}

/// One part of a key: its nft type and its bytes.
type Part = (u32, usize);

impl Shape {
    const ALL: [Shape; 6] = [
        Shape::Set(SetKind::HashIp),
        Shape::Set(SetKind::HashNet),
        Shape::Set(SetKind::HashIpPort),
        Shape::Set(SetKind::HashIpPortIp),
        Shape::Set(SetKind::HashNetPort),
        Shape::VerdictMap,
    ];

    fn parts(self, family: Family) -> Vec<Part> {
        let address = match family {
            Family::V4 => (TYPE_V4, 4),
            Family::V6 => (TYPE_V6, 16),
        };
        let (protocol, port) = ((TYPE_PROTOCOL, 1), (TYPE_PORT, 2));
        match self {
            Shape::Set(SetKind::HashIp | SetKind::HashNet) | Shape::VerdictMap => vec![address],
            Shape::Set(SetKind::HashIpPort | SetKind::HashNetPort) => vec![address, protocol, port],
            Shape::Set(SetKind::HashIpPortIp) => vec![address, protocol, port, address],
        }
    }

    /// Whether members are prefixes.
    pub(super) fn has_intervals(self) -> bool {
        matches!(self, Shape::Set(SetKind::HashNet | SetKind::HashNetPort))
    }

    fn flags(self) -> u32 {
        match self {
            Shape::Set(SetKind::HashNet) => set::FLAG_INTERVAL,
            Shape::Set(SetKind::HashNetPort) => set::FLAG_INTERVAL | set::FLAG_CONCATENATION,
            Shape::Set(_) => 0,
            Shape::VerdictMap => set::FLAG_MAP,
        }
    }

    fn key_type(self, family: Family) -> u32 {
        self.parts(family).iter().fold(0, |whole, (part, _)| whole << TYPE_BITS | part)
    }

    fn key_length(self, family: Family) -> usize {
        self.parts(family).iter().map(|(_, length)| length.next_multiple_of(REGISTER)).sum()
    }

    /// What describes a set of this shape when it is created. No size: sets that have one get their whole table at
    /// once, others grow.
    pub(super) fn describe(self, family: Family, to: &mut MessageBuilder) {
        to.put_be32(set::FLAGS, self.flags());
        to.put_be32(set::KEY_TYPE, self.key_type(family));
        to.put_be32(set::KEY_LENGTH, u32::try_from(self.key_length(family)).unwrap_or(0));
        if self == Shape::VerdictMap {
            to.put_be32(set::DATA_TYPE, set::DATA_VERDICT).put_be32(set::DATA_LENGTH, 0);
        }
        if self.flags() & set::FLAG_CONCATENATION != 0 {
            to.nest(set::DESCRIPTION, |description| {
                description.nest(set::DESCRIPTION_FIELDS, |fields| {
                    for (_, length) in self.parts(family) {
                        fields.nest(1, |field| {
                            field.put_be32(set::FIELD_LENGTH, u32::try_from(length).unwrap_or(0));
                        });
                    }
                });
            });
        }
    }

    /// The shape of a set of a dump; `None` for any that we would not make.
    pub(super) fn of(family: Family, fields: Attributes<'_>) -> Option<Shape> {
        let number = |kind| fields.get(kind).and_then(|field| field.be32());
        let flags = number(set::FLAGS).unwrap_or(0);
        let (key_type, data_type) = (number(set::KEY_TYPE)?, number(set::DATA_TYPE));
        Shape::ALL.into_iter().find(|shape| {
            let verdicts = (*shape == Shape::VerdictMap).then_some(set::DATA_VERDICT);
            shape.flags() == flags && shape.key_type(family) == key_type && data_type == verdicts
        })
    }
}

/// An element's key; intervals have an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) start: Vec<u8>,
    /// Of a prefix: where it ends. See [`End`].
    pub(super) end: Option<End>,
}

/// The end of a prefix, in the form its set wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The first key behind it, an element of its own.
    Behind(Vec<u8>),
    /// Its last key, in the same element: concatenations.
    Last(Vec<u8>),
}

/// The keys of a member; `None` if it belongs to a set of another kind.
pub(super) fn keys(kind: SetKind, member: &Member) -> Option<Keys> {
    let single = |start| Some(Keys { start, end: None });
    match (kind, member) {
        (SetKind::HashIp, Member::Ip(ip)) => single(octets(*ip)),
        (SetKind::HashIpPort, Member::IpPort(ip, protocol, port)) => {
            single(concatenated(*ip, *protocol, *port, None))
        }
        (SetKind::HashIpPortIp, Member::IpPortIp(ip, protocol, port, second)) => {
            single(concatenated(*ip, *protocol, *port, Some(*second)))
        }
        (SetKind::HashNet, Member::Net(net)) => {
            Some(Keys { start: octets(net.network()), end: behind(net).map(octets).map(End::Behind) })
        }
        (SetKind::HashNetPort, Member::NetPort(net, protocol, port)) => Some(Keys {
            start: concatenated(net.network(), *protocol, *port, None),
            end: Some(End::Last(concatenated(net.broadcast(), *protocol, *port, None))),
        }),
        _ => None,
    }
}

fn concatenated(ip: IpAddr, protocol: Protocol, port: u16, second: Option<IpAddr>) -> Vec<u8> {
    let mut key = octets(ip);
    key.extend([protocol.number(), 0, 0, 0]);
    key.extend(port.to_be_bytes().into_iter().chain([0, 0]));
    key.extend(second.into_iter().flat_map(octets));
    key
}

/// The address behind the last of a prefix, unless that is the last of all.
fn behind(net: &IpNet) -> Option<IpAddr> {
    match net.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// The member of a key, of sets without intervals.
pub(super) fn member(kind: SetKind, family: Family, key: &[u8]) -> Option<Member> {
    let (ip, rest) = key.split_at_checked(usize::from(family.host_len() / 8))?;
    let ip = address(ip)?;
    if kind == SetKind::HashIp {
        return rest.is_empty().then_some(Member::Ip(ip));
    }
    let [protocol, 0, 0, 0, high, low, 0, 0, rest @ ..] = rest else { return None };
    let (protocol, port) = (Protocol::from_number(*protocol)?, u16::from_be_bytes([*high, *low]));
    match kind {
        SetKind::HashIpPort if rest.is_empty() => Some(Member::IpPort(ip, protocol, port)),
        SetKind::HashIpPortIp => Some(Member::IpPortIp(ip, protocol, port, address(rest)?)),
        _ => None,
    }
}

/// The member of an element with both ends, of sets of prefixes, protocols and ports.
pub(super) fn net_port(family: Family, first: &[u8], last: &[u8]) -> Option<Member> {
    let Member::IpPort(from, protocol, port) = member(SetKind::HashIpPort, family, first)? else {
        return None;
    };
    let Member::IpPort(to, ..) = member(SetKind::HashIpPort, family, last)? else { return None };
    prefix(from, to).map(|net| Member::NetPort(net, protocol, port))
}

/// Members of a set of prefixes from its elements, ends marked. What is no prefix is left out.
/// O(elements · log elements).
pub(super) fn nets(mut elements: Vec<(Vec<u8>, bool)>) -> Vec<Member> {
    // Where one interval ends and the next begins, the end comes first.
    elements.sort_by(|(one, one_ends), (other, other_ends)| one.cmp(other).then(other_ends.cmp(one_ends)));
    let mut members = Vec::with_capacity(elements.len() / 2 + 1);
    let mut open: Option<IpAddr> = None;
    for (key, ends) in elements {
        let Some(at) = address(&key) else { continue };
        if let (Some(from), Some(last)) = (open.take(), before(at)) {
            members.extend(prefix(from, last).map(Member::Net));
        }
        open = (!ends).then_some(at);
    }
    if let Some(from) = open {
        let last = match from {
            IpAddr::V4(_) => IpAddr::from([u8::MAX; 4]),
            IpAddr::V6(_) => IpAddr::from([u8::MAX; 16]),
        };
        members.extend(prefix(from, last).map(Member::Net));
    }
    members
}

fn before(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(1).map(|last| IpAddr::V4(last.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_sub(1).map(|last| IpAddr::V6(last.into())),
    }
}

/// The prefix of exactly these addresses.
fn prefix(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let common = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u32::from(first) ^ u32::from(last)).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (u128::from(first) ^ u128::from(last)).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(first, u8::try_from(common).ok()?).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(nets: &[&str]) -> Vec<(Vec<u8>, bool)> {
        let mut elements = Vec::new();
        for net in nets {
            let keys = keys(SetKind::HashNet, &Member::Net(net.parse().unwrap())).unwrap();
            elements.push((keys.start, false));
            if let Some(End::Behind(end)) = keys.end {
                elements.push((end, true));
            }
        }
        elements
    }

    fn read(all: Vec<(Vec<u8>, bool)>) -> Vec<String> {
        let text = |member| match member {
            Member::Net(net) => net.to_string(),
            other => panic!("{other:?}"),
        };
        nets(all).into_iter().map(text).collect()
    }

    #[test]
    fn neighbours_and_the_last_prefix_of_all_are_read_as_they_were_written() {
        for nets in [
            &["0.0.0.0/1", "128.0.0.0/1"][..],
            &["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/32", "255.255.255.255/32"],
            &["::/1", "8000::/1"],
            &["fd00::/64", "fd00:0:0:1::/64", "ffff::/16"],
        ] {
            let mut reversed = elements(nets);
            reversed.reverse();
            assert_eq!(read(reversed), nets);
        }
        // What somebody else put in and is no prefix is not taken for one.
        assert_eq!(read(vec![(vec![10, 0, 0, 1], false), (vec![10, 0, 0, 4], true)]), [] as [&str; 0]);
    }

    proptest! {
        #[test]
        fn every_key_is_the_key_of_its_member(ip: u32, second: u128, port: u16, six: bool, udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Sctp };
            let (family, ip, second) = if six {
                (Family::V6, IpAddr::from((second ^ u128::from(ip)).to_be_bytes()), IpAddr::from(second.to_be_bytes()))
            } else {
                (Family::V4, IpAddr::from(ip.to_be_bytes()), IpAddr::from((second as u32).to_be_bytes()))
            };
            for (kind, one) in [
                (SetKind::HashIp, Member::Ip(ip)),
                (SetKind::HashIpPort, Member::IpPort(ip, protocol, port)),
                (SetKind::HashIpPortIp, Member::IpPortIp(ip, protocol, port, second)),
            ] {
                let keys = keys(kind, &one).unwrap();
                prop_assert_eq!(keys.start.len(), Shape::Set(kind).key_length(family));
                prop_assert_eq!(member(kind, family, &keys.start), Some(one));
                prop_assert_eq!(member(kind, family, keys.start.get(1..).unwrap()), None);
            }
        }
    }
}

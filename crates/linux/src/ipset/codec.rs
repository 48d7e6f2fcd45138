//! Sets and members as attributes of the ipset subsystem of nfnetlink.
//!
//! Decided here: bytes. Source: `include/uapi/linux/netfilter/ipset/ip_set.h`, `net/netfilter/ipset/ip_set_core.c`.
//! The kernel takes addresses, ports, timeouts and limits in network byte order and insists on the flag saying so.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::attribute::NET_BYTE_ORDER;
use crate::netlink::{Attributes, Error, MessageBuilder, Request};
use crate::row::{Family, Member, Protocol, SetHeader, SetKind};

/// Bytes of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;
const SUBSYSTEM: u16 = 6;
/// Spoken by every kernel since 2.6.39; 7 only adds lookups by index.
const PROTOCOL: u8 = 6;
/// A nest's length field has 16 bits.
const ADT_BYTES: usize = 60_000;
const ADT_MEMBERS: usize = 1400;

/// `IPSET_CMD_*`
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Create = 2,
    Destroy = 3,
    Swap = 6,
    List = 7,
    Add = 9,
    Delete = 10,
    Type = 13,
}

mod attr {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const TYPE: u16 = 3;
    pub(super) const SECOND_NAME: u16 = 3;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const DATA: u16 = 7;
    pub(super) const ADT: u16 = 8;
    pub(super) const LINE: u16 = 9;
    pub(super) const LOWEST_REVISION: u16 = 10;

    pub(super) const IP: u16 = 1;
    pub(super) const PREFIX_LENGTH: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const IP_PROTOCOL: u16 = 7;
    pub(super) const MEMBER_FLAGS: u16 = 8;
    pub(super) const MAX_MEMBERS: u16 = 19;
    pub(super) const MEMBERS: u16 = 24;
    pub(super) const SECOND_IP: u16 = 20;
    pub(super) const REFERENCES: u16 = 25;

    pub(super) const IPV4: u16 = 1;
    pub(super) const IPV6: u16 = 2;
}

const LIST_HEADER: u32 = 1 << 2;
const NO_MATCH: u32 = 1 << 2;

/// The kernel's name of a type, and the newest revision whose meaning is known here: the ones with counters,
/// comments and skbinfo, which any ipset tool since 2014 can list.
pub(super) fn kind_name(kind: SetKind) -> (&'static str, u8) {
    match kind {
        SetKind::HashIp => ("hash:ip", 4),
        SetKind::HashNet => ("hash:net", 6),
        SetKind::HashIpPort => ("hash:ip,port", 5),
        SetKind::HashIpPortIp => ("hash:ip,port,ip", 5),
        SetKind::HashNetPort => ("hash:net,port", 7),
    }
}

fn kind_named(name: &str) -> Option<SetKind> {
    Some(match name {
        "hash:ip" => SetKind::HashIp,
        "hash:net" => SetKind::HashNet,
        "hash:ip,port" => SetKind::HashIpPort,
        "hash:ip,port,ip" => SetKind::HashIpPortIp,
        "hash:net,port" => SetKind::HashNetPort,
        _ => return None,
    })
}

fn message(family: u8) -> MessageBuilder {
    let mut message = MessageBuilder::new(&[family, 0, 0, 0]);
    message.put_u8(attr::PROTOCOL, PROTOCOL);
    message
}

fn request(command: Command, message: MessageBuilder) -> Result<Request, Error> {
    Request::new(SUBSYSTEM << 8 | command as u16, 0, message)
}

/// Which revisions of a type the kernel has.
pub(super) fn revisions(kind: SetKind, family: Family) -> Result<Request, Error> {
    let mut message = message(family.number());
    message.put_str(attr::TYPE, kind_name(kind).0).put_u8(attr::FAMILY, family.number());
    request(Command::Type, message)
}

/// Lowest and highest revision of an answer to [`revisions`].
pub(super) fn parse_revisions(payload: &[u8]) -> Option<(u8, u8)> {
    let attributes = Attributes::after(payload, HEADER);
    let highest = attributes.get(attr::REVISION)?.u8()?;
    Some((attributes.get(attr::LOWEST_REVISION).and_then(|lowest| lowest.u8()).unwrap_or(highest), highest))
}

pub(super) fn create(name: &str, family: Family, header: &SetHeader, revision: u8) -> Result<Request, Error> {
    let number = family.number();
    let mut message = message(number);
    message.put_str(attr::NAME, name).put_str(attr::TYPE, kind_name(header.kind).0);
    message.put_u8(attr::REVISION, revision).put_u8(attr::FAMILY, number);
    message.nest(attr::DATA, |data| {
        data.put_be32(attr::MAX_MEMBERS | NET_BYTE_ORDER, header.max_members);
        if let Some(timeout) = header.timeout {
            data.put_be32(attr::TIMEOUT | NET_BYTE_ORDER, timeout);
        }
    });
    request(Command::Create, message)
}

pub(super) fn destroy(name: &str) -> Result<Request, Error> {
    let mut message = message(0);
    message.put_str(attr::NAME, name);
    request(Command::Destroy, message)
}

pub(super) fn swap(one: &str, other: &str) -> Result<Request, Error> {
    let mut message = message(0);
    message.put_str(attr::NAME, one).put_str(attr::SECOND_NAME, other);
    request(Command::Swap, message)
}

/// Headers of every set.
pub(super) fn list_headers() -> Result<Request, Error> {
    let mut message = message(0);
    message.put_be32(attr::FLAGS | NET_BYTE_ORDER, LIST_HEADER);
    request(Command::List, message)
}

/// Header and members of one set.
pub(super) fn list(name: &str) -> Result<Request, Error> {
    let mut message = message(0);
    message.put_str(attr::NAME, name);
    request(Command::List, message)
}

/// Messages that add or remove members, each with how many of `members` it carries. Adding what is there and
/// removing what is not succeeds, as long as `NLM_F_EXCL` is absent.
pub(super) fn change_members(
    command: Command,
    name: &str,
    members: &[Member],
) -> Result<Vec<(usize, Request)>, Error> {
    let mut requests = Vec::with_capacity(members.len().div_ceil(ADT_MEMBERS));
    let mut rest = members;
    while !rest.is_empty() {
        let mut message = message(0);
        // Required beside a list; without line numbers in the members the kernel answers with a plain error.
        message.put_str(attr::NAME, name).put_u32(attr::LINE, 0);
        let start = message.len();
        let adt = message.begin(attr::ADT);
        let mut count = 0;
        for member in rest.iter().take(ADT_MEMBERS) {
            if message.len() - start > ADT_BYTES {
                break;
            }
            message.nest(attr::DATA, |data| put_member(data, member));
            count += 1;
        }
        message.end(adt);
        requests.push((count, request(command, message)?));
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(requests)
}

/// A message for one member.
pub(super) fn change_member(command: Command, name: &str, member: &Member) -> Result<Request, Error> {
    let mut message = message(0);
    message.put_str(attr::NAME, name).nest(attr::DATA, |data| put_member(data, member));
    request(command, message)
}

fn put_member(data: &mut MessageBuilder, member: &Member) {
    match *member {
        Member::Ip(ip) => put_ip(data, attr::IP, ip),
        Member::Net(net) => put_net(data, net),
        Member::IpPort(ip, protocol, port) => {
            put_ip(data, attr::IP, ip);
            put_port(data, protocol, port);
        }
        Member::IpPortIp(ip, protocol, port, second) => {
            put_ip(data, attr::IP, ip);
            put_port(data, protocol, port);
            put_ip(data, attr::SECOND_IP, second);
        }
        Member::NetPort(net, protocol, port) => {
            put_net(data, net);
            put_port(data, protocol, port);
        }
    }
}

fn put_ip(data: &mut MessageBuilder, kind: u16, ip: IpAddr) {
    let inner = if ip.is_ipv4() { attr::IPV4 } else { attr::IPV6 };
    data.nest(kind, |nest| {
        nest.put_ip(inner | NET_BYTE_ORDER, ip);
    });
}

fn put_net(data: &mut MessageBuilder, net: IpNet) {
    put_ip(data, attr::IP, net.addr());
    data.put_u8(attr::PREFIX_LENGTH, net.prefix_len());
}

fn put_port(data: &mut MessageBuilder, protocol: Protocol, port: u16) {
    data.put_be16(attr::PORT | NET_BYTE_ORDER, port).put_u8(attr::IP_PROTOCOL, protocol.number());
}

/// One message of a list answer: large sets come in several, the header in the first only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) kind_name: String,
    pub(super) family: Option<Family>,
    /// Absent when the type or the family is none of ours.
    pub(super) header: Option<SetHeader>,
    pub(super) references: u32,
    pub(super) count: u32,
    pub(super) members: Vec<Member>,
}

/// Reads one message of a list answer. Members no [`Member`] can describe (`nomatch`, other protocols) are left out.
pub(super) fn parse_listed(payload: &[u8]) -> Option<Listed> {
    let attributes = Attributes::after(payload, HEADER);
    let name = attributes.get(attr::NAME)?.str()?.to_owned();
    let kind_name = attributes.get(attr::TYPE).and_then(|kind| kind.str()).unwrap_or_default().to_owned();
    let kind = kind_named(&kind_name);
    let family = match attributes.get(attr::FAMILY).and_then(|family| family.u8()) {
        Some(2) => Some(Family::V4),
        Some(10) => Some(Family::V6),
        _ => None,
    };
    let data = attributes.get(attr::DATA).map(|data| data.nested());
    let number = |kind| data.and_then(|data| data.get(kind)?.be32());
    let header = kind.zip(number(attr::MAX_MEMBERS)).zip(family).map(|((kind, max_members), _)| SetHeader {
        kind,
        max_members,
        timeout: number(attr::TIMEOUT),
    });
    let adt = attributes.get(attr::ADT);
    let members = adt.map(|adt| adt.nested().filter_map(|member| parse_member(member.nested())).collect());
    Some(Listed {
        name,
        kind_name,
        family,
        header,
        references: number(attr::REFERENCES).unwrap_or(0),
        count: number(attr::MEMBERS).unwrap_or(0),
        members: members.unwrap_or_default(),
    })
}

/// A member by its shape: later messages of a long list do not repeat the type. Only sets of a [`SetKind`] are ever
/// asked for their members, and those differ in shape.
fn parse_member(data: Attributes<'_>) -> Option<Member> {
    if data.get(attr::MEMBER_FLAGS).and_then(|flags| flags.be32()).unwrap_or(0) & NO_MATCH != 0 {
        return None;
    }
    let ip = |kind| data.get(kind)?.nested().next()?.ip();
    let first: IpAddr = ip(attr::IP)?;
    let net = match data.get(attr::PREFIX_LENGTH).and_then(|length| length.u8()) {
        Some(length) => Some(IpNet::new(first, length).ok()?),
        None => None,
    };
    let Some(port) = data.get(attr::PORT).and_then(|port| port.be16()) else {
        return Some(net.map_or(Member::Ip(first), Member::Net));
    };
    let protocol = Protocol::from_number(data.get(attr::IP_PROTOCOL)?.u8()?)?;
    Some(match (net, ip(attr::SECOND_IP)) {
        (Some(net), None) => Member::NetPort(net, protocol, port),
        (None, Some(second)) => Member::IpPortIp(first, protocol, port, second),
        (None, None) => Member::IpPort(first, protocol, port),
        (Some(_), Some(_)) => return None,
    })
}

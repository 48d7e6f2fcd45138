//! IPVS rows as generic netlink attributes, and back.
//!
//! Decided here: which attribute carries which field (`include/uapi/linux/ip_vs.h`), and which bits of the kernel's
//! are ours. Not here: sockets, and what an error means. Reading is forgiving: a record that cannot be one of ours
//! (another protocol, another forwarding method, a field missing) is `None` and the dump goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::attribute::Attribute;
use crate::netlink::generic::HEADER;
use crate::netlink::{Attributes, MessageBuilder};
use crate::row::{
    Family, Forwarding, IpvsTimeouts, Protocol, RealServer, Scheduler, VirtualServer, VirtualServerKey,
};

/// `IPVS_CMD_*`
pub(super) mod command {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
}

/// `IPVS_CMD_ATTR_*`
mod top {
    pub(super) const SERVICE: u16 = 1;
    pub(super) const DEST: u16 = 2;
    pub(super) const TIMEOUT_TCP: u16 = 4;
    pub(super) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(super) const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*`
mod service {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
    pub(super) const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*`
mod destination {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FORWARDING: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const UPPER_THRESHOLD: u16 = 5;
    pub(super) const LOWER_THRESHOLD: u16 = 6;
    pub(super) const ACTIVE: u16 = 7;
    pub(super) const INACTIVE: u16 = 8;
    pub(super) const FAMILY: u16 = 11;
}

/// `IP_VS_SVC_F_PERSISTENT`
const PERSISTENT: u32 = 0x01;
/// `IP_VS_SVC_F_SCHED1..3`
const SCHEDULER_FLAGS: u32 = 0x38;
/// Flag bits we write and compare. `hashed` (0x02) is the kernel's own, one-packet (0x04) is left as it is found.
const OUR_FLAGS: u32 = PERSISTENT | SCHEDULER_FLAGS;
/// `IP_VS_CONN_F_FWD_MASK`
const FORWARDING_MASK: u32 = 0x07;

/// A virtual server as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceRecord {
    pub(super) key: VirtualServerKey,
    pub(super) server: VirtualServer,
    pub(super) counters: Counters,
}

/// A real server as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DestinationRecord {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// `None` for a forwarding method that is not ours (bypass).
    pub(super) server: Option<RealServer>,
    pub(super) connections: ConnectionCount,
}

/// What a virtual server has carried (`IPVS_SVC_ATTR_STATS64`); all 0 before Linux 4.1, which has no 64-bit counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections a second, the kernel's moving average.
    pub connections_per_second: u64,
    /// Packets a second from clients.
    pub packets_in_per_second: u64,
    /// Packets a second to clients.
    pub packets_out_per_second: u64,
    /// Bytes a second from clients.
    pub bytes_in_per_second: u64,
    /// Bytes a second to clients.
    pub bytes_out_per_second: u64,
}

/// Connections a real server has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Established TCP and SCTP connections.
    pub active: u32,
    /// All others the kernel still remembers: opening, closing, and every UDP flow that has not timed out.
    pub inactive: u32,
}

/// Adds the attributes that say which virtual server.
pub(super) fn put_service_key(message: &mut MessageBuilder, key: &VirtualServerKey) {
    message.nest(top::SERVICE, |inner| write_service_key(inner, key));
}

/// Adds a virtual server, whole.
pub(super) fn put_service(message: &mut MessageBuilder, key: &VirtualServerKey, server: &VirtualServer) {
    message.nest(top::SERVICE, |inner| {
        write_service_key(inner, key);
        let flags = u32::from(server.scheduler_flags) & SCHEDULER_FLAGS
            | if server.persistence.is_some() { PERSISTENT } else { 0 };
        let mut flags_and_mask = [0; 8];
        let (value, mask) = flags_and_mask.split_at_mut(4);
        value.copy_from_slice(&flags.to_ne_bytes());
        mask.copy_from_slice(&OUR_FLAGS.to_ne_bytes());
        inner
            .put_str(service::SCHEDULER, server.scheduler.as_str())
            .put(service::FLAGS, &flags_and_mask)
            .put_u32(service::TIMEOUT, server.persistence.unwrap_or(0));
        // Persistence per client address: a full mask (v4, network order) or prefix length (v6).
        match key.family() {
            Family::V4 => inner.put_be32(service::NETMASK, u32::MAX),
            Family::V6 => inner.put_u32(service::NETMASK, 128),
        };
    });
}

/// Adds the attributes that say which real server.
pub(super) fn put_destination_key(message: &mut MessageBuilder, ip: IpAddr, port: u16) {
    message.nest(top::DEST, |inner| write_destination_key(inner, ip, port));
}

/// Adds a real server, whole. Thresholds are always 0: no limit.
pub(super) fn put_destination(message: &mut MessageBuilder, ip: IpAddr, port: u16, server: &RealServer) {
    message.nest(top::DEST, |inner| {
        write_destination_key(inner, ip, port);
        inner
            .put_u32(destination::FORWARDING, forwarding_number(server.forwarding))
            .put_u32(destination::WEIGHT, server.weight)
            .put_u32(destination::UPPER_THRESHOLD, 0)
            .put_u32(destination::LOWER_THRESHOLD, 0);
    });
}

/// Adds timeouts.
pub(super) fn put_timeouts(message: &mut MessageBuilder, timeouts: &IpvsTimeouts) {
    message
        .put_u32(top::TIMEOUT_TCP, timeouts.tcp)
        .put_u32(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin)
        .put_u32(top::TIMEOUT_UDP, timeouts.udp);
}

/// Reads one message of a service dump.
pub(super) fn parse_service(payload: &[u8]) -> Option<ServiceRecord> {
    let fields = Attributes::after(payload, HEADER).get(top::SERVICE)?.nested();
    let family = family(fields.get(service::FAMILY)?.u16()?)?;
    let key = match fields.get(service::MARK) {
        Some(mark) => VirtualServerKey::Mark { family, mark: mark.u32()? },
        None => VirtualServerKey::Address {
            ip: address(fields.get(service::ADDRESS)?, family)?,
            protocol: Protocol::from_number(u8::try_from(fields.get(service::PROTOCOL)?.u16()?).ok()?)?,
            port: fields.get(service::PORT)?.be16()?,
        },
    };
    let flags = fields.get(service::FLAGS)?.u32()?;
    let timeout = fields.get(service::TIMEOUT).and_then(|attribute| attribute.u32()).unwrap_or(0);
    let server = VirtualServer {
        scheduler: Scheduler::named(fields.get(service::SCHEDULER)?.str()?),
        scheduler_flags: (flags & SCHEDULER_FLAGS) as u8,
        persistence: (flags & PERSISTENT != 0).then_some(timeout),
    };
    let counters = fields.get(service::STATS64).map(|stats| parse_counters(stats.nested()));
    Some(ServiceRecord { key, server, counters: counters.unwrap_or_default() })
}

/// Reads one message of a destination dump of a virtual server of `service_family`.
pub(super) fn parse_destination(payload: &[u8], service_family: Family) -> Option<DestinationRecord> {
    let fields = Attributes::after(payload, HEADER).get(top::DEST)?.nested();
    // Kernels before 3.18 know no destinations of the other family and send no family.
    let family = match fields.get(destination::FAMILY) {
        Some(number) => family(number.u16()?)?,
        None => service_family,
    };
    let count = |kind| fields.get(kind).and_then(|attribute| attribute.u32()).unwrap_or(0);
    let weight = fields.get(destination::WEIGHT)?.u32()?;
    let forwarding = forwarding(fields.get(destination::FORWARDING)?.u32()?);
    Some(DestinationRecord {
        ip: address(fields.get(destination::ADDRESS)?, family)?,
        port: fields.get(destination::PORT)?.be16()?,
        server: forwarding.map(|forwarding| RealServer { weight, forwarding }),
        connections: ConnectionCount {
            active: count(destination::ACTIVE),
            inactive: count(destination::INACTIVE),
        },
    })
}

/// Reads the answer to `IPVS_CMD_GET_CONFIG`; a protocol this kernel's IPVS lacks reads as 0.
pub(super) fn parse_timeouts(payload: &[u8]) -> IpvsTimeouts {
    let fields = Attributes::after(payload, HEADER);
    let seconds = |kind| fields.get(kind).and_then(|attribute| attribute.u32()).unwrap_or(0);
    IpvsTimeouts {
        tcp: seconds(top::TIMEOUT_TCP),
        tcp_fin: seconds(top::TIMEOUT_TCP_FIN),
        udp: seconds(top::TIMEOUT_UDP),
    }
}

/// `IPVS_STATS_ATTR_*`, 1 to 10 in order.
fn parse_counters(fields: Attributes<'_>) -> Counters {
    let at = |kind| fields.get(kind).and_then(|attribute| attribute.u64()).unwrap_or(0);
    Counters {
        connections: at(1),
        packets_in: at(2),
        packets_out: at(3),
        bytes_in: at(4),
        bytes_out: at(5),
        connections_per_second: at(6),
        packets_in_per_second: at(7),
        packets_out_per_second: at(8),
        bytes_in_per_second: at(9),
        bytes_out_per_second: at(10),
    }
}

fn write_service_key(message: &mut MessageBuilder, key: &VirtualServerKey) {
    message.put_u16(service::FAMILY, family_number(key.family()));
    match key {
        VirtualServerKey::Mark { mark, .. } => message.put_u32(service::MARK, *mark),
        VirtualServerKey::Address { ip, protocol, port } => message
            .put_u16(service::PROTOCOL, u16::from(protocol.number()))
            .put(service::ADDRESS, &union_address(*ip))
            .put_be16(service::PORT, *port),
    };
}

fn write_destination_key(message: &mut MessageBuilder, ip: IpAddr, port: u16) {
    message
        .put(destination::ADDRESS, &union_address(ip))
        .put_be16(destination::PORT, port)
        .put_u16(destination::FAMILY, family_number(Family::of(&ip)));
}

/// `union nf_inet_addr`: always 16 bytes, an IPv4 address in the first four.
fn union_address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

fn address(attribute: Attribute<'_>, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => attribute.payload.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        Family::V6 => attribute.payload.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
    }
}

fn family(number: u16) -> Option<Family> {
    match i32::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => libc::AF_INET as u16,
        Family::V6 => libc::AF_INET6 as u16,
    }
}

/// `IP_VS_CONN_F_MASQ`, `LOCALNODE`, `TUNNEL`, `DROUTE`
fn forwarding_number(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Masquerade => 0,
        Forwarding::Local => 1,
        Forwarding::Tunnel => 2,
        Forwarding::DirectRoute => 3,
    }
}

fn forwarding(number: u32) -> Option<Forwarding> {
    match number & FORWARDING_MASK {
        0 => Some(Forwarding::Masquerade),
        1 => Some(Forwarding::Local),
        2 => Some(Forwarding::Tunnel),
        3 => Some(Forwarding::DirectRoute),
        _ => None,
    }
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

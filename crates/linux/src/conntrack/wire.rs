//! Connection tracking on the wire: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`. The filter's flag bits are
//! those of the kernel's `nf_internals.h`, which libnetfilter_conntrack repeats.

use std::net::IpAddr;

use crate::netlink::attribute::Attribute;
use crate::netlink::{Attributes, MessageBuilder};
use crate::row::Family;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*`
pub(super) mod message {
    pub(crate) const NEW: u16 = 0x100;
    pub(crate) const GET: u16 = 0x101;
    pub(crate) const DELETE: u16 = 0x102;
}

/// `CTA_*` of a flow.
pub(super) mod flow {
    pub(crate) const ORIGINAL: u16 = 1;
    pub(crate) const REPLY: u16 = 2;
    pub(crate) const MARK: u16 = 8;
    pub(crate) const ID: u16 = 12;
    pub(crate) const ZONE: u16 = 18;
    pub(crate) const MARK_MASK: u16 = 21;
    pub(crate) const FILTER: u16 = 25;
}

/// `CTA_TUPLE_*`, `CTA_IP_*` and `CTA_PROTO_*`
pub(super) mod tuple {
    pub(crate) const IP: u16 = 1;
    pub(crate) const PROTO: u16 = 2;
    pub(crate) const ZONE: u16 = 3;
    pub(crate) const V4_SOURCE: u16 = 1;
    pub(crate) const V4_DESTINATION: u16 = 2;
    pub(crate) const V6_SOURCE: u16 = 3;
    pub(crate) const V6_DESTINATION: u16 = 4;
    pub(crate) const PROTO_NUMBER: u16 = 1;
    pub(crate) const SOURCE_PORT: u16 = 2;
    pub(crate) const DESTINATION_PORT: u16 = 3;
}

/// `CTA_FILTER_*` and its flag bits.
pub(super) mod filter {
    pub(crate) const ORIGINAL_FLAGS: u16 = 1;
    pub(crate) const REPLY_FLAGS: u16 = 2;
    pub(crate) const IP_SOURCE: u32 = 1 << 0;
    pub(crate) const IP_DESTINATION: u32 = 1 << 1;
    pub(crate) const PROTO_NUMBER: u32 = 1 << 3;
    pub(crate) const SOURCE_PORT: u32 = 1 << 4;
    pub(crate) const DESTINATION_PORT: u32 = 1 << 5;
}

/// Bytes of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;

/// `struct nfgenmsg`
pub(super) fn header(family: Family, version: u8) -> MessageBuilder {
    let family = match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    };
    MessageBuilder::new(&[family, version, 0, 0])
}

/// Zone 0 has no attribute.
pub(super) fn zone(attribute: Option<Attribute<'_>>) -> Option<u16> {
    attribute.map_or(Some(0), |zone| zone.be16())
}

/// Both ends of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends in this direction; port 0 where the protocol has none.
    pub source: (IpAddr, u16),
    /// Who receives in this direction; port 0 where the protocol has none.
    pub destination: (IpAddr, u16),
}

impl Ends {
    /// `None` for a direction in another zone than 0, which is not ours.
    pub(super) fn parse(fields: Attributes<'_>) -> Option<Ends> {
        let ip = fields.get(tuple::IP)?.nested();
        let proto = fields.get(tuple::PROTO)?.nested();
        let address = |v4, v6| ip.get(v4).or_else(|| ip.get(v6))?.ip();
        let port = |kind| proto.get(kind).map_or(Some(0), |port| port.be16());
        let ends = Ends {
            protocol: proto.get(tuple::PROTO_NUMBER)?.u8()?,
            source: (address(tuple::V4_SOURCE, tuple::V6_SOURCE)?, port(tuple::SOURCE_PORT)?),
            destination: (
                address(tuple::V4_DESTINATION, tuple::V6_DESTINATION)?,
                port(tuple::DESTINATION_PORT)?,
            ),
        };
        (zone(fields.get(tuple::ZONE)) == Some(0)).then_some(ends)
    }
}

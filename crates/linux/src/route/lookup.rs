//! Asking the kernel which way one packet would go: `RTM_GETROUTE` for an address, not a dump.
//!
//! Decided here: nothing. The kernel looks into its rules and tables as it does for a packet; with a link the packet comes
//! in by, it also checks what it checks of forwarded packets (forwarding switched on, reverse path filters).

use std::net::IpAddr;

use crate::netlink::attribute::Attribute;
use crate::netlink::{Attributes, Error, MessageBuilder, Request, flag};
use crate::row::{Family, Name, RouteKind};

use super::kernel::{message, route as number};
use super::link::{LinkState, links};
use super::socket::Rtnetlink;

/// `RTM_F_LOOKUP_TABLE`: tell the table the route was found in. IPv6 always does, and refuses the flag.
const TELL_TABLE: u32 = 0x1000;
/// `RTA_SRC`
const SOURCE: u16 = 2;
/// `RTA_IIF`
const IN_LINK: u16 = 3;
/// Bytes of `struct rtvia` before the address.
const VIA_HEADER: usize = 2;

/// A packet whose way is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from, where that is to be looked at. Of the destination's family.
    pub source: Option<IpAddr>,
    /// Whether the source is behind a link of this node, as pods are: the packet is then looked up as one that comes in
    /// by the link that leads to its source. Otherwise as one of the node itself.
    pub forwarded: bool,
}

/// The way of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Sent on, delivered here, or refused.
    pub kind: RouteKind,
    /// The link it leaves by.
    pub link: Option<Name>,
    /// The gateway; none if the destination is on the link.
    pub via: Option<IpAddr>,
    /// The address this node would give to packets of its own.
    pub source: Option<IpAddr>,
    /// The table that has the route.
    pub table: Option<u32>,
}

/// Ways of packets, by the links as they were when it was opened.
#[derive(Debug)]
pub struct Ways {
    kernel: Rtnetlink,
    links: Vec<LinkState>,
}

impl Ways {
    /// Opens a socket in the calling thread's network namespace and reads its links. O(links).
    ///
    /// # Errors
    /// When there is no rtnetlink, or links cannot be read.
    pub fn open() -> Result<Ways, Error> {
        let mut kernel = Rtnetlink::open()?;
        let links = links(&mut kernel)?;
        Ok(Ways { kernel, links })
    }

    /// The way of one packet. Two requests if it is forwarded, else one.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's reason where it would not send the packet: ENETUNREACH without a route,
    /// EHOSTUNREACH if forwarding is off, EXDEV if a reverse path filter drops it.
    pub fn of(&mut self, asked: &Asked) -> Result<Way, Error> {
        let behind = match asked.source {
            Some(source) if asked.forwarded => self.look_up(source, None, None)?.0,
            _ => None,
        };
        let source = asked.source.filter(|_| behind.is_some());
        self.look_up(asked.destination, source, behind).map(|(_, way)| way)
    }

    /// The way, and the index of its link.
    fn look_up(
        &mut self,
        to: IpAddr,
        from: Option<IpAddr>,
        in_link: Option<u32>,
    ) -> Result<(Option<u32>, Way), Error> {
        let family = Family::of(&to);
        let bits = family.host_len();
        let source_bits = if from.is_some() { bits } else { 0 };
        let flags = if family == Family::V4 { TELL_TABLE } else { 0 };
        let [a, b, c, d] = flags.to_ne_bytes();
        let mut request =
            MessageBuilder::new(&[family.number(), bits, source_bits, 0, 0, 0, 0, 0, a, b, c, d]);
        request.put_ip(number::DESTINATION, to);
        if let Some(from) = from {
            request.put_ip(SOURCE, from);
        }
        if let Some(index) = in_link {
            request.put_u32(IN_LINK, index);
        }
        let answers = self.kernel.socket().ask(Request::new(message::GET_ROUTE, flag::ACK, request)?)?;
        let answer = answers.first().ok_or(Error::Malformed("no route in the answer"))?;
        self.read(answer).ok_or(Error::Malformed("a route that cannot be read"))
    }

    fn read(&self, payload: &[u8]) -> Option<(Option<u32>, Way)> {
        let (table, kind) = (*payload.get(4)?, *payload.get(7)?);
        let attributes = Attributes::after(payload, number::HEADER);
        let ip = |kind| attributes.get(kind).and_then(|value: Attribute<'_>| value.ip());
        // A gateway of the other family (RFC 8950).
        let other = || gateway_of_any_family(attributes.get(number::VIA)?.payload.get(VIA_HEADER..)?);
        let index = attributes.get(number::OUT_LINK).and_then(|value| value.u32());
        let named = |index: &u32| self.links.iter().find(|link| link.index == *index);
        let way = Way {
            kind: match kind {
                number::UNICAST => RouteKind::Unicast,
                number::LOCAL => RouteKind::Local,
                other => RouteKind::Other(other),
            },
            link: index.as_ref().and_then(named).map(|link| link.name.clone()),
            via: ip(number::GATEWAY).or_else(other),
            source: ip(number::PREFERRED_SOURCE),
            table: attributes.get(number::TABLE).and_then(|value| value.u32()).or(Some(u32::from(table))),
        };
        Some((index, way))
    }
}

fn gateway_of_any_family(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

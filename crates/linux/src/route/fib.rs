//! Routes, between rows and messages.
//!
//! Normal form: IPv6 routes have scope universe, IPv4 ones the scope they were given. A route of ours never has a
//! type of service or a metric of its own, so of several routes under one key the first one the kernel lists, which
//! is the one it uses, stands for the key. A multipath route reads back without link and gateway, unequal to any row
//! of ours.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::attribute::Attribute;
use crate::netlink::{Attributes, Error, MessageBuilder, Request, flag};
use crate::row::{Family, Route, RouteKind};

use super::address::{family, scope_number, scope_of};
use super::kernel::{message, route as number};
use super::socket::Rtnetlink;

/// A route as the kernel reports it, its link still an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteState {
    pub(super) table: u32,
    pub(super) destination: IpNet,
    pub(super) metric: u32,
    pub(super) out_link: Option<u32>,
    /// `link` is empty here.
    pub(super) route: Route,
}

/// What the kernel is to list; 0 and `None` are any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter {
    pub(super) table: u32,
    pub(super) protocol: u8,
    pub(super) kind: u8,
    pub(super) out_link: Option<u32>,
}

/// Routes of one family that pass a filter. The kernel walks its tables but only tells what passes.
pub(super) fn dump(kernel: &mut Rtnetlink, of: Family, filter: Filter) -> Result<Vec<RouteState>, Error> {
    let wanted = if of == Family::V4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut request = MessageBuilder::new(&[wanted, 0, 0, 0, 0, filter.protocol, 0, filter.kind, 0, 0, 0, 0]);
    if filter.table != 0 {
        request.put_u32(number::TABLE, filter.table);
    }
    if let Some(index) = filter.out_link {
        request.put_u32(number::OUT_LINK, index);
    }
    let request = Request::new(message::GET_ROUTE, 0, request)?;
    // A kernel without this family answers with the routes of the others.
    let parse = |payload: &[u8]| match payload.first() {
        Some(family) if *family == wanted => parse(payload),
        _ => Ok(None),
    };
    match kernel.dump(&request, parse) {
        // No such table, no such link: nothing in it.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// Writes a route over what stands under the same destination and metric.
pub(super) fn replace(table: u32, to: IpNet, route: &Route, link: Option<u32>) -> Result<Request, Error> {
    write(flag::CREATE | flag::REPLACE, table, to, route, link)
}

/// Writes a route before others of the same destination and metric, which stay.
pub(super) fn prepend(table: u32, to: IpNet, route: &Route, link: Option<u32>) -> Result<Request, Error> {
    write(flag::CREATE, table, to, route, link)
}

fn write(flags: u16, table: u32, to: IpNet, route: &Route, link: Option<u32>) -> Result<Request, Error> {
    let scope = if to.addr().is_ipv4() { scope_number(route.scope) } else { 0 };
    let mut request = begin(table, to, route.protocol, scope, kind_number(route.kind));
    if let Some(index) = link {
        request.put_u32(number::OUT_LINK, index);
    }
    match route.via {
        Some(via) if via.is_ipv4() == to.addr().is_ipv4() => {
            request.put_ip(number::GATEWAY, via);
        }
        Some(via) => {
            request.put(number::VIA, &other_family(via));
        }
        None => {}
    }
    if let Some(source) = route.source {
        request.put_ip(number::PREFERRED_SOURCE, source);
    }
    Request::new(message::NEW_ROUTE, flags, request)
}

/// Removes the first route that has the destination, and protocol, type, link and preferred source where given.
/// (IPv6 does not look at type and source.)
pub(super) fn delete(table: u32, to: IpNet, route: &Route, link: Option<u32>) -> Result<Request, Error> {
    let mut request = begin(table, to, route.protocol, number::ANY_SCOPE, kind_number(route.kind));
    if let Some(index) = link {
        request.put_u32(number::OUT_LINK, index);
    }
    if let Some(source) = route.source {
        request.put_ip(number::PREFERRED_SOURCE, source);
    }
    Request::new(message::DELETE_ROUTE, 0, request)
}

/// The route the kernel's tables hold for an address, packets leaving by `link` (`RTM_F_FIB_MATCH`, Linux 4.13).
/// `None` when there is none.
pub(super) fn matching(kernel: &mut Rtnetlink, ip: IpAddr, link: u32) -> Result<Option<RouteState>, Error> {
    let net = IpNet::from(ip);
    let [a, b, c, d] = number::FIB_MATCH.to_ne_bytes();
    let mut request = MessageBuilder::new(&[family(&net), net.prefix_len(), 0, 0, 0, 0, 0, 0, a, b, c, d]);
    request.put_ip(number::DESTINATION, ip).put_u32(number::OUT_LINK, link);
    match kernel.socket().ask(Request::new(message::GET_ROUTE, 0, request)?) {
        Ok(answers) => match answers.first().map(|payload| parse(payload)) {
            Some(outcome) => outcome.map_err(Error::Malformed),
            None => Ok(None),
        },
        Err(error)
            if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENODEV)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads `RTM_NEWROUTE` or `RTM_DELROUTE`; `None` for cached routes, other families and types of service.
pub(super) fn parse(payload: &[u8]) -> Result<Option<RouteState>, &'static str> {
    let Some([family, length, _, tos, table, protocol, scope, kind, flags @ ..]) =
        payload.first_chunk::<{ number::HEADER }>()
    else {
        return Err("route without a whole header");
    };
    let any = match i32::from(*family) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return Ok(None),
    };
    if *tos != 0 || u32::from_ne_bytes(*flags) & number::CLONED != 0 {
        return Ok(None);
    }
    let mut state = RouteState {
        table: u32::from(*table),
        destination: IpNet::from(any),
        metric: 0,
        out_link: None,
        route: Route {
            kind: kind_of(*kind),
            link: None,
            via: None,
            source: None,
            scope: scope_of(*scope),
            protocol: *protocol,
        },
    };
    let mut destination = any;
    for attribute in Attributes::after(payload, number::HEADER) {
        match attribute.kind {
            number::TABLE => state.table = attribute.u32().unwrap_or(state.table),
            number::DESTINATION => {
                destination = attribute.ip().ok_or("route with an unreadable destination")?
            }
            number::OUT_LINK => state.out_link = attribute.u32(),
            number::PRIORITY => state.metric = attribute.u32().unwrap_or_default(),
            number::GATEWAY => state.route.via = attribute.ip(),
            number::VIA => state.route.via = read_other_family(attribute.payload),
            number::PREFERRED_SOURCE => state.route.source = attribute.ip(),
            _ => {}
        }
    }
    state.destination =
        IpNet::new(destination, *length).map_err(|_| "route with an impossible prefix length")?;
    Ok(Some(state))
}

/// `RTN_*`
fn kind_number(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast => number::UNICAST,
        RouteKind::Local => number::LOCAL,
        RouteKind::Other(other) => other,
    }
}

fn kind_of(value: u8) -> RouteKind {
    match value {
        number::UNICAST => RouteKind::Unicast,
        number::LOCAL => RouteKind::Local,
        other => RouteKind::Other(other),
    }
}

/// `struct rtvia`: family in host order, then the address.
fn other_family(via: IpAddr) -> Vec<u8> {
    let family = if via.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    let mut bytes = family.to_ne_bytes().to_vec();
    match via {
        IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
    }
    bytes
}

fn read_other_family(via: &[u8]) -> Option<IpAddr> {
    Attribute { kind: number::VIA, payload: via.get(2..)? }.ip()
}

/// `struct rtmsg` and the destination and table attributes.
fn begin(table: u32, to: IpNet, protocol: u8, scope: u8, kind: u8) -> MessageBuilder {
    let short = u8::try_from(table).unwrap_or(number::TABLE_COMPAT);
    let header = [family(&to), to.prefix_len(), 0, 0, short, protocol, scope, kind, 0, 0, 0, 0];
    let mut request = MessageBuilder::new(&header);
    request.put_ip(number::DESTINATION, to.network()).put_u32(number::TABLE, table);
    request
}

//! Addresses, between rows and messages.
//!
//! Normal form: an IPv4 address has the scope it was given; an IPv6 address has the scope its prefix says, whatever was
//! asked for, so a plan writes [`Scope::Universe`] for global IPv6 addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{Attributes, Error, MessageBuilder, Request, flag};
use crate::row::{LinkKind, Name, Scope};

use super::kernel::{address as number, message};
use super::link::links;
use super::socket::Rtnetlink;

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// Link it is on.
    pub link: Name,
    /// Index of that link.
    pub index: u32,
    /// Kind of that link.
    pub kind: LinkKind,
    /// Address with its prefix length.
    pub net: IpNet,
    /// Scope.
    pub scope: Scope,
}

/// An address as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressState {
    pub(super) index: u32,
    pub(super) net: IpNet,
    pub(super) scope: Scope,
}

/// Every address of every link, loopback and link-local ones too. O(links + addresses).
///
/// # Errors
/// When the kernel refuses a dump.
pub fn local_addresses(kernel: &mut Rtnetlink) -> Result<Vec<LocalAddress>, Error> {
    let links: HashMap<u32, _> = links(kernel)?.into_iter().map(|link| (link.index, link)).collect();
    let addresses = dump(kernel, 0)?;
    let named = addresses.into_iter().filter_map(|AddressState { index, net, scope }| {
        // A link made between the two dumps is announced by a notification of its own.
        let link = links.get(&index)?;
        Some(LocalAddress { link: link.name.clone(), index, kind: link.kind.clone(), net, scope })
    });
    Ok(named.collect())
}

/// Addresses of one link, or of all with index 0. O(addresses there).
pub(super) fn dump(kernel: &mut Rtnetlink, index: u32) -> Result<Vec<AddressState>, Error> {
    let request = Request::new(message::GET_ADDRESS, 0, MessageBuilder::new(&header(0, 0, 0, index)))?;
    match kernel.dump(&request, parse) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// Adds an address. IPv6 ones come without duplicate address detection (a virtual address is on every node, on a link
/// no neighbour sees) and without a prefix route in table main, which table local shadows anyway.
pub(super) fn add(index: u32, net: IpNet, scope: Scope) -> Result<Request, Error> {
    let mut request =
        MessageBuilder::new(&header(family(&net), net.prefix_len(), scope_number(scope), index));
    request.put_ip(number::LOCAL, net.addr()).put_ip(number::ADDRESS, net.addr());
    if net.addr().is_ipv6() {
        request.put_u32(number::FLAGS, number::NO_DUPLICATE_DETECTION | number::NO_PREFIX_ROUTE);
    }
    Request::new(message::NEW_ADDRESS, flag::CREATE | flag::EXCL, request)
}

/// Removes an address.
pub(super) fn delete(index: u32, net: IpNet) -> Result<Request, Error> {
    let mut request = MessageBuilder::new(&header(family(&net), net.prefix_len(), 0, index));
    request.put_ip(number::LOCAL, net.addr()).put_ip(number::ADDRESS, net.addr());
    Request::new(message::DELETE_ADDRESS, 0, request)
}

/// Reads `RTM_NEWADDR` or `RTM_DELADDR`; `None` for families other than IP.
pub(super) fn parse(payload: &[u8]) -> Result<Option<AddressState>, &'static str> {
    let Some([family, length, _, scope, index @ ..]) = payload.first_chunk::<{ number::HEADER }>() else {
        return Err("address without a whole header");
    };
    if !matches!(i32::from(*family), libc::AF_INET | libc::AF_INET6) {
        return Ok(None);
    }
    let attributes = Attributes::after(payload, number::HEADER);
    // On point-to-point links ADDRESS is the peer's; LOCAL is always ours where it is there.
    let local = attributes.get(number::LOCAL).or_else(|| attributes.get(number::ADDRESS));
    let ip = local.and_then(|local| local.ip()).ok_or("address without an address")?;
    let net = IpNet::new(ip, *length).map_err(|_| "address with an impossible prefix length")?;
    Ok(Some(AddressState { index: u32::from_ne_bytes(*index), net, scope: scope_of(*scope) }))
}

/// Whether an address is an IPv6 link-local one, which the kernel makes on its own.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn family(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => libc::AF_INET as u8,
        IpNet::V6(_) => libc::AF_INET6 as u8,
    }
}

/// `RT_SCOPE_*`
pub(super) fn scope_number(scope: Scope) -> u8 {
    match scope {
        Scope::Universe => 0,
        Scope::Link => 253,
        Scope::Host => 254,
    }
}

/// The nearest of the scopes rows have; 200 (site) is all but unused and as wide as universe on one host.
pub(super) fn scope_of(number: u8) -> Scope {
    match number {
        253 => Scope::Link,
        254 => Scope::Host,
        _ => Scope::Universe,
    }
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, link index.
fn header(family: u8, length: u8, scope: u8, index: u32) -> [u8; number::HEADER] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, length, 0, scope, a, b, c, d]
}

//! Links and the hairpin mode of bridge ports, between rows and messages.

use crate::netlink::{Attributes, Error, MessageBuilder, Request, flag};
use crate::row::{Link, LinkKind, Name};

use super::kernel::{link as number, message};
use super::socket::Rtnetlink;
use super::tunnel;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: Name,
    /// Kind; links without one (loopback, physical) have an empty `Other`.
    pub kind: LinkKind,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge (or other controller) this link is a port of.
    pub master: Option<u32>,
    /// Hairpin mode, if it is the port of a bridge.
    pub hairpin: Option<bool>,
}

/// Every link of the namespace.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn links(kernel: &mut Rtnetlink) -> Result<Vec<LinkState>, Error> {
    let mut request = MessageBuilder::new(&header(0, 0, 0, 0));
    request.put_u32(number::EXTENSION_MASK, number::SKIP_STATISTICS);
    kernel.dump(&Request::new(message::GET_LINK, 0, request)?, |payload| parse(payload).map(Some))
}

/// The link of a name, if there is one.
pub(super) fn by_name(kernel: &mut Rtnetlink, name: &str) -> Result<Option<LinkState>, Error> {
    // The kernel refuses to look for a name that no link can have.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Ok(None);
    }
    let mut request = MessageBuilder::new(&header(0, 0, 0, 0));
    request.put_str(number::NAME, name).put_u32(number::EXTENSION_MASK, number::SKIP_STATISTICS);
    one(kernel, request)
}

/// The link of an index, if there is one.
pub(super) fn by_index(kernel: &mut Rtnetlink, index: u32) -> Result<Option<LinkState>, Error> {
    let mut request = MessageBuilder::new(&header(0, index, 0, 0));
    request.put_u32(number::EXTENSION_MASK, number::SKIP_STATISTICS);
    one(kernel, request)
}

fn one(kernel: &mut Rtnetlink, request: MessageBuilder) -> Result<Option<LinkState>, Error> {
    match kernel.socket().request(Request::new(message::GET_LINK, 0, request)?) {
        Ok(answers) => match answers.first().map(|payload| parse(payload)) {
            Some(Ok(link)) => Ok(Some(link)),
            Some(Err(missing)) => Err(Error::Malformed(missing)),
            None => Ok(None),
        },
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a link in its final state.
pub(super) fn create(name: &str, link: &Link) -> Result<Request, Error> {
    let mut request = MessageBuilder::new(&header(0, 0, flags(link.up), number::UP));
    request.put_str(number::NAME, name);
    if let Some(mtu) = link.mtu {
        request.put_u32(number::MTU, mtu);
    }
    request.nest(number::INFO, |info| {
        info.put(number::INFO_KIND, kind_name(&link.kind).as_bytes());
        if let LinkKind::Tunnel(ends) = &link.kind {
            info.nest(number::INFO_DATA, |data| tunnel::put(data, ends));
        }
    });
    Request::new(message::NEW_LINK, flag::CREATE | flag::EXCL, request)
}

/// Changes what differs on an existing link.
pub(super) fn set(index: u32, link: &Link) -> Result<Request, Error> {
    let mut request = MessageBuilder::new(&header(0, index, flags(link.up), number::UP));
    if let Some(mtu) = link.mtu {
        request.put_u32(number::MTU, mtu);
    }
    Request::new(message::SET_LINK, 0, request)
}

/// Removes a link with everything on it.
pub(super) fn delete(index: u32) -> Result<Request, Error> {
    Request::new(message::DELETE_LINK, 0, MessageBuilder::new(&header(0, index, 0, 0)))
}

/// Sets the hairpin mode of a bridge port.
pub(super) fn set_hairpin(index: u32, on: bool) -> Result<Request, Error> {
    let mut request = MessageBuilder::new(&header(number::FAMILY_BRIDGE, index, 0, 0));
    request.nest(number::PROTOCOL_INFO, |port| {
        port.put_u8(number::BRIDGE_PORT_MODE, u8::from(on));
    });
    Request::new(message::SET_LINK, 0, request)
}

/// The kernel's name of a kind, which is also the name of the module behind it.
pub(super) fn kind_name(kind: &LinkKind) -> &str {
    match kind {
        LinkKind::Dummy => "dummy",
        LinkKind::Bridge => "bridge",
        LinkKind::Tunnel(tunnel) => tunnel::kind_name(tunnel),
        LinkKind::Other(name) => name,
    }
}

/// Reads `RTM_NEWLINK` or `RTM_DELLINK`.
pub(super) fn parse(payload: &[u8]) -> Result<LinkState, &'static str> {
    let word = |at: usize| {
        payload.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes))
    };
    let (Some(index), Some(flags)) = (word(4), word(8)) else {
        return Err("link without a whole header");
    };
    let attributes = Attributes::after(payload, number::HEADER);
    let name =
        attributes.get(number::NAME).and_then(|name| name.str()).ok_or("link without a readable name")?;
    let info = attributes.get(number::INFO).map(|info| info.nested());
    let nested = |kind: u16| info.and_then(|info| info.get(kind));
    let kind = match nested(number::INFO_KIND).and_then(|kind| kind.str()) {
        Some("dummy") => LinkKind::Dummy,
        Some("bridge") => LinkKind::Bridge,
        other => {
            let kind = other.unwrap_or_default();
            let data = nested(number::INFO_DATA).map(|data| data.nested());
            let tunnel = data.and_then(|data| tunnel::parse(kind, data));
            tunnel.map_or_else(|| LinkKind::Other(Name::from(kind)), LinkKind::Tunnel)
        }
    };
    let bridge_port = nested(number::INFO_PORT_KIND).and_then(|kind| kind.str()) == Some("bridge");
    let mode = || nested(number::INFO_PORT_DATA)?.nested().get(number::BRIDGE_PORT_MODE)?.u8();
    Ok(LinkState {
        index,
        name: Name::from(name),
        kind,
        up: flags & number::UP != 0,
        mtu: attributes.get(number::MTU).and_then(|mtu| mtu.u32()).unwrap_or_default(),
        master: attributes.get(number::MASTER).and_then(|master| master.u32()).filter(|index| *index != 0),
        hairpin: bridge_port.then(mode).flatten().map(|mode| mode != 0),
    })
}

fn flags(up: bool) -> u32 {
    if up { number::UP } else { 0 }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of flags to change.
fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; number::HEADER] {
    let mut bytes = [0; number::HEADER];
    let words = [u32::from_ne_bytes([family, 0, 0, 0]), index, flags, change];
    for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
        field.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

//! Attributes: type-length-value with 4-byte alignment, nested at will (`struct nlattr`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NLA_F_NESTED`
pub const NESTED: u16 = 0x8000;
/// `NLA_F_NET_BYTEORDER`
pub const NET_BYTE_ORDER: u16 = 0x4000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// An attribute or nest too long for its 16-bit length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("attribute {kind} is longer than 65535 bytes")]
pub struct TooLong {
    /// Attribute type.
    pub kind: u16,
}

/// Builds the payload of one message: a fixed header, then attributes.
#[derive(Debug, Default, Clone)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
    overflow: Option<u16>,
}

/// Marks an open nest; close it with [`MessageBuilder::end`].
#[derive(Debug)]
#[must_use = "an open nest has no length yet"]
pub struct Nest {
    at: usize,
    kind: u16,
}

impl MessageBuilder {
    /// Starts with the family's fixed header.
    pub fn new(header: &[u8]) -> MessageBuilder {
        let mut builder = MessageBuilder { bytes: Vec::with_capacity(header.len() + 64), overflow: None };
        builder.bytes.extend_from_slice(header);
        builder.align();
        builder
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        match u16::try_from(payload.len() + HEADER) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.bytes.extend_from_slice(payload);
                self.align();
            }
            Err(_) => self.overflow = self.overflow.or(Some(kind)),
        }
        self
    }

    /// A byte.
    pub fn put_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    /// Host byte order.
    pub fn put_u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Network byte order.
    pub fn put_be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Host byte order.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Network byte order.
    pub fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Network byte order.
    pub fn put_be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// A string with its terminating zero.
    pub fn put_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// 4 or 16 bytes.
    pub fn put_ip(&mut self, kind: u16, ip: IpAddr) -> &mut Self {
        match ip {
            IpAddr::V4(ip) => self.put(kind, &ip.octets()),
            IpAddr::V6(ip) => self.put(kind, &ip.octets()),
        }
    }

    /// Opens a nest; `NLA_F_NESTED` is set here.
    pub fn begin(&mut self, kind: u16) -> Nest {
        let nest = Nest { at: self.bytes.len(), kind };
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        nest
    }

    /// Closes a nest.
    pub fn end(&mut self, nest: Nest) -> &mut Self {
        let length = u16::try_from(self.bytes.len() - nest.at);
        match (length, self.bytes.get_mut(nest.at..nest.at + 2)) {
            (Ok(length), Some(field)) => field.copy_from_slice(&length.to_ne_bytes()),
            _ => self.overflow = self.overflow.or(Some(nest.kind)),
        }
        self
    }

    /// A nest written by a closure.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) -> &mut Self {
        let nest = self.begin(kind);
        write(self);
        self.end(nest)
    }

    /// The payload, unless something did not fit its length field.
    pub fn finish(self) -> Result<Vec<u8>, TooLong> {
        match self.overflow {
            Some(kind) => Err(TooLong { kind }),
            None => Ok(self.bytes),
        }
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes; stops at the first malformed one, as the kernel's own parser does.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Attributes of a payload, behind its fixed header of `header` bytes (rounded up to 4).
    pub fn after(payload: &'a [u8], header: usize) -> Attributes<'a> {
        Attributes { rest: payload.get(header.next_multiple_of(4)..).unwrap_or_default() }
    }

    /// Attributes nested in one.
    pub fn of(payload: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: payload }
    }

    /// The first attribute of a type, without its flag bits. O(attributes).
    pub fn get(self, kind: u16) -> Option<Attribute<'a>> {
        self.into_iter().find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16::from_ne_bytes(*self.rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*self.rest.get(2..)?.first_chunk::<2>()?);
        let payload = self.rest.get(HEADER..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind: kind & TYPE_MASK, payload })
    }
}

/// One attribute as read.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// Type without flag bits.
    pub kind: u16,
    /// Value.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Exactly one byte, or the first of more.
    pub fn u8(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Host byte order.
    pub fn u16(&self) -> Option<u16> {
        self.payload.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    /// Network byte order.
    pub fn be16(&self) -> Option<u16> {
        self.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Host byte order.
    pub fn u32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// Network byte order.
    pub fn be32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Host byte order.
    pub fn u64(&self) -> Option<u64> {
        self.payload.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    /// Network byte order.
    pub fn be64(&self) -> Option<u64> {
        self.payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Text up to the first zero, if it is UTF-8.
    pub fn str(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(self.payload.get(..end)?).ok()
    }

    /// 4 or 16 bytes.
    pub fn ip(&self) -> Option<IpAddr> {
        if let Ok(octets) = <[u8; 4]>::try_from(self.payload) {
            return Some(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        <[u8; 16]>::try_from(self.payload).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
    }

    /// Attributes nested in this one.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::of(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = MessageBuilder::new(&[1, 2, 3]);
        message.put_u32(1, 7).put_str(2, "rr").put_be16(3, 80);
        message.nest(4, |inner| {
            inner.put_ip(1, IpAddr::from([10, 0, 0, 1]));
        });
        let bytes = message.finish().unwrap();
        let read = Attributes::after(&bytes, 3);
        assert_eq!(read.get(1).unwrap().u32(), Some(7));
        assert_eq!(read.get(2).unwrap().str(), Some("rr"));
        assert_eq!(read.get(3).unwrap().be16(), Some(80));
        let inner = read.get(4).unwrap().nested().get(1).unwrap().ip();
        assert_eq!(inner, Some(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn too_long_is_an_error_not_a_wrong_length() {
        let mut message = MessageBuilder::new(&[]);
        message.put(9, &vec![0; 70_000]);
        assert_eq!(message.finish(), Err(TooLong { kind: 9 }));
    }

    #[test]
    fn truncated_input_ends_the_list() {
        assert_eq!(Attributes::of(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Attributes::of(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::of(&[8]).count(), 0);
    }
}

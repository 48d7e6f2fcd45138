//! Messages as octets: the frame around them, what each kind says, and what is wrong with those that say it badly.
//!
//! Decided here: where a message begins and ends (RFC 4271 section 4.1), what its octets mean, and which of the outcomes
//! of RFC 7606 an error has. Not decided: what a message means to a session ([`crate::session`]) or to the table.
//!
//! Path attribute values are read and written by `netgauze-bgp-pkt`, one attribute at a time; everything around them
//! is ours, and no type of that crate leaves this folder (docs/decisions/0022).

mod attribute;
mod encode;
mod merge;
mod multiprotocol;
pub mod notification;
pub mod open;
mod prefix;
pub mod refresh;
pub mod update;

use bytes::{Buf, Bytes, BytesMut};

pub use attribute::{Fault, Outcome};
pub use encode::{EncodeError, encode_update};
pub use notification::{Cause, Notification};
pub use open::{Capabilities, Open, RestartCapability};
pub use refresh::{Refresh, RefreshKind};
pub use update::Received;

use crate::families::Families;
use crate::negotiated::Negotiated;
use notification::HeaderError;

/// Octets of the header: marker, length, type.
pub const HEADER: usize = 19;
/// The longest message (RFC 4271 section 4); we do not offer longer ones (RFC 8654).
pub const MESSAGE_MAX: usize = 4096;
/// AS_TRANS: stands in for a number that two octets cannot hold (RFC 6793).
pub const AS_TRANS: u16 = 23_456;

const MARKER: [u8; 16] = [0xff; 16];

/// The kinds of messages (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 1.
    Open,
    /// Type 2.
    Update,
    /// Type 3.
    Notification,
    /// Type 4.
    Keepalive,
    /// Type 5.
    RouteRefresh,
}

impl Kind {
    /// The kind and the least and most octets a message of it may have, header included.
    const fn of(code: u8) -> Option<(Kind, usize, usize)> {
        match code {
            1 => Some((Kind::Open, 29, MESSAGE_MAX)),
            2 => Some((Kind::Update, 23, MESSAGE_MAX)),
            3 => Some((Kind::Notification, 21, MESSAGE_MAX)),
            4 => Some((Kind::Keepalive, HEADER, HEADER)),
            // Its length is judged with its subtype (RFC 7313 section 5).
            5 => Some((Kind::RouteRefresh, HEADER, MESSAGE_MAX)),
            _ => None,
        }
    }

    /// The type on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Open => 1,
            Kind::Update => 2,
            Kind::Notification => 3,
            Kind::Keepalive => 4,
            Kind::RouteRefresh => 5,
        }
    }
}

/// One message, its body still unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Everything after the header.
    pub body: Bytes,
}

/// Cuts a stream of octets into messages.
///
/// Holds at most what it was given since the last whole message was taken; a caller that takes all messages after each
/// [`Framer::push`] never has more than a message's worth in here.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
}

impl Framer {
    /// Adds octets from the peer. O(octets).
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// Octets waiting for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole message, or `None` until more octets come.
    ///
    /// # Errors
    /// The NOTIFICATION due for a bad header (RFC 4271 section 6.1). The stream is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Notification> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [marker @ .., high, low, code] = header;
        if *marker != MARKER {
            return Err(Notification::new(HeaderError::ConnectionNotSynchronized));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(HEADER..=MESSAGE_MAX).contains(&length) {
            return Err(Notification::with(HeaderError::BadMessageLength, [*high, *low]));
        }
        let Some((kind, least, most)) = Kind::of(*code) else {
            return Err(Notification::with(HeaderError::BadMessageType, [*code]));
        };
        if length < least || length > most {
            return Err(Notification::with(HeaderError::BadMessageLength, [*high, *low]));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length);
        message.advance(HEADER);
        Ok(Some(Frame { kind, body: message.freeze() }))
    }
}

/// How a session's UPDATEs are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// AS numbers are four octets wide (RFC 6793).
    pub four_octet_asn: bool,
    /// The peer is in our AS: LOCAL_PREF and the reflection attributes count.
    pub internal: bool,
    /// Families of the session; others are not read.
    pub families: Families,
    /// Families whose next hop may be of the other kind of address (RFC 8950).
    pub extended_next_hop: Families,
}

impl From<&Negotiated> for Codec {
    fn from(negotiated: &Negotiated) -> Self {
        Codec {
            four_octet_asn: negotiated.four_octet_asn,
            internal: negotiated.is_internal(),
            families: negotiated.families,
            extended_next_hop: negotiated.extended_next_hop,
        }
    }
}

/// Appends a message whose body `write` appends. The caller keeps to [`MESSAGE_MAX`].
fn message(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&MARKER);
    let length_at = out.len();
    out.extend_from_slice(&[0, 0, kind.code()]);
    write(out);
    let length = out.len() - start;
    debug_assert!(length <= MESSAGE_MAX, "a message of {length} octets");
    patch_length(out, length_at, length);
}

/// Writes the two octets at `at`, reserved before what they count was known.
fn patch_length(out: &mut [u8], at: usize, length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    message(out, Kind::Keepalive, |_| {});
}

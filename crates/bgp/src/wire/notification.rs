//! NOTIFICATION: why a session ends (RFC 4271 section 4.5).
//!
//! Every code and subcode of the IANA registry has a name here. What arrives is kept as numbers, for a peer may know more
//! of them than we do; what we send is made from a [`Cause`].

use std::fmt;

use super::{Kind, MESSAGE_MAX, message};

/// Something wrong with a message's header (code 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeaderError {
    /// The marker is not all ones.
    ConnectionNotSynchronized = 1,
    /// Too short or too long for its type; data: the length field.
    BadMessageLength = 2,
    /// Data: the type.
    BadMessageType = 3,
}

/// Something wrong with an OPEN (code 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpenError {
    /// Malformed where no other subcode says how.
    Unspecific = 0,
    /// Data: the version we speak.
    UnsupportedVersion = 1,
    /// Not the AS number we expect.
    BadPeerAs = 2,
    /// Zero, or our own.
    BadIdentifier = 3,
    /// Not a capability.
    UnsupportedOptionalParameter = 4,
    /// One or two seconds.
    UnacceptableHoldTime = 6,
    /// No family in common; data: the capabilities missing (RFC 5492).
    UnsupportedCapability = 7,
}

/// Something wrong with an UPDATE (code 3), where RFC 7606 still resets the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UpdateError {
    /// Lengths do not add up, or a multiprotocol attribute stands twice.
    MalformedAttributeList = 1,
    /// Data: the attribute.
    UnrecognizedWellKnown = 2,
    /// Data: its code.
    MissingWellKnown = 3,
    /// Data: the attribute.
    AttributeFlags = 4,
    /// Data: the attribute.
    AttributeLength = 5,
    /// Data: the attribute.
    InvalidOrigin = 6,
    /// Data: the attribute.
    InvalidNextHop = 8,
    /// Data: the attribute.
    OptionalAttribute = 9,
    /// Prefixes that cannot be read.
    InvalidNetworkField = 10,
    /// AS_PATH that cannot be read.
    MalformedAsPath = 11,
}

/// A message where the state has no place for it (code 5, RFC 6608); data: its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StateMachineError {
    /// In a state without a subcode.
    Unspecified = 0,
    /// In OpenSent.
    InOpenSent = 1,
    /// In OpenConfirm.
    InOpenConfirm = 2,
    /// In Established.
    InEstablished = 3,
}

/// An end without an error (code 6, RFC 4486, RFC 8538, RFC 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cease {
    /// More prefixes than allowed; data: family and bound.
    MaximumPrefixes = 1,
    /// Data: a text (RFC 9003).
    AdministrativeShutdown = 2,
    /// No longer a peer.
    PeerDeconfigured = 3,
    /// Data: a text (RFC 9003).
    AdministrativeReset = 4,
    /// Not now.
    ConnectionRejected = 5,
    /// The peer's settings changed.
    OtherConfigurationChange = 6,
    /// The other connection stays.
    ConnectionCollision = 7,
    /// Too much to hold.
    OutOfResources = 8,
    /// Ends the session whatever graceful restart says; data: the NOTIFICATION meant (RFC 8538).
    HardReset = 9,
    /// BFD lost the peer.
    BfdDown = 10,
}

/// Why we end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Code 1.
    Header(HeaderError),
    /// Code 2.
    Open(OpenError),
    /// Code 3.
    Update(UpdateError),
    /// Code 4: nothing heard for the hold time.
    HoldTimerExpired,
    /// Code 5.
    StateMachine(StateMachineError),
    /// Code 6.
    Cease(Cease),
    /// Code 7, subcode 1: a ROUTE-REFRESH of a wrong length (RFC 7313); data: the message.
    RefreshLength,
    /// Code 8: nothing could be sent for longer than the hold time (RFC 9687).
    SendHoldTimerExpired,
}

impl Cause {
    const fn numbers(self) -> (u8, u8) {
        match self {
            Cause::Header(error) => (1, error as u8),
            Cause::Open(error) => (2, error as u8),
            Cause::Update(error) => (3, error as u8),
            Cause::HoldTimerExpired => (4, 0),
            Cause::StateMachine(error) => (5, error as u8),
            Cause::Cease(reason) => (6, reason as u8),
            Cause::RefreshLength => (7, 1),
            Cause::SendHoldTimerExpired => (8, 0),
        }
    }
}

macro_rules! into_cause {
    ($($from:ty => $variant:path),*) => {
        $(impl From<$from> for Cause {
            fn from(error: $from) -> Self {
                $variant(error)
            }
        })*
    };
}
into_cause!(HeaderError => Cause::Header, OpenError => Cause::Open, UpdateError => Cause::Update,
    StateMachineError => Cause::StateMachine, Cease => Cause::Cease);

/// A NOTIFICATION, received or to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; its meaning depends on the code.
    pub subcode: u8,
    /// What the subcode says about it.
    pub data: Vec<u8>,
}

/// Longest shutdown text in octets (RFC 9003).
const TEXT_MAX: usize = 255;

impl Notification {
    /// One without data.
    pub fn new(cause: impl Into<Cause>) -> Self {
        Self::with(cause, [])
    }

    /// One with data, as much of it as a message can hold.
    pub fn with(cause: impl Into<Cause>, data: impl AsRef<[u8]>) -> Self {
        let (code, subcode) = cause.into().numbers();
        Notification { code, subcode, data: data.as_ref().to_vec() }
    }

    /// A Cease with a text for the other side's operator, cut to 255 octets (RFC 9003).
    pub fn with_text(reason: Cease, text: &str) -> Self {
        let cut = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = text.get(..cut).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text.as_bytes());
        if text.is_empty() { Self::new(reason) } else { Self::with(reason, data) }
    }

    /// This one inside of a Hard Reset, so that the peer does not keep our paths (RFC 8538 section 3.1).
    pub fn hard(&self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self::with(Cease::HardReset, data)
    }

    /// Whether it is a Cease for this reason.
    pub const fn is_cease(&self, reason: Cease) -> bool {
        self.code == 6 && self.subcode == reason as u8
    }

    /// Reads the body of a NOTIFICATION; the frame has made sure of its two octets.
    pub fn decode(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => {
                Notification { code: *code, subcode: *subcode, data: data.to_vec() }
            }
            _ => Notification { code: 0, subcode: 0, data: body.to_vec() },
        }
    }

    /// Appends the message; data beyond what it can hold is left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, Kind::Notification, |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            out.extend(self.data.iter().take(MESSAGE_MAX - super::HEADER - 2));
        });
    }

    /// What is inside of a Hard Reset; otherwise this one itself.
    pub fn meant(&self) -> Notification {
        if self.is_cease(Cease::HardReset) && self.data.len() >= 2 {
            return Self::decode(&self.data);
        }
        self.clone()
    }

    /// The text of a shutdown or reset, control characters taken out: the other side's operator wrote it.
    pub fn text(&self) -> Option<String> {
        if self.is_cease(Cease::HardReset) {
            // One within another has none: nobody sends that, and a chain of them would have no end.
            return Some(self.meant()).filter(|meant| !meant.is_cease(Cease::HardReset))?.text();
        }
        if !self.is_cease(Cease::AdministrativeShutdown) && !self.is_cease(Cease::AdministrativeReset) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length))?;
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    /// Code and subcode in words.
    pub fn name(&self) -> &'static str {
        NAMES
            .iter()
            .find(|(code, subcode, _)| (*code, *subcode) == (self.code, self.subcode))
            .or_else(|| NAMES.iter().find(|(code, subcode, _)| (*code, *subcode) == (self.code, 0)))
            .map_or("unknown error", |(_, _, name)| *name)
    }
}

/// The registry "BGP Error (Notification) Codes" and its subcodes.
const NAMES: [(u8, u8, &str); 43] = [
    (1, 0, "message header error"),
    (1, 1, "connection not synchronized"),
    (1, 2, "bad message length"),
    (1, 3, "bad message type"),
    (2, 0, "OPEN message error"),
    (2, 1, "unsupported version number"),
    (2, 2, "bad peer AS"),
    (2, 3, "bad BGP identifier"),
    (2, 4, "unsupported optional parameter"),
    (2, 6, "unacceptable hold time"),
    (2, 7, "unsupported capability"),
    (2, 11, "role mismatch"),
    (3, 0, "UPDATE message error"),
    (3, 1, "malformed attribute list"),
    (3, 2, "unrecognized well-known attribute"),
    (3, 3, "missing well-known attribute"),
    (3, 4, "attribute flags error"),
    (3, 5, "attribute length error"),
    (3, 6, "invalid ORIGIN attribute"),
    (3, 8, "invalid NEXT_HOP attribute"),
    (3, 9, "optional attribute error"),
    (3, 10, "invalid network field"),
    (3, 11, "malformed AS_PATH"),
    (4, 0, "hold timer expired"),
    (5, 0, "finite state machine error"),
    (5, 1, "unexpected message in OpenSent"),
    (5, 2, "unexpected message in OpenConfirm"),
    (5, 3, "unexpected message in Established"),
    (6, 0, "cease"),
    (6, 1, "maximum number of prefixes reached"),
    (6, 2, "administrative shutdown"),
    (6, 3, "peer de-configured"),
    (6, 4, "administrative reset"),
    (6, 5, "connection rejected"),
    (6, 6, "other configuration change"),
    (6, 7, "connection collision resolution"),
    (6, 8, "out of resources"),
    (6, 9, "hard reset"),
    (6, 10, "BFD down"),
    (7, 0, "ROUTE-REFRESH message error"),
    (7, 1, "invalid message length"),
    (8, 0, "send hold timer expired"),
    (9, 0, "loss of LSDB synchronization"),
];

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.name(), self.code, self.subcode)?;
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.data.is_empty() { Ok(()) } else { write!(f, " data {:02x?}", self.data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_cleaned() {
        let long = "ä".repeat(200);
        let notification = Notification::with_text(Cease::AdministrativeShutdown, &long);
        assert_eq!(notification.text().unwrap(), "ä".repeat(127));
        let mut hostile = Notification::new(Cease::AdministrativeReset);
        hostile.data = b"\x06a\x1b[2Jb".to_vec();
        assert_eq!(hostile.text().unwrap(), "a[2Jb");
        hostile.data = vec![200, b'a'];
        assert_eq!(hostile.text(), None);
    }

    #[test]
    fn unknown_numbers_have_a_name() {
        let strange = Notification { code: 6, subcode: 99, data: Vec::new() };
        assert_eq!(strange.to_string(), "cease (6/99)");
        let stranger = Notification { code: 77, subcode: 1, data: Vec::new() };
        assert_eq!(stranger.to_string(), "unknown error (77/1)");
    }

    #[test]
    fn a_hard_reset_carries_what_was_meant() {
        let meant = Notification::with_text(Cease::AdministrativeShutdown, "bye");
        let hard = meant.hard();
        assert!(hard.is_cease(Cease::HardReset));
        assert_eq!(hard.meant(), meant);
        assert_eq!(hard.text().unwrap(), "bye");
        assert_eq!(hard.hard().text(), None);
    }
}

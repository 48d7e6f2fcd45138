//! Autonomous system numbers and who may use which.
//!
//! Decided here, from a number alone: whether it may name this cluster ([`Asn::local`]) or a router outside of it
//! ([`Asn::peer`]). The ranges follow the IANA registries (RFC 1930, RFC 6793, RFC 6996) as the Go kube-router
//! draws them, so that a configuration accepted there is accepted here.

use std::fmt;
use std::str::FromStr;

/// A four-octet autonomous system number (RFC 6793), never zero (RFC 7607).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(u32);

/// Why a number is not an autonomous system number for its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsnError {
    /// Not a number, or beyond 32 bits.
    #[error("not an AS number (1 to 4294967295)")]
    NotANumber,
    /// RFC 7607 forbids zero.
    #[error("AS number 0 is reserved")]
    Zero,
    /// The cluster's own number must be private (RFC 6996).
    #[error("AS number {0} is not private (64512 to 65535, or 4200000000 to 4294967294)")]
    NotPrivate(u32),
    /// Reserved, or set aside for documentation.
    #[error(
        "AS number {0} is reserved (a peer's is 1 to 23455, 23457 to 63999, 64512 to 65534, or 131072 to 4294967294)"
    )]
    NotAPeer(u32),
}

impl Asn {
    /// The number of a cluster that chose none.
    pub const DEFAULT: Asn = Asn(64512);

    /// Any number but zero.
    ///
    /// # Errors
    /// [`AsnError::Zero`].
    pub const fn new(number: u32) -> Result<Self, AsnError> {
        if number == 0 { Err(AsnError::Zero) } else { Ok(Self(number)) }
    }

    /// A number this cluster may use for itself: private, 64512 to 65535 or 4200000000 to 4294967294.
    ///
    /// # Errors
    /// [`AsnError::Zero`], [`AsnError::NotPrivate`].
    pub const fn local(number: u32) -> Result<Self, AsnError> {
        match number {
            64_512..=65_535 | 4_200_000_000..=4_294_967_294 => Ok(Self(number)),
            0 => Err(AsnError::Zero),
            _ => Err(AsnError::NotPrivate(number)),
        }
    }

    /// A number an external peer may have: neither AS_TRANS (23456) nor a reserved or documentation range.
    ///
    /// # Errors
    /// [`AsnError::Zero`], [`AsnError::NotAPeer`].
    pub const fn peer(number: u32) -> Result<Self, AsnError> {
        match number {
            1..=23_455 | 23_457..=63_999 | 64_512..=65_534 | 131_072..=4_294_967_294 => Ok(Self(number)),
            0 => Err(AsnError::Zero),
            _ => Err(AsnError::NotAPeer(number)),
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads a number in the notations of Go literals (`64512`, `0xfc00`), as node annotations are read.
impl FromStr for Asn {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Self, AsnError> {
        let number = parse_go_uint(text).ok_or(AsnError::NotANumber)?;
        Self::new(u32::try_from(number).map_err(|_| AsnError::NotANumber)?)
    }
}

/// Reads an unsigned number as Go's `strconv.ParseUint(text, 0, 64)`: prefixes `0x`, `0o`, `0b` or a leading `0` for
/// octal, underscores between digits where a prefix or a digit precedes. `None` for anything else.
pub fn parse_go_uint(text: &str) -> Option<u64> {
    let prefixed = |prefix: [&str; 2]| prefix.iter().find_map(|p| text.strip_prefix(p));
    let (radix, digits) = if let Some(digits) = prefixed(["0x", "0X"]) {
        (16, digits)
    } else if let Some(digits) = prefixed(["0o", "0O"]) {
        (8, digits)
    } else if let Some(digits) = prefixed(["0b", "0B"]) {
        (2, digits)
    } else if text.len() > 1 && text.starts_with('0') {
        // The zero stays: it is a digit, so that `0_7` is as good as `07`.
        (8, text)
    } else {
        (10, text)
    };
    // After a prefix a single underscore may stand first; it may never stand last or twice in a row.
    let first_may_be_underscore = digits.len() < text.len();
    let misplaced = digits.ends_with('_')
        || digits.contains("__")
        || (digits.starts_with('_') && !first_may_be_underscore);
    if misplaced || digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_range_edges() {
        for good in [64_512, 65_534, 65_535, 4_200_000_000, 4_294_967_294] {
            assert_eq!(Asn::local(good).map(Asn::get), Ok(good));
        }
        for bad in [1, 64_511, 65_536, 4_199_999_999, u32::MAX] {
            assert_eq!(Asn::local(bad), Err(AsnError::NotPrivate(bad)));
        }
        assert_eq!(Asn::local(0), Err(AsnError::Zero));
    }

    #[test]
    fn peer_range_edges() {
        for good in [1, 23_455, 23_457, 63_999, 64_512, 65_534, 131_072, 4_294_967_294] {
            assert_eq!(Asn::peer(good).map(Asn::get), Ok(good));
        }
        for bad in [23_456, 64_000, 64_511, 65_535, 65_536, 131_071, u32::MAX] {
            assert_eq!(Asn::peer(bad), Err(AsnError::NotAPeer(bad)));
        }
    }

    #[test]
    fn reads_go_notations() {
        assert_eq!("64512".parse(), Ok(Asn::DEFAULT));
        assert_eq!("0xfc00".parse(), Ok(Asn::DEFAULT));
        assert_eq!("0_7".parse(), Asn::new(7));
        assert_eq!("0x_f".parse(), Asn::new(15));
        for bad in ["", "-1", "65000 ", "4294967296", "1.5", "08", "0x+1"] {
            assert_eq!(bad.parse::<Asn>(), Err(AsnError::NotANumber), "{bad}");
        }
        assert_eq!("0".parse::<Asn>(), Err(AsnError::Zero));
    }
}

//! Communities: labels of a path that policies read and write (RFC 1997, RFC 8092).
//!
//! The names are the IANA registry's, in the spelling GoBGP reads, since annotations of nodes use them.

use std::fmt;
use std::str::FromStr;

/// A community: by convention an AS number in the upper 16 bits and that AS's own label in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Not to be told to external peers.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// Not to be told to any peer.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to be told outside of this member AS of a confederation; without confederations, as [`Self::NO_EXPORT`].
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

    /// The registered name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, value)| *value == self.0).map(|(name, _)| *name)
    }
}

/// Well-known communities.
const NAMES: [(&str, u32); 14] = [
    ("internet", 0),
    ("planned-shut", 0xffff_0000),
    ("accept-own", 0xffff_0001),
    ("route-filter-translated-v4", 0xffff_0002),
    ("route-filter-v4", 0xffff_0003),
    ("route-filter-translated-v6", 0xffff_0004),
    ("route-filter-v6", 0xffff_0005),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
    ("no-peer", 0xffff_ff04),
];

/// Why a text is not a community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a community: a number, two 16-bit numbers as in 64512:100, or a well-known name such as no-export"
)]
pub struct CommunityError;

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        if let Some((_, value)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Community(*value));
        }
        if let Some((upper, lower)) = text.split_once(':') {
            let upper: u16 = upper.parse().map_err(|_| CommunityError)?;
            let lower: u16 = lower.parse().map_err(|_| CommunityError)?;
            return Ok(Community(u32::from(upper) << 16 | u32::from(lower)));
        }
        text.parse().map(Community).map_err(|_| CommunityError)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

/// A large community (RFC 8092): a four-octet AS number and two labels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the labels their meaning.
    pub global: u32,
    /// First label.
    pub local1: u32,
    /// Second label.
    pub local2: u32,
}

/// Why a text is not a large community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a large community: three 32-bit numbers as in 64512:1:100")]
pub struct LargeCommunityError;

impl FromStr for LargeCommunity {
    type Err = LargeCommunityError;

    fn from_str(text: &str) -> Result<Self, LargeCommunityError> {
        let mut parts = text.split(':').map(|part| part.parse().map_err(|_| LargeCommunityError));
        let mut next = || parts.next().unwrap_or(Err(LargeCommunityError));
        let community = LargeCommunity { global: next()?, local1: next()?, local2: next()? };
        if parts.next().is_some() { Err(LargeCommunityError) } else { Ok(community) }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, value) in [("64512:100", 0xfc00_0064), ("no-export", 0xffff_ff01), ("0:1", 1)] {
            assert_eq!(text.parse(), Ok(Community(value)));
            assert_eq!(Community(value).to_string(), text);
        }
        assert_eq!("4227858532".parse(), Ok(Community(0xfc00_0064)));
        for bad in ["", "64512:65536", "64512:1:2", "nobody", "-1", "4294967296"] {
            assert_eq!(bad.parse::<Community>(), Err(CommunityError), "{bad}");
        }
        let large = LargeCommunity { global: 64_512, local1: 1, local2: 4_294_967_295 };
        assert_eq!(large.to_string().parse(), Ok(large));
        for bad in ["", "1:2", "1:2:3:4", "1:2:x"] {
            assert_eq!(bad.parse::<LargeCommunity>(), Err(LargeCommunityError), "{bad}");
        }
    }
}

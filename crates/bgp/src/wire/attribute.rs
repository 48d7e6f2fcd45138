//! Path attributes: where each begins and ends, what it says, and what follows from one that is malformed
//! (RFC 7606 section 7).
//!
//! The attribute block is cut here, by flags and lengths; a value is then read by `netgauze-bgp-pkt`. So one bad attribute
//! costs itself and no other.

use std::net::Ipv4Addr;

use netgauze_bgp_pkt::path_attribute as pkt;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::{ParseFromWithOneInput, ParseFromWithTwoInputs};

use super::notification::UpdateError;
use super::{Codec, multiprotocol};
use crate::as_path::{AsPath, Segment, SegmentKind};
use crate::attributes::{Origin, UnknownAttribute};
use crate::community::{Community, LargeCommunity};

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// Attribute type codes (IANA).
pub(super) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// What follows from an error, mildest first (RFC 7606 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The attribute is as if it had not been there.
    AttributeDiscard,
    /// The prefixes of the message are taken as withdrawn.
    TreatAsWithdraw,
    /// The session ends with a NOTIFICATION.
    SessionReset,
}

/// An error in a path attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Attribute type code; zero for the attribute list as a whole.
    pub attribute: u8,
    /// Subcode a NOTIFICATION about it has.
    pub error: UpdateError,
    /// What follows.
    pub outcome: Outcome,
}

/// One attribute of the list, unread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// Flags, code, length and value: what a NOTIFICATION quotes.
    pub(super) whole: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Cuts the first attribute off; `None` if the block ends before it does.
    pub(super) fn cut(block: &'a [u8]) -> Option<(Raw<'a>, &'a [u8])> {
        let (flags, code, length, rest) = match block {
            [flags, code, high, low, rest @ ..] if flags & EXTENDED_LENGTH != 0 => {
                (*flags, *code, usize::from(u16::from_be_bytes([*high, *low])), rest)
            }
            [flags, code, length, rest @ ..] if flags & EXTENDED_LENGTH == 0 => {
                (*flags, *code, usize::from(*length), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let whole = block.get(..block.len() - rest.len())?;
        Some((Raw { flags, code, value, whole }, rest))
    }

    const fn is_extended(&self) -> bool {
        self.flags & EXTENDED_LENGTH != 0
    }

    /// Reads the value with `parse`, which begins at the length field; nothing may be left over.
    fn read<T, E>(&self, parse: impl FnOnce(&mut SliceReader<'a>, bool) -> Result<T, E>) -> Option<T> {
        let mut reader = SliceReader::new(self.whole.get(2..)?);
        let value = parse(&mut reader, self.is_extended()).ok()?;
        reader.is_empty().then_some(value)
    }
}

/// The attributes of one UPDATE, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) origin: Option<Origin>,
    pub(super) as_path: Option<AsPath>,
    pub(super) as4_path: Option<AsPath>,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) med: Option<u32>,
    pub(super) local_pref: Option<u32>,
    pub(super) atomic_aggregate: bool,
    pub(super) aggregator: Option<(u32, Ipv4Addr)>,
    pub(super) as4_aggregator: Option<(u32, Ipv4Addr)>,
    pub(super) communities: Vec<Community>,
    pub(super) large_communities: Vec<LargeCommunity>,
    pub(super) originator_id: Option<Ipv4Addr>,
    pub(super) cluster_list: Vec<Ipv4Addr>,
    pub(super) unknown: Vec<UnknownAttribute>,
    pub(super) reach: Option<multiprotocol::Reach>,
    pub(super) unreach: Option<multiprotocol::Unreach>,
    /// There is an attribute besides MP_UNREACH_NLRI.
    pub(super) any_but_unreach: bool,
}

/// The flags an attribute must have, and what follows if its value is malformed.
struct Rule {
    flags: u8,
    outcome: Outcome,
    error: UpdateError,
}

const WELL_KNOWN: u8 = TRANSITIVE;
const NON_TRANSITIVE: u8 = OPTIONAL;

/// The table of RFC 7606 section 7, with RFC 6793 section 6 (AS4_*) and RFC 8092 section 5.
const fn rule(code: u8) -> Option<Rule> {
    use Outcome::{AttributeDiscard, SessionReset, TreatAsWithdraw};
    let (flags, outcome, error) = match code {
        code::ORIGIN => (WELL_KNOWN, TreatAsWithdraw, UpdateError::InvalidOrigin),
        code::AS_PATH => (WELL_KNOWN, TreatAsWithdraw, UpdateError::MalformedAsPath),
        code::NEXT_HOP => (WELL_KNOWN, TreatAsWithdraw, UpdateError::InvalidNextHop),
        code::MED => (NON_TRANSITIVE, TreatAsWithdraw, UpdateError::AttributeLength),
        code::LOCAL_PREF => (WELL_KNOWN, TreatAsWithdraw, UpdateError::AttributeLength),
        code::ATOMIC_AGGREGATE => (WELL_KNOWN, AttributeDiscard, UpdateError::AttributeLength),
        code::AGGREGATOR | code::AS4_AGGREGATOR | code::AS4_PATH => {
            (OPTIONAL | TRANSITIVE, AttributeDiscard, UpdateError::OptionalAttribute)
        }
        code::COMMUNITIES | code::EXTENDED_COMMUNITIES | code::LARGE_COMMUNITIES => {
            (OPTIONAL | TRANSITIVE, TreatAsWithdraw, UpdateError::OptionalAttribute)
        }
        code::ORIGINATOR_ID | code::CLUSTER_LIST => {
            (NON_TRANSITIVE, TreatAsWithdraw, UpdateError::OptionalAttribute)
        }
        code::MP_REACH | code::MP_UNREACH => (NON_TRANSITIVE, SessionReset, UpdateError::OptionalAttribute),
        _ => return None,
    };
    Some(Rule { flags, outcome, error })
}

impl Parts {
    /// Reads one attribute, the first of its code in this message.
    pub(super) fn take(&mut self, raw: &Raw<'_>, codec: &Codec) -> Result<(), Fault> {
        let fault = |error, outcome| Fault { attribute: raw.code, error, outcome };
        let Some(rule) = rule(raw.code) else {
            return self
                .take_unknown(raw)
                .ok_or_else(|| fault(UpdateError::UnrecognizedWellKnown, Outcome::SessionReset));
        };
        if raw.flags & (OPTIONAL | TRANSITIVE) != rule.flags {
            // RFC 7606 section 3 c. The prefixes are still read where they stand in the attribute itself.
            self.take_known(raw, codec).map_err(|error| fault(error.unwrap_or(rule.error), rule.outcome))?;
            return Err(fault(UpdateError::AttributeFlags, Outcome::TreatAsWithdraw));
        }
        self.take_known(raw, codec).map_err(|error| fault(error.unwrap_or(rule.error), rule.outcome))
    }

    /// Keeps an attribute without a rule, if it is to be passed on. `None` if it claims to be well-known.
    fn take_unknown(&mut self, raw: &Raw<'_>) -> Option<()> {
        if raw.flags & OPTIONAL == 0 {
            return None;
        }
        if raw.flags & TRANSITIVE != 0 {
            self.unknown.push(UnknownAttribute {
                flags: raw.flags & !EXTENDED_LENGTH,
                code: raw.code,
                value: raw.value.into(),
            });
        }
        Some(())
    }

    /// Reads an attribute that has a rule. The error is `None` where the rule's own subcode fits.
    fn take_known(&mut self, raw: &Raw<'_>, codec: &Codec) -> Result<(), Option<UpdateError>> {
        let length = raw.value.len();
        match raw.code {
            code::ORIGIN => self.origin = Some(origin(raw).ok_or(None)?),
            code::AS_PATH => self.as_path = Some(as_path(raw, codec.four_octet_asn).ok_or(None)?),
            code::NEXT_HOP => {
                let next_hop = raw.read(pkt::NextHop::parse);
                self.next_hop = Some(next_hop.ok_or(Some(UpdateError::AttributeLength))?.next_hop());
            }
            code::MED => {
                self.med = Some(raw.read(pkt::MultiExitDiscriminator::parse).ok_or(None)?.metric());
            }
            // Not for external peers to say (RFC 7606 sections 7.5, 7.9, 7.10).
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !codec.internal => {}
            code::LOCAL_PREF => {
                self.local_pref = Some(raw.read(pkt::LocalPreference::parse).ok_or(None)?.metric());
            }
            code::ATOMIC_AGGREGATE => {
                raw.read(pkt::AtomicAggregate::parse).ok_or(None)?;
                self.atomic_aggregate = true;
            }
            code::AGGREGATOR => {
                self.aggregator = Some(aggregator(raw, codec.four_octet_asn).ok_or(None)?);
            }
            // Only those with numbers of two octets have these to tell (RFC 6793 section 6).
            code::AS4_PATH | code::AS4_AGGREGATOR if codec.four_octet_asn => {}
            code::AS4_PATH => self.as4_path = Some(as4_path(raw).ok_or(None)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(raw, true).ok_or(None)?),
            code::COMMUNITIES if is_list(length, 4) => self.communities = communities(raw).ok_or(None)?,
            code::EXTENDED_COMMUNITIES if is_list(length, 8) => {
                self.take_unknown(raw);
            }
            code::LARGE_COMMUNITIES if is_list(length, 12) => {
                self.large_communities = large_communities(raw).ok_or(None)?;
            }
            code::ORIGINATOR_ID if length == 4 => {
                self.originator_id = Some(raw.read(pkt::Originator::parse).ok_or(None)?.id());
            }
            code::CLUSTER_LIST if is_list(length, 4) => {
                let list = raw.read(pkt::ClusterList::parse).ok_or(None)?;
                self.cluster_list = list.cluster_list().iter().map(|id| id.id()).collect();
            }
            code::MP_REACH => self.reach = multiprotocol::reach(raw.value, codec)?,
            code::MP_UNREACH => self.unreach = multiprotocol::unreach(raw.value, codec)?,
            _ => return Err(None),
        }
        Ok(())
    }
}

/// A list of items of `size` octets, not empty (RFC 7606 section 7.8 and its neighbours).
const fn is_list(length: usize, size: usize) -> bool {
    length != 0 && length.is_multiple_of(size)
}

fn origin(raw: &Raw<'_>) -> Option<Origin> {
    Some(match raw.read(pkt::Origin::parse)? {
        pkt::Origin::IGP => Origin::Igp,
        pkt::Origin::EGP => Origin::Egp,
        pkt::Origin::Incomplete => Origin::Incomplete,
    })
}

/// AS_PATH without a zero in it (RFC 7607).
fn as_path(raw: &Raw<'_>, four_octets: bool) -> Option<AsPath> {
    let path = match raw.read(|reader, extended| pkt::AsPath::parse(reader, extended, four_octets))? {
        pkt::AsPath::As2PathSegments(segments) => AsPath::new(segments.iter().map(|segment| Segment {
            kind: kind(segment.segment_type()),
            asns: segment.as_numbers().iter().copied().map(u32::from).collect(),
        })),
        pkt::AsPath::As4PathSegments(segments) => AsPath::of(segments.iter().map(four_octet_segment)),
    };
    (!path.contains(0)).then_some(path)
}

fn as4_path(raw: &Raw<'_>) -> Option<AsPath> {
    let path = AsPath::of(raw.read(pkt::As4Path::parse)?.segments().iter().map(four_octet_segment));
    (!path.contains(0)).then_some(path)
}

fn four_octet_segment(segment: &pkt::As4PathSegment) -> (SegmentKind, &[u32]) {
    (kind(segment.segment_type()), segment.as_numbers())
}

const fn kind(kind: pkt::AsPathSegmentType) -> SegmentKind {
    match kind {
        pkt::AsPathSegmentType::AsSet => SegmentKind::Set,
        pkt::AsPathSegmentType::AsSequence => SegmentKind::Sequence,
    }
}

fn aggregator(raw: &Raw<'_>, four_octets: bool) -> Option<(u32, Ipv4Addr)> {
    let (asn, id) = if four_octets {
        let aggregator = raw.read(pkt::As4Aggregator::parse)?;
        (*aggregator.asn(), aggregator.origin())
    } else {
        let aggregator = raw.read(pkt::As2Aggregator::parse)?;
        (u32::from(*aggregator.asn()), aggregator.origin())
    };
    (asn != 0).then_some((asn, id))
}

fn communities(raw: &Raw<'_>) -> Option<Vec<Community>> {
    let list = raw.read(pkt::Communities::parse)?;
    Some(list.communities().iter().map(|community| Community(community.value())).collect())
}

fn large_communities(raw: &Raw<'_>) -> Option<Vec<LargeCommunity>> {
    let list = raw.read(pkt::LargeCommunities::parse)?;
    let ours = list.communities().iter().map(|community| LargeCommunity {
        global: community.global_admin(),
        local1: community.local_data1(),
        local2: community.local_data2(),
    });
    Some(ours.collect())
}

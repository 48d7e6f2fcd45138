//! UPDATEs for a peer: as many messages as the prefixes take, none of them longer than a message may be.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netgauze_bgp_pkt::community as pkt_community;
use netgauze_bgp_pkt::path_attribute as pkt;
use netgauze_parse_utils::WritablePduWithOneInput;

use super::attribute::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, code};
use super::{AS_TRANS, Codec, HEADER, Kind, MESSAGE_MAX, message, multiprotocol, patch_length, prefix};
use crate::as_path::{AsPath, SegmentKind};
use crate::attributes::{Attributes, NextHop, Origin};
use crate::family::Family;
use crate::update::Update;

/// What most attribute blocks have room in.
const ROOM: usize = 128;

/// Why paths cannot be told to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes alone leave no room for a prefix (RFC 4271 section 9.2: not advertised, reported).
    #[error("attributes of {0} octets do not fit into a message")]
    TooLong(usize),
    /// The next hop is of a kind the peer does not take for this family.
    #[error("next hop {0} cannot be told for {1}")]
    NextHop(IpAddr, Family),
    /// The codec refused a value.
    #[error("attribute {0} could not be written")]
    Attribute(u8),
}

/// Appends an update, in as many messages as it takes. O(prefixes).
///
/// # Errors
/// Nothing was appended.
pub fn encode_update(update: &Update, codec: &Codec, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match update {
        Update::Reach { family, attributes, prefixes } => {
            encode_reach(*family, attributes, prefixes, codec, out)?;
        }
        Update::Unreach { family, prefixes } => {
            let mut rest = prefixes.as_slice();
            while !rest.is_empty() {
                rest = withdraw(*family, rest, out);
            }
        }
        // A withdrawal of nothing.
        Update::EndOfRib(family) => {
            withdraw(*family, &[], out);
        }
    }
    Ok(())
}

fn encode_reach(
    family: Family,
    attributes: &Attributes,
    prefixes: &[IpNet],
    codec: &Codec,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let next_hop = &attributes.next_hop;
    let allowed = match (family, next_hop.global) {
        (Family::Ipv4Unicast, IpAddr::V4(_)) | (Family::Ipv6Unicast, IpAddr::V6(_)) => true,
        (Family::Ipv4Unicast, IpAddr::V6(_)) => codec.extended_next_hop.contains(family),
        (Family::Ipv6Unicast, IpAddr::V4(_)) => false,
    };
    if !allowed {
        return Err(EncodeError::NextHop(next_hop.global, family));
    }
    let classic = match (family, next_hop.global) {
        (Family::Ipv4Unicast, IpAddr::V4(next_hop)) => Some(next_hop),
        _ => None,
    };
    let block = encode_attributes(attributes, classic, codec)?;
    let head = if classic.is_some() { Vec::new() } else { reach_head(family, next_hop) };
    // Flags, code and length of MP_REACH_NLRI take four octets.
    let taken = HEADER + 4 + block.len() + if classic.is_some() { 0 } else { 4 + head.len() };
    // Room for the longest prefix, or there is no progress.
    let room = MESSAGE_MAX.checked_sub(taken).filter(|room| *room >= 17);
    let room = room.ok_or(EncodeError::TooLong(block.len()))?;
    let mut rest = prefixes;
    while !rest.is_empty() {
        message(out, Kind::Update, |out| {
            out.extend_from_slice(&[0, 0]);
            counted(out, |out| {
                if classic.is_none() {
                    rest = multiprotocol_attribute(code::MP_REACH, &head, rest, room, out);
                }
                out.extend_from_slice(&block);
            });
            if classic.is_some() {
                rest = prefix::encode_some(rest, room, out);
            }
        });
    }
    Ok(())
}

fn reach_head(family: Family, next_hop: &NextHop) -> Vec<u8> {
    let mut head = Vec::new();
    multiprotocol::encode_reach(family, next_hop, &mut head);
    head
}

/// Appends one message that withdraws as many of the prefixes as it holds; gives back the others.
fn withdraw<'a>(family: Family, prefixes: &'a [IpNet], out: &mut Vec<u8>) -> &'a [IpNet] {
    let mut rest = prefixes;
    message(out, Kind::Update, |out| {
        if family == Family::Ipv4Unicast {
            counted(out, |out| rest = prefix::encode_some(prefixes, MESSAGE_MAX - HEADER - 4, out));
            out.extend_from_slice(&[0, 0]);
        } else {
            let mut head = Vec::new();
            multiprotocol::encode_unreach(family, &mut head);
            let room = MESSAGE_MAX - HEADER - 4 - 4 - head.len();
            out.extend_from_slice(&[0, 0]);
            counted(out, |out| {
                rest = multiprotocol_attribute(code::MP_UNREACH, &head, prefixes, room, out);
            });
        }
    });
    rest
}

/// Appends what `write` appends, and before it, in two octets, its length.
fn counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let length = out.len() - at - 2;
    patch_length(out, at, length);
}

/// A multiprotocol attribute, its length in two octets, with as many of the prefixes as there is room for; gives back the
/// others.
fn multiprotocol_attribute<'a>(
    code: u8,
    head: &[u8],
    prefixes: &'a [IpNet],
    room: usize,
    out: &mut Vec<u8>,
) -> &'a [IpNet] {
    let mut rest = prefixes;
    out.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, code]);
    counted(out, |out| {
        out.extend_from_slice(head);
        rest = prefix::encode_some(prefixes, room, out);
    });
    rest
}

/// All attributes but the multiprotocol ones, in the order of their codes.
fn encode_attributes(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    codec: &Codec,
) -> Result<Vec<u8>, EncodeError> {
    let mut block = Block(Vec::with_capacity(ROOM));
    let both = OPTIONAL | TRANSITIVE;
    block.put(TRANSITIVE, code::ORIGIN, &origin(attributes.origin))?;
    let (as_path, as4_path) = as_paths(&attributes.as_path, codec.four_octet_asn);
    block.put(TRANSITIVE, code::AS_PATH, &as_path)?;
    if let Some(next_hop) = next_hop {
        block.put(TRANSITIVE, code::NEXT_HOP, &pkt::NextHop::new(next_hop))?;
    }
    if let Some(med) = attributes.med {
        block.put(OPTIONAL, code::MED, &pkt::MultiExitDiscriminator::new(med))?;
    }
    if let Some(preference) = attributes.local_pref.filter(|_| codec.internal) {
        block.put(TRANSITIVE, code::LOCAL_PREF, &pkt::LocalPreference::new(preference))?;
    }
    if attributes.atomic_aggregate {
        block.put(TRANSITIVE, code::ATOMIC_AGGREGATE, &pkt::AtomicAggregate)?;
    }
    let as4_aggregator = encode_aggregator(&mut block, attributes, codec)?;
    if !attributes.communities.is_empty() {
        let list: Vec<_> = attributes
            .communities
            .iter()
            .map(|community| pkt_community::Community::new(community.0))
            .collect();
        block.put(both, code::COMMUNITIES, &pkt::Communities::new(list))?;
    }
    if codec.internal {
        if let Some(id) = attributes.originator_id {
            block.put(OPTIONAL, code::ORIGINATOR_ID, &pkt::Originator::new(id))?;
        }
        if !attributes.cluster_list.is_empty() {
            let list: Vec<_> = attributes.cluster_list.iter().map(|id| pkt::ClusterId::new(*id)).collect();
            block.put(OPTIONAL, code::CLUSTER_LIST, &pkt::ClusterList::new(list))?;
        }
    }
    let after_large = |code: u8| code > code::LARGE_COMMUNITIES;
    block.put_unknown(attributes, |code| code < code::AS4_PATH);
    if let Some(as4_path) = as4_path {
        block.put(both, code::AS4_PATH, &as4_path)?;
    }
    if let Some(as4_aggregator) = as4_aggregator {
        block.put(both, code::AS4_AGGREGATOR, &as4_aggregator)?;
    }
    block.put_unknown(attributes, |code| code >= code::AS4_PATH && !after_large(code));
    if !attributes.large_communities.is_empty() {
        let large = attributes.large_communities.iter();
        let list: Vec<_> =
            large.map(|c| pkt_community::LargeCommunity::new(c.global, c.local1, c.local2)).collect();
        block.put(both, code::LARGE_COMMUNITIES, &pkt::LargeCommunities::new(list))?;
    }
    block.put_unknown(attributes, after_large);
    Ok(block.0)
}

/// Writes AGGREGATOR; gives back what AS4_AGGREGATOR has to say beside it.
fn encode_aggregator(
    block: &mut Block,
    attributes: &Attributes,
    codec: &Codec,
) -> Result<Option<pkt::As4Aggregator>, EncodeError> {
    let Some((asn, id)) = attributes.aggregator else { return Ok(None) };
    let four = pkt::As4Aggregator::new(asn, id);
    if codec.four_octet_asn {
        block.put(OPTIONAL | TRANSITIVE, code::AGGREGATOR, &four)?;
        return Ok(None);
    }
    let two = u16::try_from(asn);
    let aggregator = pkt::As2Aggregator::new(two.unwrap_or(AS_TRANS), id);
    block.put(OPTIONAL | TRANSITIVE, code::AGGREGATOR, &aggregator)?;
    Ok(two.is_err().then_some(four))
}

const fn origin(origin: Origin) -> pkt::Origin {
    match origin {
        Origin::Igp => pkt::Origin::IGP,
        Origin::Egp => pkt::Origin::EGP,
        Origin::Incomplete => pkt::Origin::Incomplete,
    }
}

/// AS_PATH, and AS4_PATH where two octets do not hold it. Confederation segments stay at home: we are in none, and nobody
/// outside of one takes them (RFC 5065 section 5.3).
fn as_paths(path: &AsPath, four_octets: bool) -> (pkt::AsPath, Option<pkt::As4Path>) {
    let segments = || {
        path.segments().filter_map(|(kind, asns)| match kind {
            SegmentKind::Sequence => Some((pkt::AsPathSegmentType::AsSequence, asns)),
            SegmentKind::Set => Some((pkt::AsPathSegmentType::AsSet, asns)),
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => None,
        })
    };
    let wide: Vec<_> = segments().map(|(kind, asns)| pkt::As4PathSegment::new(kind, asns)).collect();
    if four_octets {
        return (pkt::AsPath::as4_path_segments(wide), None);
    }
    let narrow = |asn: &u32| u16::try_from(*asn).unwrap_or(AS_TRANS);
    let two: Vec<_> = segments()
        .map(|(kind, asns)| pkt::As2PathSegment::new(kind, asns.iter().map(narrow).collect::<Vec<_>>()))
        .collect();
    let needs_more = segments().any(|(_, asns)| asns.iter().any(|asn| *asn > u32::from(u16::MAX)));
    (pkt::AsPath::as2_path_segments(two), needs_more.then(|| pkt::As4Path::new(wide)))
}

/// An attribute block in the making.
struct Block(Vec<u8>);

impl Block {
    fn put<E>(
        &mut self,
        flags: u8,
        code: u8,
        value: &impl WritablePduWithOneInput<bool, E>,
    ) -> Result<(), EncodeError> {
        let extended = value.len(false) > usize::from(u8::MAX) + 1;
        if value.len(true) > MESSAGE_MAX {
            return Err(EncodeError::TooLong(value.len(true)));
        }
        let flags = if extended { flags | EXTENDED_LENGTH } else { flags };
        self.0.extend_from_slice(&[flags, code]);
        value.write(&mut self.0, extended).map_err(|_| EncodeError::Attribute(code))
    }

    /// Passes on attributes nobody here reads. Those that we do not know at all are marked as such (RFC 4271 section 9).
    fn put_unknown(&mut self, attributes: &Attributes, which: impl Fn(u8) -> bool) {
        for attribute in attributes.unknown.iter().filter(|attribute| which(attribute.code)) {
            let partial = if attribute.code == code::EXTENDED_COMMUNITIES { 0 } else { PARTIAL };
            let flags = (attribute.flags | partial) & !EXTENDED_LENGTH;
            let length = attribute.value.len();
            match u8::try_from(length) {
                Ok(length) => self.0.extend_from_slice(&[flags, attribute.code, length]),
                Err(_) => {
                    let at = self.0.len() + 2;
                    self.0.extend_from_slice(&[flags | EXTENDED_LENGTH, attribute.code, 0, 0]);
                    patch_length(&mut self.0, at, length);
                }
            }
            self.0.extend_from_slice(&attribute.value);
        }
    }
}

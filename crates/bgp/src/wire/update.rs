//! UPDATE: which prefixes are reachable, how, and which no longer are (RFC 4271 section 4.3).
//!
//! Decided here: the one outcome of everything that can be wrong with the message (RFC 7606 sections 3 to 5). What is wrong
//! with a single attribute is decided in `attribute`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::attribute::{Fault, Outcome, Parts, Raw, code};
use super::notification::{Notification, UpdateError};
use super::{Codec, merge, prefix};
use crate::attributes::{Attributes, NextHop};
use crate::family::Family;
use crate::update::Update;

/// What an UPDATE came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Withdrawals first: a prefix that is withdrawn and announced in one message is announced.
    pub updates: Vec<Update>,
    /// What was wrong with it and could be borne.
    pub faults: Vec<Fault>,
}

/// Reads the body.
///
/// # Errors
/// The NOTIFICATION due, where the session cannot go on.
pub fn decode(body: &[u8], codec: &Codec) -> Result<Received, Notification> {
    let (withdrawn, block, nlri) =
        split(body).ok_or_else(|| Notification::new(UpdateError::MalformedAttributeList))?;
    if body.len() == 4 {
        // Nothing at all is the end of the initial table (RFC 4724 section 2).
        return Ok(Received { updates: end_of_rib(Family::Ipv4Unicast, codec), faults: Vec::new() });
    }
    let unreadable = |_| Notification::new(UpdateError::InvalidNetworkField);
    let withdrawn = prefix::decode(withdrawn, Family::Ipv4Unicast).map_err(unreadable)?;
    let nlri = prefix::decode(nlri, Family::Ipv4Unicast).map_err(unreadable)?;
    let (mut parts, mut faults) = attributes(block, codec)?;
    missing(&parts, &nlri, &mut faults);
    let worst = faults.iter().max_by_key(|fault| fault.outcome);
    let treat_as_withdraw = worst.is_some_and(|fault| fault.outcome == Outcome::TreatAsWithdraw);
    if let Some(fault) = worst
        && treat_as_withdraw
        && nlri.is_empty()
        && parts.reach.is_none()
        && parts.any_but_unreach
    {
        // There is nothing to withdraw, so what the peer meant cannot be known (RFC 7606 section 5.2).
        return Err(Notification::new(fault.error));
    }
    let classic = codec.families.contains(Family::Ipv4Unicast);
    let mut updates = Vec::new();
    push_unreach(&mut updates, Family::Ipv4Unicast, if classic { withdrawn } else { Vec::new() });
    if let Some(unreach) = parts.unreach.take() {
        match unreach.prefixes.is_empty() && !parts.any_but_unreach && updates.is_empty() {
            true => updates.extend(end_of_rib(unreach.family, codec)),
            false => push_unreach(&mut updates, unreach.family, unreach.prefixes),
        }
    }
    let nlri = if classic { nlri } else { Vec::new() };
    if treat_as_withdraw {
        push_unreach(&mut updates, Family::Ipv4Unicast, nlri);
        if let Some(reach) = parts.reach.take() {
            push_unreach(&mut updates, reach.family, reach.prefixes);
        }
    } else {
        push_reach(&mut updates, parts, nlri);
    }
    Ok(Received { updates, faults })
}

/// Withdrawn prefixes, attributes and announced prefixes; `None` if their lengths do not add up.
fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let (withdrawn, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (block, nlri) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((withdrawn, block, nlri))
}

fn end_of_rib(family: Family, codec: &Codec) -> Vec<Update> {
    codec.families.contains(family).then_some(Update::EndOfRib(family)).into_iter().collect()
}

/// Reads the attribute block, each code once.
fn attributes(mut block: &[u8], codec: &Codec) -> Result<(Parts, Vec<Fault>), Notification> {
    let mut parts = Parts::default();
    let mut faults = Vec::new();
    let mut seen = [false; 256];
    while !block.is_empty() {
        let Some((raw, rest)) = Raw::cut(block) else {
            // The list runs over its end; where the prefixes begin is still known (RFC 7606 section 4).
            parts.any_but_unreach = true;
            faults.push(Fault {
                attribute: 0,
                error: UpdateError::MalformedAttributeList,
                outcome: Outcome::TreatAsWithdraw,
            });
            break;
        };
        block = rest;
        parts.any_but_unreach |= raw.code != code::MP_UNREACH;
        if let Some(seen) = seen.get_mut(usize::from(raw.code))
            && std::mem::replace(seen, true)
        {
            repeated(&raw, &mut faults)?;
            continue;
        }
        if let Err(fault) = parts.take(&raw, codec) {
            if fault.outcome == Outcome::SessionReset {
                return Err(Notification::with(fault.error, raw.whole));
            }
            faults.push(fault);
        }
    }
    if !codec.four_octet_asn {
        merge::four_octet_numbers(&mut parts);
    }
    Ok((parts, faults))
}

/// A code that came before: the first counts, but for prefixes (RFC 7606 section 3 g).
fn repeated(raw: &Raw<'_>, faults: &mut Vec<Fault>) -> Result<(), Notification> {
    if matches!(raw.code, code::MP_REACH | code::MP_UNREACH) {
        return Err(Notification::new(UpdateError::MalformedAttributeList));
    }
    faults.push(Fault {
        attribute: raw.code,
        error: UpdateError::MalformedAttributeList,
        outcome: Outcome::AttributeDiscard,
    });
    Ok(())
}

/// What reachable prefixes cannot be without (RFC 4271 section 5, RFC 7606 section 3 d).
fn missing(parts: &Parts, nlri: &[IpNet], faults: &mut Vec<Fault>) {
    let reaches_more = parts.reach.as_ref().is_some_and(|reach| !reach.prefixes.is_empty());
    let reaches = !nlri.is_empty() || reaches_more;
    let lacks = [
        (code::ORIGIN, reaches && parts.origin.is_none()),
        (code::AS_PATH, reaches && parts.as_path.is_none()),
        (code::NEXT_HOP, !nlri.is_empty() && parts.next_hop.is_none()),
    ];
    for (attribute, lacking) in lacks {
        // One that is there but malformed has been reported already.
        if lacking && !faults.iter().any(|fault| fault.attribute == attribute) {
            faults.push(Fault {
                attribute,
                error: UpdateError::MissingWellKnown,
                outcome: Outcome::TreatAsWithdraw,
            });
        }
    }
}

fn push_unreach(updates: &mut Vec<Update>, family: Family, prefixes: Vec<IpNet>) {
    if !prefixes.is_empty() {
        updates.push(Update::Unreach { family, prefixes });
    }
}

/// Turns what has been read into paths: one set of attributes for each next hop.
fn push_reach(updates: &mut Vec<Update>, mut parts: Parts, nlri: Vec<IpNet>) {
    let reach = parts.reach.take();
    let classic = parts.next_hop.map(|next_hop| NextHop::from(IpAddr::from(next_hop)));
    let (Some(origin), Some(as_path)) = (parts.origin, parts.as_path) else { return };
    let mut attributes = Attributes {
        origin,
        as_path,
        next_hop: NextHop::from(IpAddr::from([0, 0, 0, 0])),
        med: parts.med,
        local_pref: parts.local_pref,
        atomic_aggregate: parts.atomic_aggregate,
        aggregator: parts.aggregator,
        communities: parts.communities,
        large_communities: parts.large_communities,
        originator_id: parts.originator_id,
        cluster_list: parts.cluster_list.into(),
        unknown: parts.unknown.into(),
    };
    attributes.normalize();
    let classic = classic.map(|next_hop| (Family::Ipv4Unicast, next_hop, nlri));
    let others = reach.map(|reach| (reach.family, reach.next_hop, reach.prefixes));
    let mut groups =
        classic.into_iter().chain(others).filter(|(_, _, prefixes)| !prefixes.is_empty()).peekable();
    while let Some((family, next_hop, prefixes)) = groups.next() {
        // The last group, most often the only one, takes them without a copy.
        let attributes = match groups.peek() {
            Some(_) => attributes.clone(),
            None => std::mem::replace(&mut attributes, Attributes::local(next_hop)),
        };
        let attributes = Arc::new(Attributes { next_hop, ..attributes });
        updates.push(Update::Reach { family, attributes, prefixes });
    }
}

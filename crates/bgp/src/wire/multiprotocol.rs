//! MP_REACH_NLRI and MP_UNREACH_NLRI: prefixes of any family (RFC 4760), IPv6 next hops (RFC 2545), and IPv4 prefixes over
//! IPv6 next hops (RFC 8950).
//!
//! Faults here reset the session (RFC 7606 section 7.11): whose prefixes they are cannot be known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::notification::UpdateError;
use super::{Codec, prefix};
use crate::attributes::NextHop;
use crate::family::Family;

/// What MP_REACH_NLRI says about a family of the session.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) family: Family,
    pub(super) next_hop: NextHop,
    pub(super) prefixes: Vec<IpNet>,
}

/// What MP_UNREACH_NLRI says about a family of the session.
#[derive(Debug)]
pub(super) struct Unreach {
    pub(super) family: Family,
    pub(super) prefixes: Vec<IpNet>,
}

/// Reads MP_REACH_NLRI; `None` for a family that is not of this session.
pub(super) fn reach(value: &[u8], codec: &Codec) -> Result<Option<Reach>, UpdateError> {
    let [high, low, safi, length, rest @ ..] = value else { return Err(UpdateError::OptionalAttribute) };
    let Some(family) = of_session([*high, *low], *safi, codec) else { return Ok(None) };
    let (next_hop, rest) =
        rest.split_at_checked(usize::from(*length)).ok_or(UpdateError::OptionalAttribute)?;
    let next_hop = read_next_hop(next_hop, family, codec).ok_or(UpdateError::OptionalAttribute)?;
    // One reserved octet, once the number of SNPAs.
    let (_, prefixes) = rest.split_first().ok_or(UpdateError::OptionalAttribute)?;
    let prefixes = prefix::decode(prefixes, family).map_err(|_| UpdateError::OptionalAttribute)?;
    Ok(Some(Reach { family, next_hop, prefixes }))
}

/// Reads MP_UNREACH_NLRI; `None` for a family that is not of this session.
pub(super) fn unreach(value: &[u8], codec: &Codec) -> Result<Option<Unreach>, UpdateError> {
    let [high, low, safi, prefixes @ ..] = value else { return Err(UpdateError::OptionalAttribute) };
    let Some(family) = of_session([*high, *low], *safi, codec) else { return Ok(None) };
    let prefixes = prefix::decode(prefixes, family).map_err(|_| UpdateError::OptionalAttribute)?;
    Ok(Some(Unreach { family, prefixes }))
}

fn of_session(afi: [u8; 2], safi: u8, codec: &Codec) -> Option<Family> {
    Family::from_wire(u16::from_be_bytes(afi), safi).filter(|family| codec.families.contains(*family))
}

fn read_next_hop(octets: &[u8], family: Family, codec: &Codec) -> Option<NextHop> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return (family == Family::Ipv4Unicast).then(|| IpAddr::from(Ipv4Addr::from(octets)).into());
    }
    if family == Family::Ipv4Unicast && !codec.extended_next_hop.contains(family) {
        return None;
    }
    let (global, rest) = octets.split_first_chunk::<16>()?;
    let global = Ipv6Addr::from(*global);
    match rest {
        [] => Some(IpAddr::from(global).into()),
        _ => {
            let link_local = Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?);
            // Some speakers fill the second place whatever they have.
            let link_local = link_local.is_unicast_link_local().then_some(link_local);
            Some(NextHop { global: global.into(), link_local })
        }
    }
}

/// Appends the value of MP_REACH_NLRI up to the prefixes.
pub(super) fn encode_reach(family: Family, next_hop: &NextHop, out: &mut Vec<u8>) {
    out.extend_from_slice(&family.afi().to_be_bytes());
    out.push(family.safi());
    match (next_hop.global, next_hop.link_local) {
        (IpAddr::V4(global), _) => {
            out.push(4);
            out.extend_from_slice(&global.octets());
        }
        (IpAddr::V6(global), None) => {
            out.push(16);
            out.extend_from_slice(&global.octets());
        }
        (IpAddr::V6(global), Some(link_local)) => {
            out.push(32);
            out.extend_from_slice(&global.octets());
            out.extend_from_slice(&link_local.octets());
        }
    }
    out.push(0);
}

/// Appends the value of MP_UNREACH_NLRI up to the prefixes.
pub(super) fn encode_unreach(family: Family, out: &mut Vec<u8>) {
    out.extend_from_slice(&family.afi().to_be_bytes());
    out.push(family.safi());
}

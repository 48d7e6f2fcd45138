//! OPEN: who a speaker is and what it can do (RFC 4271 section 4.2, RFC 5492).
//!
//! A capability that is unknown or malformed is as if it had not been sent (RFC 5492 section 3): a peer with news we do
//! not know must still be a peer. Only what the message says is judged here, not whether we like it.

use std::net::Ipv4Addr;

use super::notification::OpenError;
use super::{AS_TRANS, Kind, Notification, message};
use crate::families::Families;
use crate::family::Family;

const VERSION: u8 = 4;
/// Optional parameter that holds capabilities (RFC 5492).
const CAPABILITIES: u8 = 2;
/// Instead of a length: parameters have lengths of two octets (RFC 9072).
const EXTENDED: u8 = 255;

/// Capability codes (IANA).
mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_ASN: u8 = 65;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
}

/// An OPEN, version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number; of the four-octet capability where there is one. Not zero.
    pub asn: u32,
    /// Hold time in seconds: zero or at least three.
    pub hold_time: u16,
    /// The sender's router id; not zero.
    pub router_id: Ipv4Addr,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What a speaker can do, as far as we know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families it carries (RFC 4760). One that says nothing carries IPv4.
    pub families: Families,
    /// It answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// It marks where the answer begins and ends (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// It knows AS numbers of four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// Families of IPv4 prefixes it takes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: Families,
    /// It restarts gracefully (RFC 4724).
    pub graceful_restart: Option<RestartCapability>,
}

/// Graceful restart as it stands in an OPEN (RFC 4724 section 3, RFC 8538 section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartCapability {
    /// R bit.
    pub restarting: bool,
    /// N bit.
    pub notification: bool,
    /// Seconds, at most 4095.
    pub restart_time: u16,
    /// Families listed.
    pub families: Families,
    /// Of these, the ones with the F bit.
    pub forwarding_kept: Families,
}

impl Open {
    /// Reads the body, which has ten octets at least.
    ///
    /// # Errors
    /// The NOTIFICATION due (RFC 4271 section 6.2).
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        let unspecific = || Notification::new(OpenError::Unspecific);
        let ([version, asn @ .., h1, h2, i1, i2, i3, i4], rest) =
            body.split_first_chunk::<9>().ok_or_else(unspecific)?;
        if *version != VERSION {
            return Err(Notification::with(OpenError::UnsupportedVersion, [0, VERSION]));
        }
        let hold_time = u16::from_be_bytes([*h1, *h2]);
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::with(OpenError::UnacceptableHoldTime, hold_time.to_be_bytes()));
        }
        let router_id = Ipv4Addr::new(*i1, *i2, *i3, *i4);
        if router_id.is_unspecified() {
            return Err(Notification::with(OpenError::BadIdentifier, router_id.octets()));
        }
        let mut found = Found::default();
        for (kind, value) in parameters(rest)? {
            if kind != CAPABILITIES {
                return Err(Notification::with(OpenError::UnsupportedOptionalParameter, [kind]));
            }
            found.read(value).ok_or_else(unspecific)?;
        }
        let asn = found.asn.unwrap_or_else(|| u16::from_be_bytes(*asn).into());
        if asn == 0 {
            return Err(Notification::new(OpenError::BadPeerAs));
        }
        Ok(Open { asn, hold_time, router_id, capabilities: found.finished() })
    }

    /// Appends the message: all capabilities in one parameter, in the order of their codes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let capabilities = self.capability_octets();
        // Six capabilities of two families each: far below what the two lengths can say.
        let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX - 2);
        message(out, Kind::Open, |out| {
            out.push(VERSION);
            out.extend_from_slice(&u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
            out.extend_from_slice(&self.hold_time.to_be_bytes());
            out.extend_from_slice(&self.router_id.octets());
            if capabilities.is_empty() {
                out.push(0);
            } else {
                out.extend_from_slice(&[length + 2, CAPABILITIES, length]);
                out.extend_from_slice(&capabilities);
            }
        });
    }

    fn capability_octets(&self) -> Vec<u8> {
        let can = &self.capabilities;
        let mut out = Vec::new();
        for family in can.families.iter() {
            let [high, low] = family.afi().to_be_bytes();
            out.extend_from_slice(&[code::MULTIPROTOCOL, 4, high, low, 0, family.safi()]);
        }
        if can.route_refresh {
            out.extend_from_slice(&[code::ROUTE_REFRESH, 0]);
        }
        let over_ipv6 = can.extended_next_hop.iter().flat_map(|family| {
            let [high, low] = family.afi().to_be_bytes();
            [high, low, 0, family.safi(), 0, 2]
        });
        capability(&mut out, code::EXTENDED_NEXT_HOP, over_ipv6.collect());
        if let Some(restart) = &can.graceful_restart {
            let flags = u16::from(restart.restarting) << 15 | u16::from(restart.notification) << 14;
            let mut value = (flags | restart.restart_time.min(0x0fff)).to_be_bytes().to_vec();
            for family in restart.families.iter() {
                let [high, low] = family.afi().to_be_bytes();
                let kept = u8::from(restart.forwarding_kept.contains(family)) << 7;
                value.extend_from_slice(&[high, low, family.safi(), kept]);
            }
            capability(&mut out, code::GRACEFUL_RESTART, value);
        }
        if can.four_octet_asn {
            capability(&mut out, code::FOUR_OCTET_ASN, self.asn.to_be_bytes().to_vec());
        }
        if can.enhanced_route_refresh {
            out.extend_from_slice(&[code::ENHANCED_ROUTE_REFRESH, 0]);
        }
        out
    }
}

/// Appends a capability, unless it would say nothing.
fn capability(out: &mut Vec<u8>, code: u8, value: Vec<u8>) {
    if !value.is_empty() {
        out.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(&value);
    }
}

/// Splits the optional parameters; in the extended form where the length field says so.
fn parameters(octets: &[u8]) -> Result<Vec<(u8, &[u8])>, Notification> {
    let unspecific = || Notification::new(OpenError::Unspecific);
    let (mut rest, wide) = match octets {
        [EXTENDED, EXTENDED, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            (rest.get(..length).ok_or_else(unspecific)?, true)
        }
        [length, rest @ ..] => (rest.get(..usize::from(*length)).ok_or_else(unspecific)?, false),
        [] => return Err(unspecific()),
    };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (kind, length, after) = match rest {
            [kind, high, low, after @ ..] if wide => {
                (*kind, usize::from(u16::from_be_bytes([*high, *low])), after)
            }
            [kind, length, after @ ..] if !wide => (*kind, usize::from(*length), after),
            _ => return Err(unspecific()),
        };
        let (value, after) = after.split_at_checked(length).ok_or_else(unspecific)?;
        found.push((kind, value));
        rest = after;
    }
    Ok(found)
}

/// Capabilities gathered so far.
#[derive(Default)]
struct Found {
    can: Capabilities,
    multiprotocol: bool,
    asn: Option<u32>,
}

impl Found {
    /// Reads the capabilities of one parameter. `None` if their lengths do not add up.
    fn read(&mut self, mut octets: &[u8]) -> Option<()> {
        while !octets.is_empty() {
            let [code, length, rest @ ..] = octets else { return None };
            let (value, rest) = rest.split_at_checked(usize::from(*length))?;
            octets = rest;
            self.take(*code, value);
        }
        Some(())
    }

    fn take(&mut self, code: u8, value: &[u8]) {
        match (code, value) {
            (code::MULTIPROTOCOL, [high, low, _, safi]) => {
                self.multiprotocol = true;
                let family = Family::from_wire(u16::from_be_bytes([*high, *low]), *safi);
                self.can.families = self.can.families.iter().chain(family).collect();
            }
            (code::ROUTE_REFRESH, []) => self.can.route_refresh = true,
            (code::ENHANCED_ROUTE_REFRESH, []) => self.can.enhanced_route_refresh = true,
            (code::EXTENDED_NEXT_HOP, tuples) => {
                self.can.extended_next_hop = tuples.chunks_exact(6).filter_map(over_ipv6).collect();
            }
            (code::GRACEFUL_RESTART, [high, low, tuples @ ..]) => {
                self.can.graceful_restart = Some(restart(u16::from_be_bytes([*high, *low]), tuples));
            }
            (code::FOUR_OCTET_ASN, value) => {
                if let Ok(asn) = value.try_into() {
                    self.can.four_octet_asn = true;
                    self.asn = Some(u32::from_be_bytes(asn));
                }
            }
            _ => {}
        }
    }

    fn finished(mut self) -> Capabilities {
        if !self.multiprotocol {
            self.can.families.insert(Family::Ipv4Unicast);
        }
        self.can
    }
}

/// An IPv4 family whose next hop may be an IPv6 address.
fn over_ipv6(tuple: &[u8]) -> Option<Family> {
    match tuple {
        [high, low, 0, safi, 0, 2] => Family::from_wire(u16::from_be_bytes([*high, *low]), *safi)
            .filter(|family| *family == Family::Ipv4Unicast),
        _ => None,
    }
}

fn restart(header: u16, tuples: &[u8]) -> RestartCapability {
    let mut capability = RestartCapability {
        restarting: header & 0x8000 != 0,
        notification: header & 0x4000 != 0,
        restart_time: header & 0x0fff,
        ..RestartCapability::default()
    };
    for tuple in tuples.chunks_exact(4) {
        if let [high, low, safi, flags] = tuple
            && let Some(family) = Family::from_wire(u16::from_be_bytes([*high, *low]), *safi)
        {
            capability.families.insert(family);
            if flags & 0x80 != 0 {
                capability.forwarding_kept.insert(family);
            }
        }
    }
    capability
}

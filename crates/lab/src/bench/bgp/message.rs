//! The few octets of BGP that senders and observers need (RFC 4271 section 4), written by hand: what judges a speaker
//! shares no code with it.

use std::net::Ipv4Addr;

/// Octets of a header.
const HEADER: usize = 19;
/// The longest message.
const LONGEST: usize = 4096;

/// Message types.
pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const KEEPALIVE: u8 = 4;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    octets.extend(length.to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// Hold time in seconds: so long that no KEEPALIVE is due while a bench runs. Zero would say the same, but GoBGP takes it
/// for the time a write may take.
pub(super) const HOLD: u16 = 65_000;

/// OPEN with IPv4 unicast, route refresh and AS numbers of four octets.
pub(super) fn open(asn: u32, router_id: Ipv4Addr) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23_456).to_be_bytes());
    body.extend(HOLD.to_be_bytes());
    body.extend(router_id.octets());
    body.extend([length.saturating_add(2), 2, length]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// KEEPALIVE.
pub(super) fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// What a path says, in octets.
pub(super) fn attributes(
    as_path: &[u32],
    next_hop: Ipv4Addr,
    local_pref: Option<u32>,
    communities: &[u32],
) -> Vec<u8> {
    let count = u8::try_from(as_path.len()).unwrap_or(u8::MAX);
    let mut octets = vec![0x40, 1, 1, 0];
    if as_path.is_empty() {
        octets.extend([0x40, 2, 0]);
    } else {
        octets.extend([0x40, 2, count.saturating_mul(4).saturating_add(2), 2, count]);
    }
    octets.extend(as_path.iter().flat_map(|asn| asn.to_be_bytes()));
    octets.extend([0x40, 3, 4]);
    octets.extend(next_hop.octets());
    if let Some(preference) = local_pref {
        octets.extend([0x40, 5, 4]);
        octets.extend(preference.to_be_bytes());
    }
    if !communities.is_empty() {
        octets.extend([0xc0, 8, u8::try_from(communities.len() * 4).unwrap_or(u8::MAX)]);
        octets.extend(communities.iter().flat_map(|community| community.to_be_bytes()));
    }
    octets
}

/// UPDATE: these /24 are reached so.
pub(super) fn reach(attributes: &[u8], prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(attributes);
    prefixes.for_each(|index| prefix(index, &mut body));
    message(UPDATE, &body)
}

/// UPDATEs: these /24 are reached no more.
pub(super) fn unreach(prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut list = Vec::new();
    let mut write = |list: &mut Vec<u8>| {
        if !list.is_empty() {
            let mut body = u16::try_from(list.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
            body.append(list);
            body.extend([0, 0]);
            octets.extend(message(UPDATE, &body));
        }
    };
    for index in prefixes {
        if list.len() + 4 > LONGEST - HEADER - 4 {
            write(&mut list);
        }
        prefix(index, &mut list);
    }
    write(&mut list);
    octets
}

/// The first address of prefix 0: the others follow. A million of them end below 32.0.0.0, and none is a martian.
const FIRST: u32 = 0x1000_0000;

fn prefix(index: u32, out: &mut Vec<u8>) {
    let [a, b, c, _] = (FIRST + (index << 8)).to_be_bytes();
    out.extend([24, a, b, c]);
}

/// Number of the prefix with this first address.
pub(super) fn index(address: u32) -> Option<u32> {
    address.checked_sub(FIRST).map(|offset| offset >> 8)
}

/// Numbers of the prefixes in a list; what is no /24 of ours is left out.
fn indices(list: &[u8]) -> impl Iterator<Item = usize> {
    let mut rest = list;
    let each = move || {
        let (length, after) = rest.split_first()?;
        let octets = usize::from(length.div_ceil(8));
        let (address, after) = after.split_at_checked(octets)?;
        rest = after;
        Some(match (length, address) {
            (24, [a, b, c]) => index(u32::from_be_bytes([*a, *b, *c, 0])),
            _ => None,
        })
    };
    std::iter::from_fn(each).flatten().map(|index| index as usize)
}

/// The parts of an UPDATE that an observer looks at.
pub(super) struct Update<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    announced: &'a [u8],
}

impl<'a> Update<'a> {
    /// Reads a body; `None` if its lengths do not add up.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (withdrawn, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (attributes, announced) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some(Update { withdrawn, attributes, announced })
    }

    /// Prefixes no longer reached.
    pub(super) fn withdrawn(&self) -> impl Iterator<Item = usize> {
        indices(self.withdrawn)
    }

    /// Prefixes reached.
    pub(super) fn announced(&self) -> impl Iterator<Item = usize> {
        indices(self.announced)
    }

    /// The numbers of the AS_PATH's first segment, in four octets each.
    pub(super) fn as_path(&self) -> Vec<u32> {
        let mut rest = self.attributes;
        while let [flags, code, after @ ..] = rest {
            let (length, after) = match after {
                [high, low, after @ ..] if flags & 0x10 != 0 => (u16::from_be_bytes([*high, *low]), after),
                [length, after @ ..] if flags & 0x10 == 0 => (u16::from(*length), after),
                _ => break,
            };
            let Some((value, after)) = after.split_at_checked(length.into()) else { break };
            if *code == 2 {
                let numbers = value.get(2..).unwrap_or_default().chunks_exact(4);
                return numbers
                    .filter_map(|octets| Some(u32::from_be_bytes(octets.try_into().ok()?)))
                    .collect();
            }
            rest = after;
        }
        Vec::new()
    }
}

/// Cuts what was read into messages.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) octets: Vec<u8>,
}

impl Inbox {
    /// Hands each whole message to `see`, type and body, and keeps the rest.
    pub(super) fn drain(&mut self, mut see: impl FnMut(u8, &[u8])) {
        let mut at = 0;
        while let Some(header) = self.octets.get(at..at + HEADER) {
            let [.., high, low, kind] = header else { break };
            let length = usize::from(u16::from_be_bytes([*high, *low])).max(HEADER);
            let Some(body) = self.octets.get(at + HEADER..at + length) else { break };
            see(*kind, body);
            at += length;
        }
        self.octets.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let block = attributes(&[65_001, 3_000, 200_001], Ipv4Addr::new(10, 0, 0, 1), None, &[1, 2]);
        let mut inbox = Inbox { octets: reach(&block, [0, 1, 999_999].into_iter()) };
        inbox.octets.extend(unreach(0..2_000));
        let half = inbox.octets.split_off(30);
        let mut seen = (Vec::new(), Vec::new(), Vec::new());
        let mut see = |inbox: &mut Inbox| {
            inbox.drain(|kind, body| {
                assert_eq!(kind, UPDATE);
                let update = Update::read(body).expect("an update");
                seen.0.extend(update.announced());
                seen.1.extend(update.withdrawn());
                seen.2.extend(update.as_path());
            });
        };
        see(&mut inbox);
        inbox.octets.extend(half);
        see(&mut inbox);
        assert_eq!(seen.0, [0, 1, 999_999]);
        assert_eq!(seen.1, (0..2_000).collect::<Vec<_>>());
        assert_eq!(seen.2, [65_001, 3_000, 200_001]);
        assert!(inbox.octets.is_empty());
    }
}

//! Prefixes on the wire: a length in bits, then as many octets as it takes (RFC 4271 section 4.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::Family;

/// A list that cannot be read: a length beyond the family's, or a list that ends within a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Reads a list; host bits come out as zero. O(octets).
pub(super) fn decode(octets: &[u8], family: Family) -> Result<Vec<IpNet>, Unreadable> {
    match family {
        Family::Ipv4Unicast => decode_with(octets, cut_v4),
        Family::Ipv6Unicast => decode_with(octets, cut_v6),
    }
}

/// `cut` takes the address of a prefix of so many bits off.
fn decode_with(
    mut octets: &[u8],
    cut: impl Fn(u8, &[u8]) -> Option<(IpNet, &[u8])>,
) -> Result<Vec<IpNet>, Unreadable> {
    // Most prefixes take four octets, and few take less; bounded by the message.
    let mut prefixes = Vec::with_capacity(octets.len().div_ceil(4));
    while let Some((length, rest)) = octets.split_first() {
        let (prefix, rest) = cut(*length, rest).ok_or(Unreadable)?;
        octets = rest;
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

/// Octet by octet: a copy of unknown length is a call, and there are a million of them in a table.
#[inline]
fn cut_v4(length: u8, octets: &[u8]) -> Option<(IpNet, &[u8])> {
    let (address, rest) = match (octets_for(length), octets) {
        (0, rest) => ([0; 4], rest),
        (1, [a, rest @ ..]) => ([*a, 0, 0, 0], rest),
        (2, [a, b, rest @ ..]) => ([*a, *b, 0, 0], rest),
        (3, [a, b, c, rest @ ..]) => ([*a, *b, *c, 0], rest),
        (4, [a, b, c, d, rest @ ..]) => ([*a, *b, *c, *d], rest),
        _ => return None,
    };
    Some((Ipv4Net::new(Ipv4Addr::from(address), length).ok()?.trunc().into(), rest))
}

#[inline]
fn cut_v6(length: u8, octets: &[u8]) -> Option<(IpNet, &[u8])> {
    let (address, rest) = octets.split_at_checked(octets_for(length))?;
    let mut all = [0; 16];
    all.get_mut(..address.len())?.copy_from_slice(address);
    Some((Ipv6Net::new(Ipv6Addr::from(all), length).ok()?.trunc().into(), rest))
}

const fn octets_for(bits: u8) -> usize {
    bits.div_ceil(8) as usize
}

/// Appends as many of the prefixes as `room` octets hold; gives back the others.
pub(super) fn encode_some<'a>(prefixes: &'a [IpNet], room: usize, out: &mut Vec<u8>) -> &'a [IpNet] {
    let end = out.len() + room;
    let mut rest = prefixes;
    while let [net, others @ ..] = rest {
        if out.len() + 1 + octets_for(net.prefix_len()) > end {
            break;
        }
        encode(net, out);
        rest = others;
    }
    rest
}

/// Appends one prefix.
fn encode(prefix: &IpNet, out: &mut Vec<u8>) {
    let length = prefix.prefix_len();
    match prefix {
        IpNet::V4(net) => {
            let [a, b, c, d] = net.network().octets();
            // As in `cut_v4`.
            match octets_for(length) {
                0 => out.push(length),
                1 => out.extend_from_slice(&[length, a]),
                2 => out.extend_from_slice(&[length, a, b]),
                3 => out.extend_from_slice(&[length, a, b, c]),
                _ => out.extend_from_slice(&[length, a, b, c, d]),
            }
        }
        IpNet::V6(net) => {
            out.push(length);
            out.extend(net.network().octets().iter().take(octets_for(length)));
        }
    }
}

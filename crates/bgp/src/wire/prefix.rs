//! Prefixes on the wire: a length in bits, then as many octets as it takes (RFC 4271 section 4.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::Family;

/// A list that cannot be read: a length beyond the family's, or a list that ends within a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Reads a list; host bits come out as zero. O(octets).
pub(super) fn decode(mut octets: &[u8], family: Family) -> Result<Vec<IpNet>, Unreadable> {
    // Three octets a prefix is a fair guess, and bounded by the message.
    let mut prefixes = Vec::with_capacity(octets.len() / 3);
    while let Some((length, rest)) = octets.split_first() {
        let (address, rest) = rest.split_at_checked(octets_for(*length)).ok_or(Unreadable)?;
        octets = rest;
        prefixes.push(prefix(address, *length, family).ok_or(Unreadable)?);
    }
    Ok(prefixes)
}

fn prefix(address: &[u8], length: u8, family: Family) -> Option<IpNet> {
    Some(match family {
        Family::Ipv4Unicast => {
            let address = Ipv4Addr::from(filled::<4>(address)?);
            Ipv4Net::new(address, length).ok()?.trunc().into()
        }
        Family::Ipv6Unicast => {
            let address = Ipv6Addr::from(filled::<16>(address)?);
            Ipv6Net::new(address, length).ok()?.trunc().into()
        }
    })
}

/// `octets` followed by zeros; `None` if they are too many.
fn filled<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut all = [0; N];
    all.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(all)
}

const fn octets_for(bits: u8) -> usize {
    bits.div_ceil(8) as usize
}

/// How many octets [`encode`] appends.
pub(super) fn encoded_len(prefix: &IpNet) -> usize {
    1 + octets_for(prefix.prefix_len())
}

/// Appends one prefix.
pub(super) fn encode(prefix: &IpNet, out: &mut Vec<u8>) {
    let length = prefix.prefix_len();
    out.push(length);
    match prefix {
        IpNet::V4(net) => out.extend(net.network().octets().iter().take(octets_for(length))),
        IpNet::V6(net) => out.extend(net.network().octets().iter().take(octets_for(length))),
    }
}

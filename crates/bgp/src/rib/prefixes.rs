//! Prefixes by number, in as little room as their family needs: a table of IPv4 does not pay for IPv6.

use std::hash::{BuildHasher, Hasher};

use hashbrown::DefaultHashBuilder;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::DestinationId;
use crate::chunked::Chunked;
use crate::family::Family;

/// The prefixes of one family.
#[derive(Debug)]
pub(super) enum Prefixes {
    V4(Chunked<Ipv4Net>),
    V6(Chunked<Ipv6Net>),
}

impl Prefixes {
    /// None yet.
    pub(super) const fn new(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Prefixes::V4(Chunked::new()),
            Family::Ipv6Unicast => Prefixes::V6(Chunked::new()),
        }
    }

    /// The prefix of a number.
    pub(super) fn get(&self, id: DestinationId) -> Option<IpNet> {
        match self {
            Prefixes::V4(all) => all.get(id as usize).copied().map(IpNet::V4),
            Prefixes::V6(all) => all.get(id as usize).copied().map(IpNet::V6),
        }
    }

    /// Whether the number is this prefix's.
    pub(super) fn is(&self, id: DestinationId, prefix: &IpNet) -> bool {
        match (self, prefix) {
            (Prefixes::V4(all), IpNet::V4(net)) => all.get(id as usize) == Some(net),
            (Prefixes::V6(all), IpNet::V6(net)) => all.get(id as usize) == Some(net),
            _ => false,
        }
    }

    /// Gives a prefix a number: the next one, or one that was another's. The prefix is of this family.
    pub(super) fn put(&mut self, id: DestinationId, prefix: IpNet) {
        fn set<N>(all: &mut Chunked<N>, id: DestinationId, net: N) {
            match all.get_mut(id as usize) {
                Some(place) => *place = net,
                None => all.push(net),
            }
        }
        match (self, prefix) {
            (Prefixes::V4(all), IpNet::V4(net)) => set(all, id, net),
            (Prefixes::V6(all), IpNet::V6(net)) => set(all, id, net),
            _ => debug_assert!(false, "{prefix} in the table of the other family"),
        }
    }
}

/// How many bits of a prefix say where in its neighbourhood of slots it stands.
const NEAR: u32 = 4;

/// A prefix as a number of the table's slots; keyed at random for each table, so that peers cannot choose prefixes that
/// collide. A table is of one family.
///
/// Sixteen neighbours of one length stand in sixteen neighbouring slots: peers tell neighbours together, and a look-up in a
/// table of a million costs little but the way to memory. Where the sixteen stand is the key's secret. The lowest bits
/// are the slot and the highest the mark by which slots are told apart, so neighbours differ in both.
pub(super) fn hash(hasher: &DefaultHashBuilder, prefix: &IpNet) -> u64 {
    let mut state = hasher.build_hasher();
    let mask = (1 << NEAR) - 1;
    let length = prefix.prefix_len();
    let near = match prefix {
        IpNet::V4(net) => {
            let number = u64::from(u32::from(net.addr())) >> (32 - u32::from(length));
            state.write_u64((number >> NEAR) << 8 | u64::from(length));
            number & mask
        }
        IpNet::V6(net) => {
            // No bits at all are no number to be shifted by.
            let number = u128::from(net.addr()).checked_shr(128 - u32::from(length)).unwrap_or(0);
            state.write_u128(number >> NEAR);
            state.write_u8(length);
            number as u64 & mask
        }
    };
    state.finish() ^ near ^ near << (u64::BITS - NEAR)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The lowest bits and the highest tell them apart, the others are the same.
    #[test]
    fn neighbours_stand_together() {
        let hasher = DefaultHashBuilder::default();
        for all in ["192.0.32.0/20", "2001:db8::/44"] {
            let all: IpNet = all.parse().unwrap();
            let neighbours = all.subnets(all.prefix_len() + 4).unwrap();
            let hashes: Vec<u64> = neighbours.map(|net| hash(&hasher, &net)).collect();
            let distinct = |of: fn(&u64) -> u64| hashes.iter().map(of).collect::<HashSet<_>>().len();
            assert_eq!(
                (hashes.len(), distinct(|hash| hash & 0xf), distinct(|hash| hash >> 60)),
                (16, 16, 16)
            );
            assert_eq!(distinct(|hash| hash << 4 >> 8), 1, "{all}");
        }
    }

    #[test]
    fn strangers_stand_apart() {
        let hasher = DefaultHashBuilder::default();
        let nets = ["0.0.0.0/0", "0.0.0.0/1", "0.0.0.0/32", "0.0.0.16/32", "255.255.255.255/32"];
        let nets = nets.into_iter().chain(["::/0", "::/1", "::/128", "::10/128"]);
        let hashes: HashSet<u64> =
            nets.map(|net| hash(&hasher, &net.parse().unwrap()) & 0xffff_fff0).collect();
        assert_eq!(hashes.len(), 9, "random keys let two of them meet once in millions of times");
    }
}

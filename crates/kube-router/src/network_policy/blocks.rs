//! Address blocks: `ipBlock` with its `except`, as disjoint prefixes.
//!
//! Excepts are taken out of their own block only, before blocks are put together; a kernel set with `nomatch` members
//! would take them out of every block. Both families, each by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use linux::row::Family;

/// Addresses as sorted, disjoint prefixes, as few as possible; none is /0, which kernel sets do not take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(Arc<[IpNet]>);

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks(Arc::from([]))
    }
}

/// First and last address, as numbers.
type Range = (u128, u128);

impl Blocks {
    /// Every block without its excepts, together. O(n log n) in blocks and excepts; up to 128 prefixes for each except.
    pub fn new<'a>(blocks: impl IntoIterator<Item = (&'a IpNet, &'a [IpNet])>) -> Blocks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, excepts) in blocks {
            let same = excepts.iter().filter(|except| Family::of_net(except) == Family::of_net(net));
            let ranges = without(range(net), merged(same.map(range).collect()));
            match net {
                IpNet::V4(_) => v4.extend(ranges),
                IpNet::V6(_) => v6.extend(ranges),
            }
        }
        let v4 = merged(v4).into_iter().flat_map(v4_prefixes).map(IpNet::V4);
        let v6 = merged(v6).into_iter().flat_map(v6_prefixes).map(IpNet::V6);
        Blocks(v4.chain(v6).collect())
    }

    /// Whether an address lies in one of them. O(log prefixes).
    pub fn contains(&self, ip: IpAddr) -> bool {
        let after = self.0.partition_point(|net| net.network() <= ip);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|net| net.contains(&ip))
    }

    /// The prefixes of a family, in order.
    pub fn of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.0.iter().copied().filter(move |net| Family::of_net(net) == family)
    }

    /// No address at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn range(net: &IpNet) -> Range {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

/// Sorted, and what overlaps or touches put together.
fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// A range without sorted, disjoint holes.
fn without((first, last): Range, holes: Vec<Range>) -> Vec<Range> {
    let mut left = Vec::with_capacity(holes.len() + 1);
    let mut from = Some(first);
    for hole in holes {
        let Some(start) = from else { break };
        if hole.1 < start || hole.0 > last {
            continue;
        }
        if hole.0 > start {
            left.push((start, hole.0 - 1));
        }
        from = hole.1.checked_add(1).filter(|next| *next <= last);
    }
    left.extend(from.map(|start| (start, last)));
    left
}

fn v4_prefixes((first, last): Range) -> Vec<Ipv4Net> {
    let address = |number: u128| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
    // From length 1 on: /0 comes in two halves.
    Ipv4Subnets::new(address(first), address(last), 1).collect()
}

fn v6_prefixes((first, last): Range) -> Vec<Ipv6Net> {
    Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 1).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn blocks(list: &[(&str, &[&str])]) -> Vec<String> {
        let nets: Vec<(IpNet, Vec<IpNet>)> = list
            .iter()
            .map(|(block, excepts)| (net(block), excepts.iter().map(|text| net(text)).collect()))
            .collect();
        let blocks = Blocks::new(nets.iter().map(|(net, excepts)| (net, excepts.as_slice())));
        blocks.0.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn everything_is_two_halves() {
        assert_eq!(blocks(&[("0.0.0.0/0", &[])]), ["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(blocks(&[("::/0", &[])]), ["::/1", "8000::/1"]);
    }

    #[test]
    fn an_except_concerns_its_own_block_only() {
        let list: &[(&str, &[&str])] = &[("10.0.0.0/8", &["10.1.0.0/16"]), ("10.1.2.0/24", &[])];
        assert!(blocks(list).contains(&"10.1.2.0/24".to_owned()));
        assert_eq!(blocks(&[("10.0.0.0/30", &["10.0.0.0/32"])]), ["10.0.0.1/32", "10.0.0.2/31"]);
        assert_eq!(blocks(&[("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/31"])]), [""; 0]);
        assert_eq!(blocks(&[("10.0.0.0/24", &["10.0.0.0/8"])]), [""; 0]);
        assert_eq!(blocks(&[("fd00::/127", &["fd00::1/128", "10.0.0.0/8"])]), ["fd00::/128"]);
        assert_eq!(blocks(&[("255.255.255.254/31", &["255.255.255.255/32"])]), ["255.255.255.254/32"]);
    }

    #[test]
    fn what_touches_is_put_together() {
        assert_eq!(blocks(&[("10.0.0.0/25", &[]), ("10.0.0.128/25", &[])]), ["10.0.0.0/24"]);
        assert_eq!(
            blocks(&[("10.0.0.0/8", &[]), ("10.9.0.0/16", &[]), ("10.9.0.0/16", &[])]),
            ["10.0.0.0/8"]
        );
    }

    fn small_net() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0u8..8, 24u8..=32).prop_map(|(v6, last, length)| {
            let text =
                if v6 { format!("::{last}/{}", length + 96) } else { format!("0.0.0.{last}/{length}") };
            net(&text).trunc()
        })
    }

    proptest! {
        #[test]
        fn an_address_is_in_if_it_is_in_a_block_and_none_of_its_excepts(
            list in prop::collection::vec((small_net(), prop::collection::vec(small_net(), 0..4)), 0..4),
        ) {
            let blocks = Blocks::new(list.iter().map(|(net, excepts)| (net, excepts.as_slice())));
            for last in 0..=16u8 {
                for ip in [IpAddr::from([0, 0, 0, last]), format!("::{last:x}").parse().unwrap()] {
                    let wanted = list.iter().any(|(net, excepts)| {
                        net.contains(&ip) && !excepts.iter().any(|except| except.contains(&ip))
                    });
                    prop_assert_eq!(blocks.contains(ip), wanted, "{} in {:?}", ip, blocks);
                }
            }
            for pair in blocks.0.windows(2) {
                prop_assert!(pair[0] < pair[1] && !pair[0].contains(&pair[1]) && !pair[1].contains(&pair[0]));
            }
        }
    }
}

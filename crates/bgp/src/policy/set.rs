//! Sets of prefixes with bounds on length, which policies name: of destinations, of neighbours, of next hops.
//!
//! An address is looked up as the prefix of its full length. An empty set matches nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::family::Family;

/// A prefix and the lengths that prefixes within it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixRange {
    prefix: IpNet,
    ge: u8,
    le: u8,
}

/// Why bounds make no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lengths {ge} to {le} are no range within {prefix}: its length <= ge <= le <= {} is needed", .prefix.max_prefix_len())]
pub struct PrefixRangeError {
    /// The prefix.
    pub prefix: IpNet,
    /// Least length asked for.
    pub ge: u8,
    /// Greatest length asked for.
    pub le: u8,
}

impl PrefixRange {
    /// The prefix itself.
    pub fn exact(prefix: IpNet) -> Self {
        PrefixRange { prefix: prefix.trunc(), ge: prefix.prefix_len(), le: prefix.prefix_len() }
    }

    /// The prefix and every longer one in it; of neighbours and next hops, every address in it.
    pub fn within(prefix: IpNet) -> Self {
        PrefixRange { prefix: prefix.trunc(), ge: prefix.prefix_len(), le: prefix.max_prefix_len() }
    }

    /// Prefixes in `prefix` of `ge` to `le` bits.
    ///
    /// # Errors
    /// Bounds out of order.
    pub fn new(prefix: IpNet, ge: u8, le: u8) -> Result<Self, PrefixRangeError> {
        if prefix.prefix_len() <= ge && ge <= le && le <= prefix.max_prefix_len() {
            Ok(PrefixRange { prefix: prefix.trunc(), ge, le })
        } else {
            Err(PrefixRangeError { prefix, ge, le })
        }
    }

    /// Whether `prefix` is in the range.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        (self.ge..=self.le).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }

    /// The one prefix it stands for, if it is one.
    pub(crate) fn only(&self) -> Option<IpNet> {
        (self.ge == self.prefix.prefix_len() && self.le == self.ge).then_some(self.prefix)
    }
}

impl From<IpAddr> for PrefixRange {
    fn from(address: IpAddr) -> Self {
        PrefixRange::exact(address.into())
    }
}

/// Ranges, found by a look-up for each length they begin with: O(distinct lengths), whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    ranges: HashMap<IpNet, SmallVec<[(u8, u8); 1]>>,
    /// How many prefixes in `ranges` have this length, for each family.
    lengths: [Vec<(u8, u32)>; 2],
}

impl PrefixSet {
    /// Whether a range contains the prefix.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        let [v4, v6] = &self.lengths;
        let lengths = if Family::of(prefix) == Family::Ipv4Unicast { v4 } else { v6 };
        let length = prefix.prefix_len();
        lengths.iter().take_while(|(of, _)| *of <= length).any(|(of, _)| {
            let Some(bounds) = shortened(prefix, *of).and_then(|prefix| self.ranges.get(&prefix)) else {
                return false;
            };
            bounds.iter().any(|(ge, le)| (*ge..=*le).contains(&length))
        })
    }

    /// Whether a range contains the address.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        self.contains(&address.into())
    }

    /// Whether it has no range, and so matches nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Its ranges, in no order.
    pub fn iter(&self) -> impl Iterator<Item = PrefixRange> {
        self.ranges.iter().flat_map(|(prefix, bounds)| {
            bounds.iter().map(|(ge, le)| PrefixRange { prefix: *prefix, ge: *ge, le: *le })
        })
    }

    /// Adds a range; says whether it was new.
    pub fn insert(&mut self, range: PrefixRange) -> bool {
        let bounds = self.ranges.entry(range.prefix).or_default();
        if bounds.contains(&(range.ge, range.le)) {
            return false;
        }
        bounds.push((range.ge, range.le));
        bounds.sort_unstable();
        if bounds.len() == 1 {
            let lengths = self.lengths_of(&range.prefix);
            match lengths.binary_search_by_key(&range.prefix.prefix_len(), |(length, _)| *length) {
                Ok(at) => lengths.iter_mut().skip(at).take(1).for_each(|(_, count)| *count += 1),
                Err(at) => lengths.insert(at, (range.prefix.prefix_len(), 1)),
            }
        }
        true
    }

    /// Takes a range out; says whether it was there.
    pub fn remove(&mut self, range: &PrefixRange) -> bool {
        let Entry::Occupied(mut entry) = self.ranges.entry(range.prefix) else { return false };
        let before = entry.get().len();
        entry.get_mut().retain(|bounds| *bounds != (range.ge, range.le));
        let removed = entry.get().len() < before;
        if entry.get().is_empty() {
            entry.remove();
            let length = range.prefix.prefix_len();
            self.lengths_of(&range.prefix).retain_mut(|(of, count)| {
                *count -= u32::from(*of == length);
                *count > 0
            });
        }
        removed
    }

    /// Whether it has exactly this range.
    fn has(&self, range: &PrefixRange) -> bool {
        self.ranges.get(&range.prefix).is_some_and(|bounds| bounds.contains(&(range.ge, range.le)))
    }

    /// Ranges that one of the two has and the other has not. O(both).
    pub(crate) fn differences(&self, other: &PrefixSet) -> Vec<PrefixRange> {
        let gone = self.iter().filter(|range| !other.has(range));
        gone.chain(other.iter().filter(|range| !self.has(range))).collect()
    }

    fn lengths_of(&mut self, prefix: &IpNet) -> &mut Vec<(u8, u32)> {
        let [v4, v6] = &mut self.lengths;
        if Family::of(prefix) == Family::Ipv4Unicast { v4 } else { v6 }
    }
}

impl FromIterator<PrefixRange> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixRange>>(ranges: I) -> Self {
        let mut set = PrefixSet::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

/// The prefix cut to `length` bits, which it must have.
fn shortened(prefix: &IpNet, length: u8) -> Option<IpNet> {
    IpNet::new(prefix.addr(), length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_are_checked() {
        let prefix = net("10.0.0.0/8");
        for (ge, le) in [(7, 9), (9, 8), (8, 33)] {
            assert!(PrefixRange::new(prefix, ge, le).is_err());
        }
        let error = PrefixRange::new(prefix, 9, 33).unwrap_err().to_string();
        assert_eq!(
            error,
            "lengths 9 to 33 are no range within 10.0.0.0/8: its length <= ge <= le <= 32 is needed"
        );
    }

    #[test]
    fn matches_by_length() {
        let set: PrefixSet = [
            PrefixRange::exact(net("192.0.2.1/32")),
            PrefixRange::new(net("10.0.0.0/8"), 16, 24).unwrap(),
            PrefixRange::within(net("2001:db8::/32")),
            PrefixRange::exact(net("0.0.0.0/0")),
        ]
        .into_iter()
        .collect();
        for inside in
            ["192.0.2.1/32", "10.1.0.0/16", "10.1.2.0/24", "2001:db8::/32", "2001:db8::1/128", "0.0.0.0/0"]
        {
            assert!(set.contains(&net(inside)), "{inside}");
        }
        for outside in ["192.0.2.0/24", "10.0.0.0/8", "10.1.2.0/25", "2001:db9::/32", "::/0", "128.0.0.0/1"] {
            assert!(!set.contains(&net(outside)), "{outside}");
        }
        assert!(!PrefixSet::default().contains(&net("0.0.0.0/0")));
    }

    fn range() -> impl Strategy<Value = PrefixRange> {
        (any::<bool>(), 0u8..8, 0u8..=6, 0u8..=6, 0u8..=6).prop_map(|(v6, bits, length, more, most)| {
            let prefix = if v6 {
                IpNet::new(std::net::Ipv6Addr::from(u128::from(bits) << 122).into(), length)
            } else {
                IpNet::new(std::net::Ipv4Addr::from(u32::from(bits) << 26).into(), length)
            };
            let prefix = prefix.unwrap();
            PrefixRange::new(prefix, length + more, length + more + most).unwrap()
        })
    }

    proptest! {
        /// Additions and removals in any order leave what a plain list of ranges would say.
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec((any::<bool>(), range()), 0..40), asked in range()) {
            let mut set = PrefixSet::default();
            let mut list: Vec<PrefixRange> = Vec::new();
            for (add, range) in steps {
                if add {
                    prop_assert_eq!(set.insert(range), !list.contains(&range));
                    if !list.contains(&range) { list.push(range); }
                } else {
                    prop_assert_eq!(set.remove(&range), list.contains(&range));
                    list.retain(|other| *other != range);
                }
            }
            prop_assert_eq!(set.contains(&asked.prefix), list.iter().any(|range| range.contains(&asked.prefix)));
            let mut ranges: Vec<_> = set.iter().collect();
            ranges.sort();
            list.sort();
            prop_assert_eq!(ranges, list.clone());
            let again: PrefixSet = list.into_iter().collect();
            prop_assert!(again.differences(&set).is_empty());
            prop_assert_eq!(&again, &set);
        }
    }
}

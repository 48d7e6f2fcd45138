//! Prefixes of a set that may lie in one another, where the kernel wants its intervals apart.
//!
//! The kernel holds the widest prefixes only; one that lies in another is remembered here, and comes back when the
//! wider one goes. Prefixes either lie in one another or have nothing in common, so nothing is ever split.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::row::{Family, Member, Protocol};

/// What must be equal for prefixes to be of one space: protocol and port, if members have them.
type Space = Option<(Protocol, u16)>;

/// Members of one set of prefixes.
#[derive(Debug, Clone, Default)]
pub(super) struct Cover {
    members: BTreeSet<(Space, IpNet)>,
}

/// What has to change in the kernel: members to have (`true`) and to lose, each once, in no order.
pub(super) type Difference = Vec<(Member, bool)>;

impl Cover {
    /// From what the kernel holds, and what may be covered by it.
    pub(super) fn new(there: impl IntoIterator<Item = Member>, remembered: &Cover) -> Cover {
        let mut cover = Cover { members: there.into_iter().filter_map(split).collect() };
        let covered: Vec<(Space, IpNet)> =
            remembered.members.iter().filter(|one| cover.covering(one).is_some()).copied().collect();
        cover.members.extend(covered);
        cover
    }

    /// Every member, covered or not.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.members.iter().map(|one| joined(*one))
    }

    /// Adds a member. O(address bits · log members + members covered).
    pub(super) fn add(&mut self, member: Member, difference: &mut Difference) {
        let Some(one) = split(member) else { return };
        if !self.members.insert(one) || self.covering(&one).is_some() {
            return;
        }
        for covered in self.inside(&one) {
            difference.push((joined(covered), false));
        }
        difference.push((member, true));
    }

    /// Removes a member. Costs as [`Cover::add`].
    pub(super) fn remove(&mut self, member: Member, difference: &mut Difference) {
        let Some(one) = split(member) else { return };
        if !self.members.remove(&one) || self.covering(&one).is_some() {
            return;
        }
        difference.push((member, false));
        for bared in self.inside(&one) {
            difference.push((joined(bared), true));
        }
    }

    /// A wider member that holds this one.
    fn covering(&self, (space, net): &(Space, IpNet)) -> Option<(Space, IpNet)> {
        let wider = |length| IpNet::new(net.addr(), length).ok().map(|wider| (*space, wider.trunc()));
        (0..net.prefix_len()).filter_map(wider).find(|wider| self.members.contains(wider))
    }

    /// The widest members that lie in this one.
    fn inside(&self, (space, net): &(Space, IpNet)) -> Vec<(Space, IpNet)> {
        let last = IpNet::from(net.broadcast());
        let mut widest: Vec<(Space, IpNet)> = Vec::new();
        // Sorted by address, then by length: a wider prefix comes before what lies in it.
        for one in self.members.range((*space, *net)..=(*space, last)) {
            if one.1 != *net && widest.last().is_none_or(|last| !last.1.contains(&one.1)) {
                widest.push(*one);
            }
        }
        widest
    }
}

fn split(member: Member) -> Option<(Space, IpNet)> {
    match member {
        Member::Net(net) => Some((None, net)),
        Member::NetPort(net, protocol, port) => Some((Some((protocol, port)), net)),
        _ => None,
    }
}

fn joined((space, net): (Space, IpNet)) -> Member {
    match space {
        None => Member::Net(net),
        Some((protocol, port)) => Member::NetPort(net, protocol, port),
    }
}

/// Whether a member is a prefix without host bits, of this family.
pub(super) fn is_prefix_of(member: &Member, family: Family) -> bool {
    split(*member).is_some_and(|(_, net)| net.trunc() == net && Family::of_net(&net) == family)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Member {
        Member::Net(text.parse().unwrap())
    }

    #[test]
    fn the_wider_prefix_stands_for_those_inside_and_gives_them_back() {
        let mut cover = Cover::default();
        let step = |cover: &mut Cover, text: &str, add: bool| {
            let mut difference = Difference::new();
            if add {
                cover.add(net(text), &mut difference);
            } else {
                cover.remove(net(text), &mut difference);
            }
            let text = |(member, has): (Member, bool)| match member {
                Member::Net(net) => format!("{}{net}", if has { '+' } else { '-' }),
                other => panic!("{other:?}"),
            };
            difference.into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(step(&mut cover, "10.1.0.0/16", true), ["+10.1.0.0/16"]);
        assert_eq!(step(&mut cover, "10.1.2.0/24", true), [] as [&str; 0]);
        assert_eq!(step(&mut cover, "10.0.0.0/8", true), ["-10.1.0.0/16", "+10.0.0.0/8"]);
        assert_eq!(step(&mut cover, "10.1.0.0/16", true), [] as [&str; 0], "added twice");
        assert_eq!(step(&mut cover, "10.1.0.0/16", false), [] as [&str; 0]);
        assert_eq!(step(&mut cover, "10.0.0.0/8", false), ["-10.0.0.0/8", "+10.1.2.0/24"]);
        assert_eq!(step(&mut cover, "10.0.0.0/8", false), [] as [&str; 0], "removed twice");
    }

    proptest! {
        /// Whatever is added and removed, the kernel ends with the widest members, apart from each other.
        #[test]
        fn the_kernel_holds_the_widest(steps in prop::collection::vec((any::<bool>(), 0u32..8, 0u8..=4), 0..40)) {
            let mut cover = Cover::default();
            let mut wanted = BTreeSet::new();
            let mut kernel = BTreeSet::new();
            for (add, at, length) in steps {
                let net: IpNet = ipnet::Ipv4Net::new((at << 28).into(), length).unwrap().trunc().into();
                let mut difference = Difference::new();
                if add {
                    wanted.insert(net);
                    cover.add(Member::Net(net), &mut difference);
                } else {
                    wanted.remove(&net);
                    cover.remove(Member::Net(net), &mut difference);
                }
                for (member, has) in difference {
                    let changed = if has { kernel.insert(member) } else { kernel.remove(&member) };
                    prop_assert!(changed, "{member:?} {has}");
                }
            }
            let widest = |net: &&IpNet| !wanted.iter().any(|other| other != *net && other.contains(*net));
            let expected: BTreeSet<Member> = wanted.iter().filter(widest).map(|net| Member::Net(*net)).collect();
            prop_assert_eq!(kernel, expected);
            prop_assert_eq!(cover.members().count(), wanted.len());
        }
    }
}

//! Which of several paths to a destination is best: the decision process of RFC 4271 section 9.1.2.2, with RFC 4456
//! section 9.
//!
//! Decided from the paths of one destination, step by step: each step keeps the paths that are equal in it and best,
//! and gives the others the step as the reason they lost. So the outcome never depends on the order in which paths
//! came, not even through MULTI_EXIT_DISC, which orders only paths of one neighbouring AS. The age of a path does not
//! count, for the same reason.

use std::cmp::Reverse;
use std::net::IpAddr;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Path;
use crate::attributes::Attributes;
use crate::source::{SourceKind, Sources};

/// How a path stands among those to the same destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Selected.
    Best,
    /// As good as the best one, and used beside it.
    Multipath,
    /// Could be used, but another was better in this step.
    Lost(Step),
    /// Nobody knows the way to its next hop.
    Unreachable,
    /// Not to be used at all.
    Refused(Refusal),
    /// Not looked at yet: selection waits for the peers after a restart (RFC 4724).
    Waiting,
}

/// The steps, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Announced by this speaker itself: what it serves itself it does not seek elsewhere.
    LocalOrigin,
    /// Higher LOCAL_PREF.
    LocalPreference,
    /// Shorter AS_PATH.
    AsPathLength,
    /// Lower ORIGIN.
    Origin,
    /// Lower MULTI_EXIT_DISC among paths of one neighbouring AS.
    Med,
    /// From an external peer.
    External,
    /// Lower cost to the next hop.
    NextHopMetric,
    /// Lower router id, or ORIGINATOR_ID where there is one.
    RouterId,
    /// Shorter CLUSTER_LIST.
    ClusterListLength,
    /// Lower address of the peer.
    PeerAddress,
}

/// Why a path is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Our AS number is in its AS_PATH.
    OwnAs,
    /// ORIGINATOR_ID is our router id.
    OwnOriginatorId,
    /// Our cluster id is in its CLUSTER_LIST.
    OwnClusterId,
    /// Its next hop is no address of another router: unspecified, loopback, multicast, broadcast, or ours.
    MartianNextHop,
    /// Its prefix is no unicast destination: loopback, multicast, link-local or reserved.
    MartianPrefix,
    /// By the import policy.
    Policy,
    /// From an external peer, without an import policy (RFC 8212).
    NoPolicy,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Refusal; 7] = [
        Refusal::OwnAs,
        Refusal::OwnOriginatorId,
        Refusal::OwnClusterId,
        Refusal::MartianNextHop,
        Refusal::MartianPrefix,
        Refusal::Policy,
        Refusal::NoPolicy,
    ];
}

/// How many equally good paths to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipath {
    /// At most so many; 1 uses the best one only.
    pub paths: u16,
    /// Paths through different neighbouring systems may be equally good, if their AS paths are of one length.
    pub relaxed: bool,
}

impl Default for Multipath {
    fn default() -> Self {
        Multipath { paths: 1, relaxed: false }
    }
}

/// Costs of next hops, as somebody who knows routes tells them. A next hop nobody speaks of costs nothing.
pub(crate) type NextHopMetrics = HashMap<IpAddr, Option<u32>>;

/// What selection depends on beside the paths.
#[derive(Clone, Copy)]
pub(crate) struct Selector<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) metrics: &'a NextHopMetrics,
    pub(crate) multipath: Multipath,
    pub(crate) default_local_pref: u32,
    pub(crate) compare_med_always: bool,
}

/// Paths still in the race.
type Candidates<'p> = SmallVec<[&'p mut Path; 8]>;

/// The tie breakers, which differ between any two paths of one destination.
type Tie = (u32, usize, IpAddr);

impl Selector<'_> {
    /// Gives each path its standing, and puts the best one first, if there is one. O(paths), but for MED: O(paths x
    /// neighbouring systems).
    pub(crate) fn select(&self, paths: &mut [Path]) {
        if let [only] = paths {
            self.enter(only);
            return;
        }
        let mut candidates: Candidates<'_> = paths.iter_mut().filter_map(|path| self.enter(path)).collect();
        if candidates.len() > 1 {
            self.narrow(&mut candidates);
        }
        self.settle(&mut candidates);
        drop(candidates);
        if let Some(at) = paths.iter().position(|path| path.standing == Standing::Best) {
            paths.swap(0, at);
        }
    }

    /// The path, if it may be selected.
    fn enter<'p>(&self, path: &'p mut Path) -> Option<&'p mut Path> {
        let next_hop = path.accepted.as_ref()?.next_hop.global;
        if self.metrics.get(&next_hop).is_some_and(Option::is_none) {
            path.standing = Standing::Unreachable;
            return None;
        }
        path.standing = Standing::Best;
        Some(path)
    }

    /// All steps that say how good a path is.
    fn narrow(&self, candidates: &mut Candidates<'_>) {
        keep_least(candidates, Step::LocalOrigin, |path, _| self.kind(path) != SourceKind::Local);
        keep_least(candidates, Step::LocalPreference, |_, attributes| {
            Reverse(attributes.local_pref.unwrap_or(self.default_local_pref))
        });
        keep_least(candidates, Step::AsPathLength, |_, attributes| attributes.as_path.length());
        keep_least(candidates, Step::Origin, |_, attributes| attributes.origin);
        self.keep_least_med(candidates);
        keep_least(candidates, Step::External, |path, _| self.kind(path) != SourceKind::External);
        keep_least(candidates, Step::NextHopMetric, |_, attributes| {
            self.metrics.get(&attributes.next_hop.global).copied().flatten().unwrap_or(0)
        });
    }

    fn kind(&self, path: &Path) -> SourceKind {
        self.sources.get(path.peer).map_or(SourceKind::Local, |source| source.kind)
    }

    /// RFC 4271 section 9.1.2.2 c. A missing MED is the lowest.
    fn keep_least_med(&self, candidates: &mut Candidates<'_>) {
        if candidates.len() < 2 {
            return;
        }
        let group = |attributes: &Attributes| {
            if self.compare_med_always { None } else { attributes.as_path.neighbour() }
        };
        let mut least: SmallVec<[(Option<u32>, u32); 8]> = SmallVec::new();
        for attributes in candidates.iter().filter_map(|path| path.accepted.as_ref()) {
            let (group, med) = (group(attributes), attributes.med.unwrap_or(0));
            match least.iter_mut().find(|(other, _)| *other == group) {
                Some((_, least)) => *least = med.min(*least),
                None => least.push((group, med)),
            }
        }
        keep(candidates, Step::Med, |_, attributes| {
            least.contains(&(group(attributes), attributes.med.unwrap_or(0)))
        });
    }

    /// Among equally good paths, names the best and those used beside it, one for each next hop: a second one through the
    /// same router (heard of two reflectors, say) would give it twice its share. O(paths x paths used).
    fn settle(&self, candidates: &mut Candidates<'_>) {
        if candidates.len() < 2 {
            return;
        }
        candidates.sort_by_cached_key(|path| self.tie(path));
        let Some((best, others)) = candidates.split_first_mut() else { return };
        let neighbour =
            |path: &Path| path.accepted.as_ref().and_then(|attributes| attributes.as_path.neighbour());
        let (tie, system) = (self.tie(best), neighbour(best));
        let hop = |path: &Path| path.accepted.as_ref().map(|attributes| attributes.next_hop.global);
        let most = usize::from(self.multipath.paths);
        let mut hops: SmallVec<[_; 8]> = SmallVec::from_iter([hop(best)]);
        for path in others {
            let beside = hops.len() < most && (self.multipath.relaxed || neighbour(path) == system);
            path.standing = if beside && !hops.contains(&hop(path)) {
                hops.push(hop(path));
                Standing::Multipath
            } else {
                Standing::Lost(first_difference(self.tie(path), tie))
            };
        }
    }

    fn tie(&self, path: &Path) -> Tie {
        let source = self.sources.get(path.peer);
        let attributes = path.accepted.as_ref();
        let id = attributes.and_then(|attributes| attributes.originator_id);
        let id = id.or_else(|| source.map(|source| source.router_id)).map_or(0, u32::from);
        let clusters = attributes.map_or(0, |attributes| attributes.cluster_list.len());
        (id, clusters, source.map_or(IpAddr::V4(id.into()), |source| source.address))
    }
}

fn first_difference(loser: Tie, winner: Tie) -> Step {
    if loser.0 != winner.0 {
        Step::RouterId
    } else if loser.1 != winner.1 {
        Step::ClusterListLength
    } else {
        Step::PeerAddress
    }
}

/// Keeps the candidates with the least key.
fn keep_least<K: Ord>(candidates: &mut Candidates<'_>, step: Step, key: impl Fn(&Path, &Attributes) -> K) {
    if candidates.len() < 2 {
        return;
    }
    let key_of = |path: &Path| path.accepted.as_ref().map(|attributes| key(path, attributes));
    let least = candidates.iter().filter_map(|path| key_of(path)).min();
    keep(candidates, step, |path, attributes| Some(key(path, attributes)) == least);
}

/// Keeps the candidates that pass; the others lost in this step.
fn keep(candidates: &mut Candidates<'_>, step: Step, passes: impl Fn(&Path, &Attributes) -> bool) {
    candidates.retain(|path| {
        let stays = path.accepted.as_ref().is_some_and(|attributes| passes(path, attributes));
        if !stays {
            path.standing = Standing::Lost(step);
        }
        stays
    });
}

#[cfg(test)]
#[path = "best_path_tests.rs"]
mod tests;

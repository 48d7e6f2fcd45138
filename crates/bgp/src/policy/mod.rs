//! What a policy is: statements in order, each with conditions and with actions.
//!
//! An import policy looks at what a peer says before it may be selected, an export policy at what a peer is about to
//! be told. The first matching statement with a verdict decides; statements without one only change the path. How a
//! policy is carried out is in [`compiled`], what follows from its replacement in [`crate::speaker`].

pub(crate) mod compiled;
mod set;

use std::net::IpAddr;
use std::sync::Arc;

pub use set::{PrefixRange, PrefixRangeError, PrefixSet};

use crate::community::{Community, LargeCommunity};

/// The name of a [`PrefixSet`]. A name nobody gave a set to is an empty set, which matches nothing.
pub type SetName = Arc<str>;

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is used, or told.
    Accept,
    /// It is not.
    Reject,
}

/// Statements, and what holds if none of them decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Looked at in this order.
    pub statements: Vec<Statement>,
    /// For paths that no statement decided about.
    pub default: Verdict,
}

impl Policy {
    /// No statements: everything is accepted or everything rejected.
    pub const fn always(default: Verdict) -> Self {
        Policy { statements: Vec::new(), default }
    }
}

/// If the conditions hold, the actions are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// For those who read the policy; not looked at.
    pub name: String,
    /// All must hold.
    pub when: Conditions,
    /// All are taken, in the order of the fields.
    pub then: Actions,
    /// Ends the policy; the next statement follows if there is none.
    pub verdict: Option<Verdict>,
}

/// What a statement asks; a field that is not given asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The destination is in the set.
    pub prefixes: Option<SetName>,
    /// The address of the neighbour is in the set: of whom the path came from (import), who is to be told (export).
    pub neighbours: Option<SetName>,
    /// The next hop is in the set: the one received (import), the one in our table (export).
    pub next_hops: Option<SetName>,
    /// Where the path came from.
    pub from: Option<PathSource>,
    /// About communities.
    pub communities: Option<Condition<Community>>,
    /// About large communities.
    pub large_communities: Option<Condition<LargeCommunity>>,
}

/// Where paths come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathSource {
    /// This speaker's own.
    Local,
    /// A peer of our AS.
    Internal,
    /// A peer of another AS.
    External,
}

/// What of a list has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition<T> {
    /// One of these at least.
    Any(Vec<T>),
    /// Every one of these.
    All(Vec<T>),
    /// None of these.
    Neither(Vec<T>),
}

impl<T: Ord> Condition<T> {
    /// Whether it holds for what a path has (sorted).
    fn holds(&self, has: &[T]) -> bool {
        let there = |one: &T| has.binary_search(one).is_ok();
        match self {
            Condition::Any(of) => of.iter().any(there),
            Condition::All(of) => of.iter().all(there),
            Condition::Neither(of) => !of.iter().any(there),
        }
    }
}

/// How a statement changes a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Sets LOCAL_PREF. Told to internal peers only.
    pub local_pref: Option<u32>,
    /// Sets MULTI_EXIT_DISC, or takes it away.
    pub med: Option<MedAction>,
    /// Changes of the communities.
    pub communities: Vec<CommunityAction<Community>>,
    /// Changes of the large communities.
    pub large_communities: Vec<CommunityAction<LargeCommunity>>,
    /// Lengthens the AS path, in front of our own number where that is due.
    pub prepend: Option<Prepend>,
    /// Replaces the next hop.
    pub next_hop: Option<NextHopAction>,
}

/// What to do with MULTI_EXIT_DISC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MedAction {
    /// Set it.
    Set(u32),
    /// Take it away.
    Remove,
}

/// What to do with communities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommunityAction<T> {
    /// These as well.
    Add(Vec<T>),
    /// Not these.
    Remove(Vec<T>),
    /// These and no others.
    Set(Vec<T>),
}

impl<T: Ord + Copy> CommunityAction<T> {
    /// Changes a sorted list and leaves it sorted.
    fn apply(&self, list: &mut Vec<T>) {
        match self {
            CommunityAction::Add(these) => list.extend_from_slice(these),
            CommunityAction::Remove(these) => list.retain(|one| !these.contains(one)),
            CommunityAction::Set(these) => list.clone_from(these),
        }
        list.sort_unstable();
        list.dedup();
    }
}

/// AS numbers put in front of the AS path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepend {
    /// The number; our own if not given.
    pub asn: Option<u32>,
    /// How often.
    pub times: u8,
}

/// What to do with the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopAction {
    /// Our own address: of the session, or of the prefix's family where the session is of the other.
    Ours,
    /// This address.
    Address(IpAddr),
}

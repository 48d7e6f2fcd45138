//! What on this node is ours, by name.

use crate::iptables::parse::target;
use crate::row::{ChainKey, Name, Position};
use crate::rule::Rule;

/// Where a rule in a chain that is not ours belongs, if it is of a kind somebody here writes.
pub type ForeignPlace = fn(&ChainKey, &Rule) -> Option<Position>;

/// Names by which chains, sets and rules are recognised as ours.
#[derive(Debug, Clone, Default)]
pub struct FirewallScope {
    /// Chains by whole name.
    pub chains: Vec<Name>,
    /// Chains by what their names begin with.
    pub chain_prefixes: Vec<Name>,
    /// Sets by whole name, without family prefix.
    pub sets: Vec<Name>,
    /// Sets by what their names begin with, without family prefix.
    pub set_prefixes: Vec<Name>,
    /// Which rules in chains that are not ours are ours, and where they belong: how they are recognised after a restart.
    /// A rule that jumps to a chain in scope is ours in any case, and at the head unless one of these says else.
    pub foreign: Vec<ForeignPlace>,
}

impl FirewallScope {
    /// What is in either.
    pub fn and(mut self, other: FirewallScope) -> FirewallScope {
        self.chains.extend(other.chains);
        self.chain_prefixes.extend(other.chain_prefixes);
        self.sets.extend(other.sets);
        self.set_prefixes.extend(other.set_prefixes);
        self.foreign.extend(other.foreign);
        self
    }

    /// Whether a chain is ours.
    pub fn has_chain(&self, name: &str) -> bool {
        named(name, &self.chains, &self.chain_prefixes)
    }

    /// Whether a set is ours.
    pub fn has_set(&self, name: &str) -> bool {
        named(name, &self.sets, &self.set_prefixes)
    }

    /// Whether a rule's text jumps to a chain of ours. Most rules of others are told by a substring search.
    pub fn is_jumped_to(&self, text: &str) -> bool {
        let mentioned = |name: &Name| text.contains(&**name);
        (self.chains.iter().any(mentioned) || self.chain_prefixes.iter().any(mentioned))
            && target(text).is_some_and(|chain| self.has_chain(&chain))
    }
}

fn named(name: &str, whole: &[Name], prefixes: &[Name]) -> bool {
    whole.iter().any(|one| **one == *name) || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
}

//! What on this node is ours, by name.

use crate::iptables::parse::target;
use crate::row::{ChainKey, Name};
use crate::rule::Rule;

/// Names by which chains, sets and rules are recognised as ours.
#[derive(Debug, Clone)]
pub struct FirewallScope {
    /// Chains by whole name.
    pub chains: Vec<Name>,
    /// Chains by what their names begin with.
    pub chain_prefixes: Vec<Name>,
    /// Sets by whole name, without family prefix.
    pub sets: Vec<Name>,
    /// Sets by what their names begin with, without family prefix.
    pub set_prefixes: Vec<Name>,
    /// Whether a rule in a chain that is not ours is ours, beside those that jump to a chain in scope and those the
    /// lane was asked to write: how rules without such a jump are recognised after a restart.
    pub foreign: fn(&ChainKey, &Rule) -> bool,
}

impl Default for FirewallScope {
    fn default() -> FirewallScope {
        FirewallScope {
            chains: Vec::new(),
            chain_prefixes: Vec::new(),
            sets: Vec::new(),
            set_prefixes: Vec::new(),
            foreign: |_, _| false,
        }
    }
}

impl FirewallScope {
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

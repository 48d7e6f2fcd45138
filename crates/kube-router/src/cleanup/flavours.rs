//! Rules of both flavours of iptables as one lane that removes: the kernel obeys both, and a predecessor need not have
//! used the one this node uses by now.
//!
//! Decided here: a removal goes to the flavours that have the row. What is not told by a flavour is not asked of it, so
//! that none of its tables comes to be. A flavour that cannot be read keeps its rules, and the others are cleaned.

use std::collections::BTreeSet;

use linux::firewall::{FirewallLane, FirewallScope};
use linux::iptables::tool::{self, Flavour, Programs};
use linux::lane::{Change, Lane, ReadError, Refusal};
use linux::nftables;
use linux::row::{Key, Row};

/// Chains, and rules in chains of others, of either flavour.
#[derive(Debug)]
pub(super) struct Flavours {
    each: Vec<Tables>,
    /// Something of ours is in one of them for certain, or may only be.
    certain: bool,
}

/// The tables of one flavour.
#[derive(Debug)]
struct Tables {
    flavour: Flavour,
    lane: FirewallLane,
    /// What the last reading found.
    held: BTreeSet<Key>,
}

impl Flavours {
    /// The flavour this node uses, and the other one if its programs are installed and may find something.
    pub(super) fn open(scope: &FirewallScope, certain: bool) -> Result<Flavours, tool::Error> {
        let used = Programs::detect()?;
        let other = other_than(&used);
        let tables = |programs: Programs| Tables {
            flavour: programs.flavour(),
            lane: FirewallLane::with_programs(scope.clone(), programs),
            held: BTreeSet::new(),
        };
        Ok(Flavours { each: [Some(used), other].into_iter().flatten().map(tables).collect(), certain })
    }
}

/// Legacy programs start no process where there are no legacy tables. Those of nft would fail on a kernel without it.
fn other_than(used: &Programs) -> Option<Programs> {
    let (other, may_find) = match used.flavour() {
        Flavour::Nft => (Flavour::Legacy, true),
        Flavour::Legacy => {
            (Flavour::Nft, nftables::chains_of_iptables().is_ok_and(|chains| !chains.is_empty()))
        }
    };
    let programs = may_find.then(|| Programs::of(other).ok()).flatten();
    programs.filter(|programs| programs.flavour() == other)
}

impl Lane for Flavours {
    /// Fails if no flavour can be read although there is something of ours.
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows = Vec::new();
        let mut failures = Vec::new();
        for tables in &mut self.each {
            match tables.lane.read() {
                Ok(found) => {
                    tables.held = found.iter().map(|(key, _)| key.clone()).collect();
                    rows.extend(found);
                }
                Err(error) => {
                    tracing::warn!("rules of iptables-{} are not cleaned up: {error}", tables.flavour);
                    failures.push(error);
                }
            }
        }
        let none = failures.len() == self.each.len();
        match failures.pop() {
            Some(error) if none && self.certain => Err(error),
            _ => Ok(rows),
        }
    }

    /// What no flavour has is gone already. O(changes).
    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes: Vec<Result<(), Refusal>> = stage.iter().map(|_| Ok(())).collect();
        for tables in &mut self.each {
            let here = stage.iter().enumerate().filter(|(_, change)| tables.held.contains(&change.key));
            let (places, changes): (Vec<usize>, Vec<Change>) =
                here.map(|(place, change)| (place, change.clone())).unzip();
            if changes.is_empty() {
                continue;
            }
            for (place, answer) in places.into_iter().zip(tables.lane.apply(&changes)) {
                if let (Some(outcome), Err(refusal)) = (outcomes.get_mut(place), answer) {
                    *outcome = Err(refusal);
                }
            }
        }
        outcomes
    }
}

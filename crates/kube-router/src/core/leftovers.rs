//! What a predecessor wrote through the other backend: it is enforced until ours is complete, then it goes.
//!
//! Decided here: when to look at all, so that no program is started where there is nothing to be removed; that what
//! cannot be removed is tried again. While both are there a packet must please both, so nothing forbidden passes.

use std::sync::Arc;
use std::time::Duration;

use linux::firewall::{self, FirewallLane, FirewallScope, SetsLane};
use linux::iptables::tool::{self, Flavour, Programs};
use linux::netlink::Error;
use linux::nftables;
use linux::row::{LaneName, Name};

use super::backend::{Backend, nftables_names};
use super::lanes::LaneError;
use super::ownership::Ownership;
use super::removal::{Lanes, RemovalError, Told, remove_all};
use crate::node::{Facts, ThisNode};
use crate::options::Options;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(30);

/// What is to be removed once.
#[derive(Debug)]
pub(super) enum Leftovers {
    /// Chains, rules and sets of iptables and ipset.
    OfIptables(FirewallScope, Arc<Options>),
    /// The tables of nftables.
    OfNftables,
}

/// It could not be removed yet.
#[derive(Debug, thiserror::Error)]
enum Kept {
    #[error("iptables is needed for that: {0}")]
    Programs(#[from] tool::Error),
    #[error(transparent)]
    Rows(#[from] RemovalError),
    #[error("nftables: {0}")]
    Tables(#[from] Error),
}

impl Leftovers {
    /// Those of the other backend.
    pub(super) fn beside(backend: &Backend, scope: &FirewallScope, options: &Arc<Options>) -> Leftovers {
        match backend {
            Backend::Iptables(_) => Leftovers::OfNftables,
            Backend::Nftables(_) => Leftovers::OfIptables(scope.clone(), Arc::clone(options)),
        }
    }

    /// Removes them, on a thread of its own that ends when they are gone.
    pub(super) fn remove(self) -> Result<(), LaneError> {
        let run = move || {
            let mut last = String::new();
            while let Err(kept) = self.try_remove() {
                let said = kept.to_string();
                if said != last {
                    tracing::warn!(
                        "what {} holds of an earlier kube-router stays in force and is tried again: {said}",
                        self.name()
                    );
                    last = said;
                }
                std::thread::sleep(PAUSE);
            }
        };
        let spawned = std::thread::Builder::new().name("leftovers".to_owned()).spawn(run);
        spawned.map(|_| ()).map_err(|source| LaneError::Thread { what: "leftovers", source })
    }

    fn name(&self) -> &'static str {
        match self {
            Leftovers::OfIptables(..) => "iptables",
            Leftovers::OfNftables => "nftables",
        }
    }

    fn try_remove(&self) -> Result<(), Kept> {
        match self {
            Leftovers::OfNftables => {
                let names = nftables_names();
                if nftables::is_in_use(&names)? {
                    nftables::remove(&names)?;
                    tracing::info!("removed the tables of nftables: iptables has taken over");
                }
            }
            Leftovers::OfIptables(scope, options) if firewall::may_hold(scope) => {
                let ownership = Ownership::new(options);
                let node = ThisNode { name: Name::from(""), object: None, facts: Facts::default() };
                for programs in flavours()? {
                    let rules = FirewallLane::with_programs(scope.clone(), programs);
                    let lanes: Lanes = vec![(LaneName::Firewall, Box::new(rules))];
                    remove_all(lanes, &ownership, &node, Told::Numbers)?;
                }
                let sets = SetsLane::new(scope.clone());
                let lanes: Lanes = vec![(LaneName::Sets, Box::new(sets))];
                remove_all(lanes, &ownership, &node, Told::Numbers)?;
            }
            Leftovers::OfIptables(..) => {}
        }
        Ok(())
    }
}

/// The programs of either flavour: which one a predecessor used need not be the one this node uses by now.
fn flavours() -> Result<Vec<Programs>, tool::Error> {
    let both = [Flavour::Legacy, Flavour::Nft].into_iter().filter_map(|flavour| Programs::of(flavour).ok());
    let both: Vec<Programs> = both.collect();
    if both.is_empty() { Ok(vec![Programs::detect()?]) } else { Ok(both) }
}

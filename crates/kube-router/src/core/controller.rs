//! What a controller is to the core: a store of indexes and plans, told of changes, asked for rows.
//!
//! Decided here: the questions. A controller watches some kinds of objects, needs some lanes and names on the node, and
//! turns what is known into claims; it does no I/O and has no clock. The core does the rest for all of them alike: it
//! starts only what somebody needs, waits until a controller can know enough, tells it what changed, hands its claims
//! to the one reconciler and performs its [`Effect`]s. Controllers do not know each other.
//!
//! A new one is: its module with a `Subject` (in [`crate::owner::Owner`]), this trait, and a line in
//! [`super::controllers`].

use std::time::{Duration, Instant};

use linux::firewall::FirewallScope;
use linux::reconciler::{Claim, Gate, Reconciler};
use linux::route::RouteScope;
use linux::row::{Key, LaneName, Name};

use super::effect::Effect;
use super::input::News;
use crate::explain::Explanation;
use crate::kube::model::Pod;
use crate::kube::watch::Selection;
use crate::node::{Facts, ThisNode};
use crate::objection::{ObjectRef, Objection};
use crate::options::Options;
use crate::owner::Owner;
use crate::status::Status;
use crate::store::{Dirty, Store};

/// What plans are made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The cluster.
    pub store: &'a Store,
    /// This node.
    pub node: &'a ThisNode,
    /// The command line.
    pub options: &'a Options,
}

/// A plan made anew: its owner and everything it wants now.
pub type Planned = (Owner, Vec<Claim>);

/// An object, and all that is wrong with it now as this controller sees it; nothing if it is fine or gone.
pub type Found = (ObjectRef, Vec<Objection>);

/// Keys believed to be in the kernel: the one asked for, and what is inside of it, such as the real servers of a virtual
/// server, the members of a set.
pub type InKernel<'a> = &'a dyn Fn(&Key) -> Vec<Key>;

/// What a controller needs around it. Fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What to watch; one selection a kind. Nothing is planned before each is listed once.
    pub watches: Vec<Selection>,
    /// Lanes its rows are written by. A kernel without one of them ends the start.
    pub lanes: Vec<LaneName>,
    /// Links, addresses and routes that are its own by name, table or protocol.
    pub routes: RouteScope,
    /// Sets, chains and rules that are its own by name.
    pub firewall: FirewallScope,
    /// Settings below /proc/sys it reads or writes.
    pub settings: Vec<Name>,
    /// Whether it asks for running flows ([`Effect::ReadFlows`]).
    pub flows: bool,
    /// How often its lanes are read again.
    pub audit: Duration,
    /// It speaks BGP.
    pub speaker: bool,
}

/// A controller. Called by the core's thread only; nothing here may block.
pub trait Controller: Send {
    /// As log lines name it.
    fn name(&self) -> &'static str;

    /// What it needs. Asked before anything else; also for `--cleanup-config`, whether it runs or not.
    fn needs(&self, node: &Name, options: &Options) -> Needs;

    /// Whether planning may begin, as far as more is needed than what the core waits for anyway: all its watches
    /// listed, all its lanes read, this node's object and addresses known. Asked until it says yes, once.
    fn knows_enough(&self, _inputs: Inputs<'_>) -> bool {
        true
    }

    /// Objects changed, before [`Self::begin`] only: for indexes, which are then ready when the last list is. Nothing is
    /// planned of it, for what is not there yet means nothing.
    fn store_fills(&mut self, _dirty: &Dirty, _inputs: Inputs<'_>) {}

    /// Planning begins: everything in the store is to be planned. O(objects), less what [`Self::store_fills`] did.
    fn begin(&mut self, inputs: Inputs<'_>);

    /// Objects changed, after [`Self::begin`] only. O(what they concern).
    fn store_changed(&mut self, dirty: &Dirty, inputs: Inputs<'_>);

    /// This node's links or addresses changed, after [`Self::begin`] only. `inputs` has the new facts.
    fn facts_changed(&mut self, before: &Facts, inputs: Inputs<'_>);

    /// Something that concerns one controller; whoever it does not concern hands it back.
    fn hear(&mut self, news: News, _inputs: Inputs<'_>) -> Option<News> {
        Some(news)
    }

    /// What is due to be planned, planned; it may be a part, so that not every plan is in memory at once. Asked again
    /// until nothing is due. O(what is planned).
    fn plan(&mut self, inputs: Inputs<'_>, now: Instant, in_kernel: InKernel<'_>) -> Vec<Planned>;

    /// Whether more is due than was planned, and sets may be filled meanwhile by what was. Only a controller whose gates
    /// are shut may say so: what it has not planned yet must look neither unwanted nor complete. Rules, which might look
    /// into a set that is not complete, wait until everything is planned, as do all lanes but that of sets.
    fn goes_on(&self) -> bool {
        false
    }

    /// Everything planned so far is in the kernel, or was refused. Followed by [`Self::plan`].
    fn programmed(&mut self) {}

    /// When [`Self::plan`] has something to do although nothing happened.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Groups of rows this controller may want, and whether it knows enough for unwanted ones to go. Every row it ever
    /// claims is in one. Before planning begins all of them are shut whatever this says.
    fn gates(&self) -> Vec<Gate>;

    /// Objects looked at since the last call, each with all that is wrong with it.
    fn take_found(&mut self) -> Vec<Found> {
        Vec::new()
    }

    /// Whether it decides about packets of this node's pods. A new one is then not let go before [`Self::guards`] it.
    fn guards_pods(&self) -> bool {
        false
    }

    /// Whether what decides about packets of this pod, which is one of this node's, is in the kernel as it should be by
    /// what is known now. O(what selects the pod + pods of this node).
    fn guards(&self, _pod: &Pod, _inputs: Inputs<'_>, _rows: &Reconciler<Owner>) -> bool {
        true
    }

    /// Adds to the status what only this controller can tell: whose a row is, what else it knows. O(what it tells).
    fn describe(&self, _inputs: Inputs<'_>, _rows: &Reconciler<Owner>, _status: &mut Status) {}

    /// Adds what this controller decides of the packets that are to be explained. O(what it adds).
    fn explain(&self, _inputs: Inputs<'_>, _rows: &Reconciler<Owner>, _explanation: &mut Explanation) {}

    /// What is to be done besides rows, since the last call.
    fn take_effects(&mut self) -> Vec<Effect> {
        Vec::new()
    }
}

impl Needs {
    /// Of nothing.
    pub fn none() -> Needs {
        Needs {
            watches: Vec::new(),
            lanes: Vec::new(),
            routes: RouteScope::default(),
            firewall: FirewallScope::default(),
            settings: Vec::new(),
            flows: false,
            audit: Duration::from_secs(24 * 3600),
            speaker: false,
        }
    }

    /// Of two controllers together.
    pub fn and(mut self, other: Needs) -> Needs {
        for selection in other.watches {
            match self.watches.iter_mut().find(|known| known.kind == selection.kind) {
                Some(known) => *known = known.clone().or(selection),
                None => self.watches.push(selection),
            }
        }
        self.lanes.extend(other.lanes);
        self.lanes.sort();
        self.lanes.dedup();
        self.settings.extend(other.settings);
        Needs {
            routes: self.routes.and(other.routes),
            firewall: self.firewall.and(other.firewall),
            flows: self.flows || other.flows,
            audit: self.audit.min(other.audit),
            speaker: self.speaker || other.speaker,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::model::Kind;

    #[test]
    fn a_kind_is_watched_once_and_widely_enough() {
        let needs = |watches| Needs { watches, ..Needs::none() };
        let proxy = needs(vec![Selection::not_headless(Kind::Service), Selection::pods_of("here")]);
        let policy = needs(vec![Selection::all(Kind::Pod), Selection::all(Kind::Node)]);
        let both = proxy.clone().and(policy).watches;
        let expected =
            [Selection::not_headless(Kind::Service), Selection::all(Kind::Pod), Selection::all(Kind::Node)];
        assert_eq!(both, expected);
        assert_eq!(proxy.clone().and(proxy.clone()).watches, proxy.watches, "the same wish stays narrow");
    }

    #[test]
    fn lanes_and_audits_are_those_of_the_most_demanding() {
        let needs = |lanes: &[LaneName], seconds| Needs {
            lanes: lanes.to_vec(),
            audit: Duration::from_secs(seconds),
            ..Needs::none()
        };
        let both = needs(&[LaneName::Firewall, LaneName::Sysctl], 300).and(needs(&[LaneName::Firewall], 60));
        assert_eq!(
            (both.lanes.as_slice(), both.audit.as_secs()),
            (&[LaneName::Sysctl, LaneName::Firewall][..], 60)
        );
    }
}

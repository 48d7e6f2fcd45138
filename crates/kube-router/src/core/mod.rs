//! The core: one thread that owns the store, every plan and the reconciler.
//!
//! Watches, lanes and kernel notifications send it messages; it answers by handing jobs to lanes. Nothing else in the
//! process holds state that decides what is in the kernel, so there are no locks and no order of events to get wrong:
//!
//! ```text
//! watches ─┐                                          ┌─► lanes (one thread each) ─┐
//! kernel  ─┼─► inbox ─► store ─► controllers ─► reconciler                         │
//! drains  ─┘     ▲                    └─► effects     └─► conntrack                 │
//!                └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Decided here: when a controller knows enough to plan (its lists complete, its lanes read, this node found), and who
//! is told of an event. How things are planned, ordered and written is decided elsewhere. The core knows controllers
//! by their trait only.

mod asked;
mod backend;
mod controller;
mod controllers;
mod dispatch;
mod effect;
mod flows;
mod input;
mod kernel;
mod lanes;
mod leftovers;
mod ownership;
mod planning;
mod purge;
mod removal;
mod report;
mod speaker;
mod start;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::lane::LaneThread;
use linux::nftables::monitor::Monitor;
use linux::reconciler::Reconciler;
use linux::row::LaneName;
use tokio::sync::mpsc;

pub use self::backend::nftables_names;
pub use self::controller::{Controller, Found, InKernel, Inputs, Needs, Planned};
use self::controllers::Running;
pub use self::controllers::{all_controllers, enabled_controllers, needs};
use self::effect::Edges;
pub use self::effect::Effect;
pub use self::input::{Account, Input, News, Sandbox};
pub use self::lanes::LaneError;
pub(crate) use self::lanes::{cni_files, cni_lane};
use self::leftovers::Leftovers;
pub use self::ownership::Ownership;
use self::purge::Purge;
pub use self::removal::{Lanes, RemovalError, Told, remove_all};
use self::report::Reporter;
pub use self::start::Start;
pub use self::waiting::Progress;
use self::waiting::Waiting;
use crate::health::{Awaited, Beat};
use crate::node::{Facts, ThisNode};
use crate::options::Options;
use crate::owner::Owner;
use crate::store::{Dirty, Store};

/// Messages taken in before plans are made: bounds how long a burst can hold up the kernel.
const BURST: usize = 64;

/// Room in the inbox: watches wait when it is full. Of events there are [`watch::Tuning::batch`] in a message at most.
///
/// [`watch::Tuning::batch`]: crate::kube::watch::Tuning::batch
pub const INBOX: usize = 256;

/// Everything the core owns. See the module.
pub struct Core {
    options: Arc<Options>,
    inbox: mpsc::Receiver<Input>,
    store: Store,
    node: ThisNode,
    controllers: Vec<Running>,
    reconciler: Reconciler<Owner>,
    ownership: Ownership,
    lanes: BTreeMap<LaneName, (LaneThread, Beat)>,
    /// Where there is an IPVS lane.
    purge: Option<Purge>,
    edges: Edges,
    waiting: Waiting,
    /// Some controller has planned a part; see [`Controller::goes_on`].
    partly_planned: bool,
    /// Rules of a controller that has just begun wait for their sets, until this moment at most; see [`dispatch::RULES_WAIT`].
    rules_wait: Option<Instant>,
    reporter: Reporter,
    started: Instant,
    beat: Beat,
    ready: Awaited,
    /// Which packet filter is written to, by name; none where no controller needs one.
    firewall: Option<&'static str>,
    /// What the other one holds, until it is removed.
    leftovers: Option<Leftovers>,
    /// Tells what others change in ours.
    _monitor: Option<Monitor>,
    audit: Duration,
    audit_at: Instant,
}

impl Core {
    /// Runs until every sender is gone.
    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { return };
        let mut burst = Vec::with_capacity(BURST);
        self.dispatch(Instant::now());
        loop {
            let deadline = if self.partly_planned { Instant::now() } else { self.next_deadline() };
            let inbox = &mut self.inbox;
            let received = runtime.block_on(async {
                tokio::time::timeout_at(deadline.into(), inbox.recv_many(&mut burst, BURST)).await
            });
            if received == Ok(0) {
                return;
            }
            self.beat.has_work();
            let now = Instant::now();
            let mut dirty = Dirty::default();
            for input in burst.drain(..) {
                self.take(input, &mut dirty, now);
            }
            self.follow(&dirty);
            self.begin(now);
            self.plan(now);
            self.dispatch(now);
            if !self.partly_planned && self.confirm() {
                self.plan(now);
                self.dispatch(now);
            }
            self.tell_waiting();
            self.reporter.rows(&self.reconciler);
            self.reporter.programs();
            self.reporter.concerns(&self.reconciler, &self.store);
            self.reporter.requests();
            self.beat.idle();
        }
    }

    fn take(&mut self, input: Input, dirty: &mut Dirty, now: Instant) {
        match input {
            Input::Watch(events) => {
                for event in events {
                    self.reporter.watch(&event);
                    self.store.take_in(event, dirty);
                }
            }
            Input::Lane(report) => self.take_report(report, now),
            Input::Facts(facts) => self.take_facts(facts),
            Input::Changed(keys) => {
                for (key, row) in keys {
                    self.reconciler.observed(&key, row);
                }
            }
            Input::Reread(lane) => self.reconciler.request_read(lane),
            Input::Stop(done) => self.edges.stop(done),
            Input::Status(answer) => {
                // Whoever gave up waiting needs no answer.
                let _ = answer.send(Account { status: Box::new(self.status()), peers: self.edges.peers() });
            }
            Input::Explain(question, answer) => {
                let _ = answer.send(self.explain(&question));
            }
            Input::Sandbox(Sandbox::Wired(told, asker)) => {
                if let Some(asker) = asker {
                    self.waiting.add(told.clone(), asker);
                }
                dirty.merge(self.store.announce(told));
            }
            Input::Sandbox(Sandbox::Removed { pod, container }) => {
                self.waiting.sandbox_removed(&pod, &container);
                dirty.merge(self.store.sandbox_removed(&pod, &container));
            }
            Input::News(news) => {
                let (controllers, inputs) = self.parts();
                let mut news = Some(news);
                for running in controllers {
                    news = news.and_then(|news| running.controller.hear(news, inputs));
                }
            }
        }
    }

    /// Settings of links are taken as they were when first seen: later readings show our own values.
    fn take_facts(&mut self, mut facts: Facts) {
        facts.random_fully = self.node.facts.random_fully;
        facts.verdict_maps = self.node.facts.verdict_maps;
        facts.forwards_v6 = self.node.facts.forwards_v6;
        let known = &self.node.facts;
        for (read, before) in
            [(&mut facts.rp_filter, &known.rp_filter), (&mut facts.accept_ra, &known.accept_ra)]
        {
            for (link, value) in read {
                *value = before.get(link).copied().unwrap_or(*value);
            }
        }
        let before = std::mem::replace(&mut self.node.facts, facts);
        if before == self.node.facts {
            return;
        }
        let (controllers, inputs) = self.parts();
        for running in controllers.iter_mut().filter(|running| running.planning) {
            running.controller.facts_changed(&before, inputs);
        }
    }

    /// Controllers, and what they plan from.
    fn parts(&mut self) -> (&mut [Running], Inputs<'_>) {
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        (&mut self.controllers, inputs)
    }
}

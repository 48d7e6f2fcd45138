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

mod backend;
mod controller;
mod controllers;
mod effect;
mod flows;
mod input;
mod kernel;
mod lanes;
mod leftovers;
mod ownership;
mod purge;
mod removal;
mod report;
mod speaker;
mod start;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::conntrack::Flows;
use linux::lane::{LaneThread, Report};
use linux::nftables::monitor::Monitor;
use linux::reconciler::Reconciler;
use linux::row::{Key, LaneName};
use tokio::sync::mpsc;

pub use self::backend::nftables_names;
pub use self::controller::{Controller, Found, InKernel, Inputs, Needs, Planned};
use self::controllers::Running;
pub use self::controllers::{all_controllers, enabled_controllers, needs};
use self::effect::Edges;
pub use self::effect::Effect;
pub use self::input::{Account, Input, News, Sandbox};
pub use self::lanes::LaneError;
pub(crate) use self::lanes::cni_lane;
use self::leftovers::Leftovers;
pub use self::ownership::Ownership;
use self::purge::Purge;
pub use self::removal::{Lanes, RemovalError, remove_all};
use self::report::Reporter;
pub use self::start::Start;
pub use self::waiting::Progress;
use self::waiting::Waiting;
use crate::explain::{self, Explanation, Question, Unanswerable};
use crate::health::{Awaited, Beat};
use crate::kube::model::Kind;
use crate::node::{Facts, ThisNode};
use crate::options::Options;
use crate::owner::Owner;
use crate::status::{ControllerState, Status, collect};
use crate::store::{Dirty, Store};
use crate::version;

/// Messages taken in before plans are made: bounds how long a burst can hold up the kernel.
const BURST: usize = 64;

/// Room in the inbox: watches wait when it is full. Of events there are [`watch::Tuning::batch`] in a message at most.
///
/// [`watch::Tuning::batch`]: crate::kube::watch::Tuning::batch
pub const INBOX: usize = 256;

/// How long the first rules of a controller may wait until sets are filled. What looks into no set need not wait, but
/// would be a transaction of its own, and a process, which makes all others later. Where sets change all the time the
/// wait must have an end.
const RULES_WAIT: Duration = Duration::from_secs(1);

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
    /// Rules of a controller that has just begun wait for their sets, until this moment at most; see [`RULES_WAIT`].
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
                    dirty.merge(self.store.apply(event));
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

    /// What is known and done. O(virtual servers and their backends).
    fn status(&self) -> Status {
        let mut status = Status {
            node: self.node.name.to_string(),
            version: version::VERSION.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            firewall: self.firewall.map(str::to_owned),
            ..Status::default()
        };
        let kinds: BTreeSet<Kind> = self
            .controllers
            .iter()
            .flat_map(|running| &running.needs.watches)
            .map(|watch| watch.kind)
            .collect();
        collect::watches(&self.store, kinds.into_iter(), &mut status);
        collect::rows(&self.reconciler, &mut status);
        collect::announced(&self.store, &mut status);
        collect::objections(self.store.objections().iter(), &mut status);
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in &self.controllers {
            let name = running.controller.name().to_owned();
            status.controllers.push(ControllerState { name, planning: running.planning });
            collect::objections(running.objections.iter(), &mut status);
            running.controller.describe(inputs, &self.reconciler, &mut status);
        }
        status
    }

    /// What becomes of packets: each controller that plans adds its part, in the order in which a packet meets them.
    fn explain(&self, question: &Question) -> Result<Box<Explanation>, Unanswerable> {
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        let mut explanation = Box::new(explain::begin(question, inputs)?);
        for running in &self.controllers {
            if running.planning {
                running.controller.explain(inputs, &self.reconciler, &mut explanation);
            } else {
                explanation
                    .notes
                    .push(format!("{} does not plan yet, for want of input", running.controller.name()));
            }
        }
        Ok(explanation)
    }

    fn take_report(&mut self, report: Report, now: Instant) {
        let lane = match report {
            Report::Applied(lane, outcomes) => {
                let reconciler = &self.reconciler;
                self.reporter.applied(lane, &outcomes, |key| reconciler.desired(key).is_some());
                let removed: Vec<Flows> = outcomes
                    .iter()
                    .filter_map(|(key, outcome)| {
                        let gone = outcome.is_ok() && self.reconciler.desired(key).is_none();
                        gone.then(|| purge::flows_of(key)).flatten()
                    })
                    .collect();
                self.reconciler.applied(lane, outcomes, now);
                if let Some(purge) = &self.purge {
                    removed.into_iter().for_each(|flows| purge.ask(flows));
                }
                lane
            }
            Report::Read(lane, Ok(rows)) => {
                self.ownership.note(&self.reconciler, &rows);
                let ownership = self.ownership.of(&self.reconciler, &rows, &self.node);
                self.reconciler.was_read(lane, rows, |key, row| ownership.is_ours(key, row));
                if lane == LaneName::Ipvs {
                    self.ownership.judged();
                }
                lane
            }
            Report::Read(lane, Err(error)) => {
                self.reporter.unreadable(lane, &error);
                self.reconciler.read_failed(lane, now);
                lane
            }
        };
        if let Some((_, beat)) = self.lanes.get(&lane) {
            beat.progressed();
            beat.idle();
        }
    }

    /// The setting of a reverse path filter is taken as it was when first seen: later readings show our own values.
    fn take_facts(&mut self, mut facts: Facts) {
        facts.random_fully = self.node.facts.random_fully;
        facts.verdict_maps = self.node.facts.verdict_maps;
        for (link, value) in &mut facts.rp_filter {
            *value = self.node.facts.rp_filter.get(link).copied().unwrap_or(*value);
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

    /// Tells those who plan what the changes in the store are. O(controllers) besides what each of them does.
    fn follow(&mut self, dirty: &Dirty) {
        for objection in &dirty.objections {
            tracing::warn!("{objection}");
        }
        if dirty.own_node {
            self.take_node();
        }
        let (controllers, inputs) = self.parts();
        let mut told = false;
        for running in controllers.iter_mut() {
            if running.planning {
                running.controller.store_changed(dirty, inputs);
                told = true;
            } else {
                running.controller.store_fills(dirty, inputs);
            }
        }
        if told {
            self.reporter.due(&dirty.services, &self.store);
        }
    }

    /// A Node object that goes away or loses all its addresses says nothing about the node: what was known stays.
    fn take_node(&mut self) {
        match self.store.own_node().filter(|node| node.primary_ip().is_some()) {
            Some(node) => {
                let node = node.clone().keeping(self.node.object.as_ref());
                self.node.object = Some(node);
            }
            None => self.reporter.node_unknown(&self.node.name),
        }
    }

    /// Lets controllers begin to plan that know enough now: before that, absence means nothing and must delete nothing.
    /// A lane whose tables cannot be read holds up its own writes, not the others'.
    fn begin(&mut self, now: Instant) {
        let addressed = self.node.object.as_ref().is_some_and(|node| node.primary_ip().is_some());
        let located = addressed && !self.node.facts.addresses.is_empty();
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in self.controllers.iter_mut().filter(|running| !running.planning) {
            let listed = running.needs.watches.iter().all(|watch| self.store.synced(watch.kind));
            if listed && !addressed {
                self.reporter.node_unknown(&self.node.name);
            }
            let read = running.needs.lanes.iter().all(|lane| self.reconciler.has_answered(*lane));
            if listed && read && located && running.controller.knows_enough(inputs) {
                running.planning = true;
                if running.needs.lanes.contains(&LaneName::Firewall) {
                    self.rules_wait = Some(now + RULES_WAIT);
                }
                self.reporter.planning(running.controller.name(), &self.store);
                running.controller.begin(inputs);
            }
        }
    }

    /// Plans what is due, or of a controller that goes on a part of it, and does what else follows.
    fn plan(&mut self, now: Instant) {
        self.partly_planned = false;
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in self.controllers.iter_mut().filter(|running| running.planning) {
            loop {
                let reconciler = &self.reconciler;
                let inside = |key: &Key| {
                    let itself = reconciler.actual(key).is_some().then_some(key).into_iter();
                    itself.chain(reconciler.contents(key).map(|(key, _)| key)).cloned().collect()
                };
                let planned = running.controller.plan(inputs, now, &inside);
                if planned.is_empty() {
                    break;
                }
                running.unconfirmed = true;
                for (owner, claims) in planned {
                    self.reconciler.set(&owner, claims);
                }
                if running.controller.goes_on() {
                    self.partly_planned = true;
                    break;
                }
            }
            for (object, found) in running.controller.take_found() {
                running.objections.report(&object, found);
            }
            running.controller.take_effects().into_iter().for_each(|effect| self.edges.perform(effect));
        }
        self.reconciler.allow_removals(self.controllers.iter().flat_map(Running::gates));
        let found = self.controllers.iter().map(|running| running.objections.objects());
        self.reporter.rejected(found.sum::<usize>() + self.store.objections().objects());
    }

    /// Tells controllers whose lanes have come to rest that what they planned is in the kernel. Says whether it told any.
    fn confirm(&mut self) -> bool {
        let mut told = false;
        for running in self.controllers.iter_mut().filter(|running| running.unconfirmed) {
            if running.needs.lanes.iter().all(|lane| self.reconciler.is_at_rest(*lane)) {
                running.unconfirmed = false;
                running.controller.programmed();
                told = true;
            }
        }
        told
    }

    /// Hands every free lane its next job.
    fn dispatch(&mut self, now: Instant) {
        if now >= self.audit_at {
            self.audit_at = now + self.audit;
            self.lanes.keys().for_each(|lane| self.reconciler.request_read(*lane));
        }
        // In the order of lanes: sets have their job before it is asked whether rules wait for it.
        for (name, (lane, beat)) in &self.lanes {
            let early = match name {
                LaneName::Sets => false,
                LaneName::Ipvs => self.partly_planned || !self.ledger_is_read(),
                LaneName::Firewall => self.partly_planned || self.sets_come_first(now),
                LaneName::Sysctl | LaneName::Route | LaneName::Cni => self.partly_planned,
            };
            if early {
                continue;
            }
            if *name == LaneName::Firewall {
                self.rules_wait = None;
            }
            let Some(job) = self.reconciler.next_job(*name, now) else { continue };
            beat.has_work();
            self.reporter.started(*name, &job);
            // A lane thread that is gone leaves its job unanswered; its beat turns /healthz red.
            lane.start(job);
        }
        if !self.reconciler.is_busy(LaneName::Ipvs) {
            self.reporter.nothing_due();
        }
        for notice in self.reconciler.take_notices() {
            self.reporter.notice(&notice);
        }
        let planned = !self.partly_planned && self.controllers.iter().all(|running| running.planning);
        if planned && self.reconciler.is_settled() {
            self.ready.done();
            self.take_over();
        }
    }

    /// Everything of ours is in the kernel: what a predecessor wrote through the other packet filter may go. Where a row
    /// of ours is refused it stays, because it may be what enforces that row's purpose.
    fn take_over(&mut self) {
        let Some(leftovers) = self.leftovers.take() else { return };
        let filters = [LaneName::Sets, LaneName::Firewall];
        let refused = self
            .reconciler
            .counts()
            .any(|(table, count)| filters.contains(&table.lane()) && count.refused > 0);
        if refused {
            self.leftovers = Some(leftovers);
        } else if let Err(error) = leftovers.remove() {
            tracing::warn!("{error}; the other packet filter's rules stay until the next start");
        }
    }

    /// Whether the first rules of a controller wait for sets that are being filled. Sets that cannot be read are not waited
    /// for.
    fn sets_come_first(&self, now: Instant) -> bool {
        let filling =
            self.reconciler.is_adopted(LaneName::Sets) && !self.reconciler.is_at_rest(LaneName::Sets);
        filling && self.rules_wait.is_some_and(|until| now < until)
    }

    /// Whose a virtual server is can be told only with what the other lanes read, and with the node's addresses.
    fn ledger_is_read(&self) -> bool {
        let lanes = [LaneName::Route, LaneName::Sets];
        lanes.iter().all(|lane| self.reconciler.has_answered(*lane)) && !self.node.facts.addresses.is_empty()
    }

    /// Lets pods go whose rules are in the kernel.
    fn tell_waiting(&mut self) {
        let Core { waiting, store, node, options, controllers, reconciler, .. } = self;
        let inputs = Inputs { store, node, options };
        waiting.tell(|told| {
            for running in controllers.iter().filter(|running| running.controller.guards_pods()) {
                let name = running.controller.name();
                if !running.planning {
                    return Progress::NotPlanning(name);
                }
                let Some(pod) = store.wired(told) else { return Progress::Unseen };
                if !running.controller.guards(pod, inputs, reconciler) {
                    return Progress::NotInKernel(name);
                }
            }
            Progress::Ready
        });
    }

    fn next_deadline(&self) -> Instant {
        let planned = self.controllers.iter().filter_map(|running| running.controller.next_deadline());
        let rest = self.reconciler.next_deadline().into_iter().chain(self.rules_wait).chain([self.audit_at]);
        planned.chain(rest).min().unwrap_or(self.audit_at)
    }

    /// Controllers, and what they plan from.
    fn parts(&mut self) -> (&mut [Running], Inputs<'_>) {
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        (&mut self.controllers, inputs)
    }
}

//! The core: one thread that owns the store, every plan and the reconciler.
//!
//! Watches, lanes and kernel notifications send it messages; it answers by handing jobs to lanes. Nothing else in the
//! process holds state that decides what is in the kernel, so there are no locks and no order of events to get wrong:
//!
//! ```text
//! watches ─┐                                   ┌─► lanes (one thread each) ─┐
//! kernel  ─┼─► inbox ─► store ─► plan ─► reconciler                         │
//! drains  ─┘     ▲                             └─► conntrack, health ports  │
//!                └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Decided here: when there is enough known to plan (every list complete, every lane read, this node found), and what
//! follows from an event. How things are planned, ordered and written is decided elsewhere.

mod input;
mod kernel;
mod lanes;
mod ownership;
mod purge;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::conntrack::Flows;
use linux::lane::{LaneThread, Report};
use linux::reconciler::Reconciler;
use linux::row::{Key, LaneName, Name, VirtualServerKey};
use tokio::sync::mpsc;

pub use self::input::Input;
use self::kernel::DrainWatch;
pub use self::lanes::{LaneError, scopes};
pub use self::ownership::Ownership;
use self::purge::Purge;
use self::report::Reporter;
use crate::health::{Awaited, Beat, Health};
use crate::health_ports;
use crate::kube::model::Kind;
use crate::metrics::Metrics;
use crate::network_services::{Inputs, NetworkServices};
use crate::node::{Facts, ThisNode};
use crate::objection::Objections;
use crate::options::Options;
use crate::owner::Owner;
use crate::store::{Dirty, Store};

/// Messages taken in before plans are made: bounds how long a burst can hold up the kernel.
const BURST: usize = 1024;
/// How long a lane may work on one job before `/healthz` says so: an xtables lock is waited for much shorter.
const LANE_PERIOD: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);

/// Room in the inbox: watches wait when it is full.
pub const INBOX: usize = 4096;

/// Everything the core owns. See the module.
pub struct Core {
    options: Arc<Options>,
    inbox: mpsc::Receiver<Input>,
    store: Store,
    node: ThisNode,
    services: NetworkServices,
    reconciler: Reconciler<Owner>,
    ownership: Ownership,
    lanes: BTreeMap<LaneName, (LaneThread, Beat)>,
    purge: Purge,
    drains: DrainWatch,
    drains_version: u64,
    health_ports: health_ports::Wanted,
    health_version: u64,
    reporter: Reporter,
    objections: Objections,
    beat: Beat,
    ready: Awaited,
    planning: bool,
    audit_at: Instant,
}

impl Core {
    /// Starts lanes and kernel watches in the calling thread's network namespace, and the core's own thread.
    ///
    /// # Errors
    /// When the kernel lacks what the service proxy stands on; the text says what, and the remedy.
    pub fn start(
        node: &str,
        options: Arc<Options>,
        health: &Health,
        metrics: &Metrics,
        ready: Awaited,
        wanted: health_ports::Wanted,
    ) -> Result<mpsc::Sender<Input>, LaneError> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let opened = lanes::open(&options, &sender)?;
        let lanes = opened.lanes.into_iter().map(|(name, lane)| {
            let beat = health.watch(lanes::health_name(name), LANE_PERIOD, GRACE);
            (name, (lane, beat))
        });
        let name = Name::from(node);
        let facts = Facts { random_fully: opened.random_fully, ..Facts::default() };
        let core = Core {
            inbox,
            store: Store::new(name.clone()),
            node: ThisNode { name, object: None, facts },
            services: NetworkServices::default(),
            reconciler: Reconciler::new(),
            ownership: Ownership::new(&options),
            lanes: lanes.collect(),
            purge: Purge::start(metrics)?,
            drains: DrainWatch::start(&sender)?,
            drains_version: 0,
            health_ports: wanted,
            health_version: 0,
            reporter: Reporter::new(metrics.clone()),
            objections: Objections::default(),
            beat: health.watch("core", LANE_PERIOD, GRACE),
            ready,
            planning: false,
            audit_at: Instant::now() + options.service_proxy.sync_period,
            options,
        };
        kernel::watch(opened.own_ports, sender.clone())?;
        std::thread::Builder::new()
            .name("core".to_owned())
            .spawn(move || core.run())
            .map_err(|source| LaneError::Thread { what: "core", source })?;
        Ok(sender)
    }

    /// Runs until every sender is gone.
    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { return };
        let mut burst = Vec::with_capacity(BURST);
        self.dispatch(Instant::now());
        loop {
            let deadline = self.next_deadline();
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
            self.follow(dirty);
            self.plan(now);
            self.dispatch(now);
            self.reporter.rows(&self.reconciler);
            self.beat.idle();
        }
    }

    fn take(&mut self, input: Input, dirty: &mut Dirty, now: Instant) {
        match input {
            Input::Watch(event) => {
                self.reporter.watch(&event);
                dirty.merge(self.store.apply(event));
            }
            Input::Lane(report) => self.take_report(report, now),
            Input::Facts(facts) => self.take_facts(facts),
            Input::Changed(keys) => {
                for (key, row) in keys {
                    self.reconciler.observed(&key, row);
                }
            }
            Input::Reread(lane) => self.reconciler.request_read(lane),
            Input::Idle(servers) => servers.iter().for_each(|server| self.services.drained(server)),
            Input::Owners(answer) => {
                let owners = self.services.contests().winners();
                let owners = owners.map(|(key, winner)| (*key, winner.service.clone())).collect();
                // A scrape that gave up waiting needs no answer.
                let _ = answer.send(owners);
            }
        }
    }

    fn take_report(&mut self, report: Report, now: Instant) {
        let lane = match report {
            Report::Applied(lane, outcomes) => {
                self.reporter.applied(lane, &outcomes);
                let removed: Vec<Flows> = outcomes
                    .iter()
                    .filter_map(|(key, outcome)| {
                        let gone = outcome.is_ok() && self.reconciler.desired(key).is_none();
                        gone.then(|| purge::flows_of(key)).flatten()
                    })
                    .collect();
                self.reconciler.applied(lane, outcomes, now);
                removed.into_iter().for_each(|flows| self.purge.ask(flows));
                lane
            }
            Report::Read(lane, Ok(rows)) => {
                let ownership = self.ownership.of(&self.reconciler, &rows, &self.node);
                self.reconciler.was_read(lane, rows, |key, row| ownership.is_ours(key, row));
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
        for (link, value) in &mut facts.rp_filter {
            *value = self.node.facts.rp_filter.get(link).copied().unwrap_or(*value);
        }
        let before = std::mem::replace(&mut self.node.facts, facts);
        if !self.planning {
            return;
        }
        if before.seen_by_services() != self.node.facts.seen_by_services() {
            self.replan_everything();
        } else if before != self.node.facts {
            self.services.links_changed();
        }
    }

    /// What the changes in the store make due.
    fn follow(&mut self, dirty: Dirty) {
        for objection in &dirty.objections {
            tracing::warn!("{objection}");
        }
        if dirty.own_node {
            self.take_node();
        }
        if !self.planning {
            return;
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        self.services.pods_changed(&dirty.pods, inputs);
        if dirty.own_node {
            self.replan_everything();
        }
        for id in &dirty.services {
            let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
            let found = self.services.service_changed(id, inputs);
            self.objections.report(&id.of_kind(Kind::Service), found);
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for (id, found) in self.services.take_rivals(inputs) {
            self.objections.report(&id.of_kind(Kind::Service), found);
        }
        self.reporter.due(&dirty.services, &self.store);
        let stand = self.objections.objects() + self.store.objections().objects();
        self.reporter.rejected(stand);
    }

    fn replan_everything(&mut self) {
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for (id, found) in self.services.node_changed(inputs) {
            self.objections.report(&id.of_kind(Kind::Service), found);
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

    /// Plans what is due, once there is enough known: before that, absence means nothing and must delete nothing.
    fn plan(&mut self, now: Instant) {
        if !self.planning {
            if !self.knows_enough() {
                return;
            }
            self.planning = true;
            self.reporter.planning(&self.store);
            let pods = self.store.pods().map(|pod| pod.id.clone()).collect();
            let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
            self.services.pods_changed(&pods, inputs);
            self.replan_everything();
        }
        loop {
            let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
            let reconciler = &self.reconciler;
            let in_kernel = |key: &VirtualServerKey| {
                let key = Key::VirtualServer(*key);
                let inside = reconciler.contents(&key).filter_map(|(key, _)| match key {
                    Key::RealServer(_, ip, port) => Some((*ip, *port)),
                    _ => None,
                });
                inside.collect()
            };
            let planned = self.services.plan(inputs, now, &in_kernel);
            if planned.is_empty() {
                break;
            }
            for (owner, claims) in planned {
                self.reconciler.set(&owner, claims);
            }
        }
        self.reconciler.allow_removals();
        if self.drains_version != self.services.draining().version() {
            self.drains_version = self.services.draining().version();
            self.drains.watch(self.services.draining());
        }
        if self.health_version != self.services.health_ports().version() {
            self.health_version = self.services.health_ports().version();
            self.health_ports.send_replace(Arc::new(self.services.health_ports().wanted()));
        }
    }

    fn knows_enough(&mut self) -> bool {
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Pod];
        let listed = kinds.iter().all(|kind| self.store.synced(*kind));
        // A lane whose tables cannot be read holds up its own writes, not the others'.
        let read = LaneName::ALL.iter().all(|lane| self.reconciler.has_answered(*lane));
        let addressed = self.node.object.as_ref().is_some_and(|node| node.primary_ip().is_some());
        if listed && !addressed {
            self.reporter.node_unknown(&self.node.name);
        }
        listed && read && addressed && !self.node.facts.addresses.is_empty()
    }

    /// Hands every free lane its next job.
    fn dispatch(&mut self, now: Instant) {
        if now >= self.audit_at {
            self.audit_at = now + self.options.service_proxy.sync_period;
            LaneName::ALL.iter().for_each(|lane| self.reconciler.request_read(*lane));
        }
        for (name, (lane, beat)) in &self.lanes {
            if *name == LaneName::Ipvs && !self.ledger_is_read() {
                continue;
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
        if self.planning && self.reconciler.is_settled() {
            self.ready.done();
        }
    }

    /// Whose a virtual server is can be told only with what the other lanes read, and with the node's addresses.
    fn ledger_is_read(&self) -> bool {
        let lanes = [LaneName::Route, LaneName::Firewall];
        lanes.iter().all(|lane| self.reconciler.has_answered(*lane)) && !self.node.facts.addresses.is_empty()
    }

    fn next_deadline(&self) -> Instant {
        let others = [self.reconciler.next_deadline(), self.services.next_deadline()];
        others.into_iter().flatten().chain([self.audit_at]).min().unwrap_or(self.audit_at)
    }
}

//! Telling people: log lines and metrics of what the core does. Decides nothing but what is worth a line.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use linux::command;
use linux::lane::{Job, ReadError, Refusal};
use linux::netlink::Requests;
use linux::reconciler::{Notice, Reconciler};
use linux::row::{Family, Key, LaneName, Table};

use crate::health::Health;
use crate::kube::model::{Kind, ObjectName, WatchEvent};
use crate::metrics::Metrics;
use crate::names;
use crate::owner::Owner;
use crate::store::Store;

/// Logs and counts.
#[derive(Debug)]
pub(super) struct Reporter {
    metrics: Metrics,
    started: HashMap<LaneName, Instant>,
    said_unknown: bool,
    /// Services whose endpoints changed at a known time (milliseconds since 1970) and whose rows are not all there yet.
    due: HashMap<ObjectName, i64>,
    /// The latest change that was counted, or when planning began; milliseconds since 1970.
    last_triggered: i64,
    drifted: HashMap<Table, u64>,
    sent: Vec<Sent>,
    health: Health,
    /// As `/readyz` tells them.
    concerns: Vec<String>,
}

/// Netlink requests of one interface, and how many of them the metrics know of.
#[derive(Debug)]
struct Sent {
    family: &'static str,
    requests: Arc<Requests>,
    told: [u64; 3],
}

impl Reporter {
    pub(super) fn new(
        metrics: Metrics,
        health: Health,
        requests: Vec<(&'static str, Arc<Requests>)>,
    ) -> Reporter {
        let sent = requests.into_iter().map(|(family, requests)| Sent { family, requests, told: [0; 3] });
        Reporter {
            metrics,
            started: HashMap::new(),
            said_unknown: false,
            due: HashMap::new(),
            last_triggered: 0,
            drifted: HashMap::new(),
            sent: sent.collect(),
            health,
            concerns: Vec::new(),
        }
    }

    pub(super) fn watch(&self, event: &WatchEvent) {
        let resource = |kind: &Kind| self.metrics.watch_synced.with_label_values(&[kind.as_str()]);
        match event {
            WatchEvent::ListBegins(kind) => {
                self.metrics.watch_restarts.with_label_values(&[kind.as_str()]).inc();
            }
            WatchEvent::ListEnds(kind) | WatchEvent::Mended(kind) => resource(kind).set(1),
            WatchEvent::Broken(kind, why) => {
                resource(kind).set(0);
                tracing::warn!(
                    "watching {}s does not work: {why}; what is known stays in force",
                    kind.as_str()
                );
            }
            _ => {}
        }
    }

    pub(super) fn planning(&mut self, controller: &str, store: &Store) {
        self.last_triggered = now_in_ms();
        let services = store.services().count();
        tracing::info!(
            controller,
            services,
            "every list is complete and the kernel is read: programming begins"
        );
    }

    pub(super) fn node_unknown(&mut self, name: &str) {
        if !std::mem::replace(&mut self.said_unknown, true) {
            tracing::warn!(
                "there is no Node object named {name:?} with an address; nothing is programmed until there is one \
                 (--hostname-override or NODE_NAME set the name)"
            );
        }
    }

    /// Remembers when the endpoints of these Services changed, for programming latency.
    pub(super) fn due(&mut self, services: &BTreeSet<ObjectName>, store: &Store) {
        for id in services {
            let Some(triggered) = store.slices(id).filter_map(|slice| slice.triggered).max() else {
                continue;
            };
            // Each change counts once: an edit of the Service finds its slices' old times.
            if triggered > self.last_triggered {
                self.due.insert(id.clone(), triggered);
            }
        }
    }

    /// IPVS has nothing to do: what changed was no row of it.
    pub(super) fn nothing_due(&mut self) {
        self.due.clear();
    }

    pub(super) fn rejected(&self, objects: usize) {
        self.metrics.rejected_objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    pub(super) fn started(&mut self, lane: LaneName, job: &Job) {
        self.started.insert(lane, Instant::now());
        if let Job::Apply(stages) = job {
            let rows: usize = stages.iter().map(Vec::len).sum();
            tracing::debug!(?lane, rows, "applying");
            tracing::trace!(?stages);
        }
    }

    /// `wanted` says whether a key is to be there: what is not, was removed.
    pub(super) fn applied(
        &mut self,
        lane: LaneName,
        outcomes: &[(Key, Result<(), Refusal>)],
        wanted: impl Fn(&Key) -> bool,
    ) {
        let took = self.started.remove(&lane).map(|started| started.elapsed().as_secs_f64());
        self.times(lane, outcomes, took.unwrap_or_default());
        if lane == LaneName::Ipvs {
            self.programmed();
        }
        if lane == LaneName::Route {
            self.learned_routes(outcomes, took.unwrap_or_default(), wanted);
        }
        for (key, outcome) in outcomes {
            if outcome.is_err() {
                self.metrics.refusals.with_label_values(&[key.table().as_str()]).inc();
            }
        }
    }

    /// Counts routes of the main table: those are learned. `wanted` says whether a row is to be there.
    fn learned_routes(
        &self,
        outcomes: &[(Key, Result<(), Refusal>)],
        took: f64,
        wanted: impl Fn(&Key) -> bool,
    ) {
        let learned = |key: &Key| matches!(key, Key::Route { table: names::route::TABLE_MAIN, .. });
        let mut any = false;
        for (key, _) in outcomes.iter().filter(|(key, outcome)| learned(key) && outcome.is_ok()) {
            any = true;
            match wanted(key) {
                true => self.metrics.host_routes_added.inc(),
                false => self.metrics.host_routes_removed.inc(),
            }
        }
        if any {
            self.metrics.host_routes_sync_time.observe(took);
        }
    }

    /// Upstream's times of a sync, by what was changed.
    fn times(&self, lane: LaneName, outcomes: &[(Key, Result<(), Refusal>)], took: f64) {
        let any = |is_one: fn(&Key) -> bool| outcomes.iter().any(|(key, _)| is_one(key));
        match lane {
            LaneName::Firewall => {
                self.metrics.iptables_sync_time.observe(took);
                if any(|key| matches!(key, Key::Chain(chain) if is_policys(&chain.name))) {
                    self.metrics.policy_chains_sync_time.observe(took);
                }
            }
            LaneName::Sets => {
                let of_policy: [fn(&Key) -> bool; 2] =
                    [|key| is_policy_set(key, Family::V4), |key| is_policy_set(key, Family::V6)];
                for (histogram, is_one) in self.metrics.policy_ipset_restore_time.iter().zip(of_policy) {
                    if any(is_one) {
                        histogram.observe(took);
                    }
                }
                if any(is_routing_set) {
                    self.metrics.routes_sync_time.observe(took);
                }
            }
            LaneName::Ipvs => self.metrics.ipvs_services_sync_time.observe(took),
            LaneName::Route | LaneName::Sysctl | LaneName::Cni => {}
        }
    }

    /// Takes in how long programs ran that were started since the last call.
    pub(super) fn programs(&self) {
        for (program, took) in command::take_times() {
            let family = usize::from(program.starts_with("ip6"));
            let times = match program.rsplit('-').next() {
                Some("save") => &self.metrics.iptables_save_time,
                Some("restore") => &self.metrics.iptables_restore_time,
                _ => continue,
            };
            if let Some(histogram) = times.get(family) {
                histogram.observe(took.as_secs_f64());
            }
        }
    }

    /// Says in `/readyz` what is not as it should be although the agent works. O(tables + kinds); nothing is told if nothing
    /// changed.
    pub(super) fn concerns(&mut self, reconciler: &Reconciler<Owner>, store: &Store) {
        let refused = reconciler.counts().filter(|(_, count)| count.refused > 0);
        let mut concerns: Vec<String> = refused
            .map(|(table, count)| format!("refused: {} of {}", count.refused, table.as_str()))
            .collect();
        let broken = Kind::ALL.into_iter().filter_map(|kind| Some((kind, store.broken(kind)?)));
        concerns.extend(broken.map(|(kind, why)| format!("watch of {}s: {why}", kind.as_str())));
        if self.concerns != concerns {
            self.health.set_concerns(concerns.clone());
            self.concerns = concerns;
        }
    }

    /// Everything that was due when this batch was built is in the kernel now.
    fn programmed(&mut self) {
        let now = now_in_ms();
        for (_, triggered) in self.due.drain() {
            self.last_triggered = self.last_triggered.max(triggered);
            let age = now.saturating_sub(triggered);
            self.metrics.network_programming.observe(age.max(0) as f64 / 1000.0);
        }
    }

    pub(super) fn unreadable(&self, lane: LaneName, error: &ReadError) {
        tracing::warn!(?lane, "{error}; tried again shortly, what is there stays");
    }

    pub(super) fn notice(&self, notice: &Notice<Owner>) {
        let owners: Vec<String> = notice.owners.iter().map(Owner::to_string).collect();
        tracing::warn!(row = ?notice.key, owners = owners.join(", "), "{}", notice.reason);
    }

    /// Brings the counters of netlink requests up to date. O(lanes).
    pub(super) fn requests(&mut self) {
        for Sent { family, requests, told } in &mut self.sent {
            let now = [requests.reads(), requests.writes(), requests.interrupted()];
            for ((kind, now), told) in ["read", "write", "interrupted"].into_iter().zip(now).zip(told) {
                let more = now.saturating_sub(std::mem::replace(told, now));
                self.metrics.netlink_requests.with_label_values(&[family, kind]).inc_by(more);
            }
        }
    }

    /// Brings the gauges up to date. O(tables).
    pub(super) fn rows(&mut self, reconciler: &Reconciler<Owner>) {
        for (table, count) in reconciler.counts() {
            let label = [table.as_str()];
            let gauge = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
            self.metrics.rows_desired.with_label_values(&label).set(gauge(count.desired));
            self.metrics.rows_actual.with_label_values(&label).set(gauge(count.actual));
            self.metrics.rows_refused.with_label_values(&label).set(gauge(count.refused));
            let before = self.drifted.insert(table, count.drifted).unwrap_or(0);
            self.metrics.drift_healed.with_label_values(&label).inc_by(count.drifted.saturating_sub(before));
            if table == Table::VirtualServers {
                self.metrics.ipvs_services.set(gauge(count.actual));
            }
        }
    }
}

fn is_policys(chain: &str) -> bool {
    chain.starts_with(names::chain::POLICY_PREFIX) || chain.starts_with(names::chain::POD_PREFIX)
}

fn is_policy_set(key: &Key, family: Family) -> bool {
    let is_one = |name: &str| {
        name.starts_with(names::set::SOURCE_PREFIX) || name.starts_with(names::set::DESTINATION_PREFIX)
    };
    match key {
        Key::Set(set) => set.family == family && is_one(&set.name),
        Key::Member(set, _) => set.family == family && is_one(&set.name),
        _ => false,
    }
}

fn is_routing_set(key: &Key) -> bool {
    let is_one = |name: &str| [names::set::POD_SUBNETS, names::set::NODE_IPS].contains(&name);
    match key {
        Key::Set(set) => is_one(&set.name),
        Key::Member(set, _) => is_one(&set.name),
        _ => false,
    }
}

fn now_in_ms() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

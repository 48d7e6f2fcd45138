//! Telling people: log lines and metrics of what the core does. Decides nothing but what is worth a line.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use linux::lane::{Job, ReadError, Refusal};
use linux::netlink::Requests;
use linux::reconciler::{Notice, Reconciler};
use linux::row::{Key, LaneName, Table};

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
}

/// Netlink requests of one interface, and how many of them the metrics know of.
#[derive(Debug)]
struct Sent {
    family: &'static str,
    requests: Arc<Requests>,
    told: [u64; 2],
}

impl Reporter {
    pub(super) fn new(metrics: Metrics, requests: Vec<(&'static str, Arc<Requests>)>) -> Reporter {
        let sent = requests.into_iter().map(|(family, requests)| Sent { family, requests, told: [0; 2] });
        Reporter {
            metrics,
            started: HashMap::new(),
            said_unknown: false,
            due: HashMap::new(),
            last_triggered: 0,
            drifted: HashMap::new(),
            sent: sent.collect(),
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

    /// `wanted` says whether a row is to be there.
    pub(super) fn applied(
        &mut self,
        lane: LaneName,
        outcomes: &[(Key, Result<(), Refusal>)],
        wanted: impl Fn(&Key) -> bool,
    ) {
        let took = self.started.remove(&lane).map(|started| started.elapsed().as_secs_f64());
        if lane == LaneName::Firewall {
            self.metrics.iptables_sync_time.observe(took.unwrap_or_default());
        }
        if lane == LaneName::Ipvs {
            self.metrics.ipvs_services_sync_time.observe(took.unwrap_or_default());
            self.programmed();
        }
        let sets = [names::set::POD_SUBNETS, names::set::NODE_IPS];
        let of_nodes = |key: &Key| matches!(key, Key::Member(set, _) if sets.contains(&&*set.name));
        if lane == LaneName::Sets && outcomes.iter().any(|(key, _)| of_nodes(key)) {
            self.metrics.routes_sync_time.observe(took.unwrap_or_default());
        }
        if lane == LaneName::Route {
            self.learned_routes(outcomes, took, wanted);
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
        took: Option<f64>,
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
            self.metrics.host_routes_sync_time.observe(took.unwrap_or_default());
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
            let now = [requests.reads(), requests.writes()];
            for ((kind, now), told) in ["read", "write"].into_iter().zip(now).zip(told) {
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

fn now_in_ms() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

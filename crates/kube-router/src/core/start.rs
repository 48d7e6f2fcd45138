//! Starting the core: what the controllers need is opened, then its thread begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::reconciler::Reconciler;
use linux::row::{LaneName, Name};
use tokio::sync::mpsc;

use super::backend::Backend;
use super::controller::Controller;
use super::controllers::{Running, needs};
use super::effect::Edges;
use super::input::Input;
use super::lanes::{self, LaneError};
use super::leftovers::Leftovers;
use super::ownership::Ownership;
use super::purge::Purge;
use super::report::Reporter;
use super::waiting::Waiting;
use super::{Core, INBOX, kernel};
use crate::health::{Awaited, Health};
use crate::health_ports;
use crate::metrics::Metrics;
use crate::node::{Facts, ThisNode};
use crate::options::Options;
use crate::store::Store;

/// How long a lane may work on one job before `/healthz` says so: an xtables lock is waited for much shorter.
const LANE_PERIOD: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);

/// What the core is started with.
pub struct Start<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// The command line.
    pub options: Arc<Options>,
    /// What is to run; at least one.
    pub controllers: Vec<Box<dyn Controller>>,
    /// Where lanes and the core report that they work.
    pub health: &'a Health,
    /// Where they count.
    pub metrics: &'a Metrics,
    /// Told when the kernel is as it should be for the first time.
    pub ready: Awaited,
    /// Which health check ports are to listen.
    pub health_ports: health_ports::Wanted,
}

impl Core {
    /// Starts lanes and kernel watches in the calling thread's network namespace, and the core's own thread.
    ///
    /// # Errors
    /// When the kernel lacks what a controller stands on; the text says what, and the remedy.
    pub fn start(start: Start<'_>) -> Result<mpsc::Sender<Input>, LaneError> {
        let Start { node, options, controllers, health, metrics, ready, health_ports } = start;
        let (sender, inbox) = mpsc::channel(INBOX);
        let name = Name::from(node);
        let needs = needs(&controllers, &name, &options);
        let opened = lanes::open(&needs, &options, &sender)?;
        let lanes = opened.lanes.into_iter().map(|(name, lane)| {
            let beat = health.watch(lanes::health_name(name), LANE_PERIOD, GRACE);
            (name, (lane, beat))
        });
        let ipvs = needs.lanes.contains(&LaneName::Ipvs);
        let purge = ipvs.then(Purge::start).transpose()?;
        let requests = opened.requests.into_iter().chain(purge.as_ref().map(Purge::requests)).collect();
        let backend = opened.backend.as_ref();
        let facts = Facts {
            random_fully: backend.is_some_and(Backend::random_fully),
            verdict_maps: backend.is_some_and(Backend::verdict_maps),
            ..Facts::default()
        };
        for warning in backend.map(Backend::warnings).unwrap_or_default() {
            tracing::warn!("{warning}");
        }
        let mut ownership = Ownership::new(&options);
        if let Some(backend) = backend.filter(|_| ipvs)
            // A packet filter that cannot be read holds nothing.
            && let Ok(rows) = backend.others_ledger().read()
        {
            ownership.note(&Reconciler::new(), &rows);
        }
        let core = Core {
            inbox,
            store: Store::new(name.clone()),
            controllers: controllers
                .into_iter()
                .map(|controller| Running::new(controller, &name, &options))
                .collect(),
            node: ThisNode { name, object: None, facts },
            reconciler: Reconciler::with_lanes(needs.lanes.iter().copied()),
            ownership,
            lanes: lanes.collect(),
            purge,
            edges: Edges::open(&needs, &options, health_ports, &sender, metrics)?,
            waiting: Waiting::default(),
            partly_planned: false,
            rules_wait: None,
            reporter: Reporter::new(metrics.clone(), health.clone(), requests),
            started: Instant::now(),
            beat: health.watch("core", LANE_PERIOD, GRACE),
            ready,
            firewall: backend.map(Backend::name),
            leftovers: backend.map(|backend| Leftovers::beside(backend, &needs.firewall, &options)),
            _monitor: backend.map(|backend| backend.watch(&needs.firewall, &sender)).transpose()?.flatten(),
            audit: needs.audit,
            audit_at: Instant::now() + needs.audit,
            options,
        };
        kernel::watch(needs.routes, opened.own_ports, sender.clone())?;
        std::thread::Builder::new()
            .name("core".to_owned())
            .spawn(move || core.run())
            .map_err(|source| LaneError::Thread { what: "core", source })?;
        Ok(sender)
    }
}

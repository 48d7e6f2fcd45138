//! What controllers want done besides rows: handed out by them as values, performed here.
//!
//! Decided here: nothing. Unless it says otherwise, an effect replaces the one of its kind before it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::driver::PeerReport;
use linux::conntrack::Flow;
use linux::row::LaneName;
use linux::rt_tables;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use super::controller::Needs;
use super::flows::{FlowWatch, Question};
use super::input::Input;
use super::kernel::DrainWatch;
use super::lanes::LaneError;
use super::speaker::SpeakerEdge;
use crate::health_ports;
use crate::metrics::Metrics;
use crate::network_routes::speaker::Ask;
use crate::network_services::drain::RealServerKey;
use crate::network_services::health::HealthPort;
use crate::options::Options;

/// Something to be done. A variant for each thing that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// These real servers drain: tell when they are idle.
    WatchDrains(Vec<RealServerKey>),
    /// These `healthCheckNodePort`s listen, with these answers.
    HealthPorts(BTreeMap<u16, HealthPort>),
    /// This many chains and sets belong to network policies.
    PolicySize {
        /// Chains, of both families.
        chains: usize,
        /// Sets, of both families.
        sets: usize,
    },
    /// This many learned prefixes have a route.
    HostRoutes(usize),
    /// Tell which flows run from or to these addresses; every one is answered.
    ReadFlows(Vec<IpAddr>),
    /// These flows are forbidden from now on, or not any longer.
    MarkFlows {
        /// Which.
        flows: Vec<Flow>,
        /// Whether they are to be cut.
        forbidden: bool,
    },
    /// This routing table should have this name, for people.
    NameTable(u32, &'static str),
    /// Something the BGP speaker is to be or to announce.
    Speaker(Ask),
}

/// Those who do it.
pub(super) struct Edges {
    /// None where no controller has the IPVS lane.
    pub(super) drains: Option<DrainWatch>,
    pub(super) health_ports: health_ports::Wanted,
    /// None where no controller asks.
    pub(super) flows: Option<FlowWatch>,
    pub(super) metrics: Metrics,
    /// None where no controller speaks BGP.
    pub(super) speaker: Option<SpeakerEdge>,
}

impl Edges {
    /// Opens what is needed, inside of a tokio runtime.
    pub(super) fn open(
        needs: &Needs,
        options: &Options,
        health_ports: health_ports::Wanted,
        core: &Sender<Input>,
        metrics: &Metrics,
    ) -> Result<Edges, LaneError> {
        let ipvs = needs.lanes.contains(&LaneName::Ipvs);
        let drains = ipvs.then(|| DrainWatch::start(core)).transpose()?;
        let flows = needs.flows.then(|| FlowWatch::start(core, metrics)).transpose()?;
        let passwords = options.bgp.peer_passwords_file.clone();
        let speaker = needs
            .speaker
            .then(|| SpeakerEdge::start(&Handle::current(), passwords, core, metrics))
            .transpose()?;
        Ok(Edges { drains, health_ports, flows, metrics: metrics.clone(), speaker })
    }

    /// Ends what others would wait for; `done` is told then.
    pub(super) fn stop(&mut self, done: oneshot::Sender<()>) {
        match self.speaker.take() {
            Some(speaker) => speaker.stop(done),
            None => drop(done.send(())),
        }
    }

    /// Asks the BGP speaker for its peers, if there is one.
    pub(super) fn peers(&self) -> Option<oneshot::Receiver<Vec<PeerReport>>> {
        self.speaker.as_ref().map(SpeakerEdge::peers)
    }

    pub(super) fn perform(&self, effect: Effect) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        match effect {
            Effect::NameTable(number, name) => name_table(number, name),
            Effect::WatchDrains(servers) => {
                if let Some(drains) = &self.drains {
                    drains.watch(servers);
                }
            }
            Effect::PolicySize { chains, sets } => {
                self.metrics.policy_chains.set(gauge(chains));
                self.metrics.policy_ipsets.set(gauge(sets));
            }
            Effect::HostRoutes(count) => self.metrics.host_routes_synced.set(gauge(count)),
            Effect::ReadFlows(addresses) => self.ask_flows(Question::Touching(addresses)),
            Effect::MarkFlows { flows, forbidden } => self.ask_flows(Question::Mark { flows, forbidden }),
            Effect::Speaker(ask) => {
                if let Some(speaker) = &self.speaker {
                    speaker.ask(ask);
                }
            }
            Effect::HealthPorts(ports) => drop(self.health_ports.send_replace(Arc::new(ports))),
        }
    }

    fn ask_flows(&self, question: Question) {
        if let Some(flows) = &self.flows {
            flows.ask(question);
        }
    }
}

/// On a thread of its own: a file system may be slow. What fails is said; the table works without.
fn name_table(number: u32, name: &'static str) {
    let work = move || {
        if let Err(error) = rt_tables::ensure(number, name) {
            tracing::info!("{error}; `ip` shows the table as {number}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("rt_tables".to_owned()).spawn(work) {
        tracing::info!("naming the routing table {name}: {error}; `ip` shows it as {number}");
    }
}

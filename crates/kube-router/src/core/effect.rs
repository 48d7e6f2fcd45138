//! What controllers want done besides rows: handed out by them as values, performed here.
//!
//! Decided here: nothing. Each effect replaces the one of its kind before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux::row::LaneName;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use super::controller::Needs;
use super::input::Input;
use super::kernel::DrainWatch;
use super::lanes::LaneError;
use super::speaker::SpeakerEdge;
use crate::health_ports;
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
    /// Something the BGP speaker is to be or to announce.
    Speaker(Ask),
}

/// Those who do it.
pub(super) struct Edges {
    /// None where no controller has the IPVS lane.
    pub(super) drains: Option<DrainWatch>,
    pub(super) health_ports: health_ports::Wanted,
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
    ) -> Result<Edges, LaneError> {
        let ipvs = needs.lanes.contains(&LaneName::Ipvs);
        let drains = ipvs.then(|| DrainWatch::start(core)).transpose()?;
        let passwords = options.bgp.peer_passwords_file.clone();
        let speaker = needs.speaker.then(|| SpeakerEdge::start(&Handle::current(), passwords, core));
        Ok(Edges { drains, health_ports, speaker })
    }

    /// Ends what others would wait for; `done` is told then.
    pub(super) fn stop(&mut self, done: oneshot::Sender<()>) {
        match self.speaker.take() {
            Some(speaker) => speaker.stop(done),
            None => drop(done.send(())),
        }
    }

    pub(super) fn perform(&self, effect: Effect) {
        match effect {
            Effect::WatchDrains(servers) => {
                if let Some(drains) = &self.drains {
                    drains.watch(servers);
                }
            }
            Effect::Speaker(ask) => {
                if let Some(speaker) = &self.speaker {
                    speaker.ask(ask);
                }
            }
            Effect::HealthPorts(ports) => drop(self.health_ports.send_replace(Arc::new(ports))),
        }
    }
}

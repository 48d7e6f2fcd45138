//! What controllers want done besides rows: handed out by them as values, performed here.
//!
//! Decided here: nothing. Each effect replaces the one of its kind before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::input::Input;
use super::kernel::DrainWatch;
use super::lanes::LaneError;
use crate::health_ports;
use crate::network_services::drain::RealServerKey;
use crate::network_services::health::HealthPort;

/// Something to be done. A variant for each thing that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// These real servers drain: tell when they are idle.
    WatchDrains(Vec<RealServerKey>),
    /// These `healthCheckNodePort`s listen, with these answers.
    HealthPorts(BTreeMap<u16, HealthPort>),
}

/// Those who do it.
pub(super) struct Edges {
    /// None where no controller has the IPVS lane.
    pub(super) drains: Option<DrainWatch>,
    pub(super) health_ports: health_ports::Wanted,
}

impl Edges {
    /// Opens what is needed.
    pub(super) fn open(
        ipvs: bool,
        health_ports: health_ports::Wanted,
        core: &Sender<Input>,
    ) -> Result<Edges, LaneError> {
        let drains = ipvs.then(|| DrainWatch::start(core)).transpose()?;
        Ok(Edges { drains, health_ports })
    }

    pub(super) fn perform(&self, effect: Effect) {
        match effect {
            Effect::WatchDrains(servers) => {
                if let Some(drains) = &self.drains {
                    drains.watch(servers);
                }
            }
            Effect::HealthPorts(ports) => drop(self.health_ports.send_replace(Arc::new(ports))),
        }
    }
}

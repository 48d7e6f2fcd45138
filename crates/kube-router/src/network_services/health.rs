//! `healthCheckNodePort`: what a load balancer outside asks to know whether this node serves a Service.
//!
//! Decided here: for each port, which Service it speaks for and how many of its endpoints run here. The listeners are
//! in [`crate::health_ports`].

use std::collections::{BTreeMap, HashMap};

use crate::core::Inputs;
use crate::kube::model::{ObjectName, Service};

/// What one port answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPort {
    /// For which Service.
    pub service: ObjectName,
    /// Endpoints of this node that take new connections.
    pub local_endpoints: usize,
}

/// All of them, with the Services that ask for each.
#[derive(Debug, Default)]
pub struct HealthPorts {
    ports: BTreeMap<u16, BTreeMap<ObjectName, usize>>,
    of: HashMap<ObjectName, u16>,
    version: u64,
}

impl HealthPorts {
    /// Replaces what one Service asks for.
    pub fn replace(&mut self, service: &ObjectName, asked: Option<(u16, usize)>) {
        let before = self.of.get(service).copied();
        let counted = before.and_then(|port| self.ports.get(&port)?.get(service).copied());
        if before.zip(counted) == asked {
            return;
        }
        self.version += 1;
        if let Some(port) = self.of.remove(service) {
            if let Some(services) = self.ports.get_mut(&port) {
                services.remove(service);
            }
            self.ports.retain(|_, services| !services.is_empty());
        }
        if let Some((port, endpoints)) = asked {
            self.ports.entry(port).or_default().insert(service.clone(), endpoints);
            self.of.insert(service.clone(), port);
        }
    }

    /// Every Service that asks for a port.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.of.keys()
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Which ports should listen, and with which answer. Of two Services that name one port (the API server prevents
    /// it) the first by name has it.
    pub fn wanted(&self) -> BTreeMap<u16, HealthPort> {
        let first = |services: &BTreeMap<ObjectName, usize>| {
            let (service, local_endpoints) = services.first_key_value()?;
            Some(HealthPort { service: service.clone(), local_endpoints: *local_endpoints })
        };
        self.ports.iter().filter_map(|(port, services)| Some((*port, first(services)?))).collect()
    }
}

/// What a Service asks for: its port, and how many endpoints here take new connections.
pub fn of(service: &Service, inputs: Inputs<'_>) -> Option<(u16, usize)> {
    let port = service.health_check_port?;
    let endpoints = inputs.store.endpoints(&service.id);
    let here = endpoints.filter(|(_, endpoint)| {
        endpoint.node.as_deref() == Some(&*inputs.node.name) && endpoint.ready && !endpoint.terminating
    });
    let mut ips: Vec<_> = here.map(|(_, endpoint)| endpoint.ip).collect();
    ips.sort();
    ips.dedup();
    Some((port, ips.len()))
}

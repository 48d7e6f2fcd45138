//! The kernel's counters of our virtual servers, for a scrape.

use std::net::IpAddr;
use std::sync::Mutex;

use linux::ipvs::Connections;
use linux::row::VirtualServerKey;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Input, News};
use crate::metrics::{ServiceCounter, ServiceCounters};

/// Reads IPVS on a socket of its own and asks the core whose each virtual server is.
#[derive(Debug)]
pub struct IpvsCounters {
    core: mpsc::Sender<Input>,
    // Scrapes come one at a time as a rule; two at once take turns at the socket.
    ipvs: Mutex<Option<Connections>>,
}

impl IpvsCounters {
    /// Counters of the calling thread's network namespace.
    pub fn new(core: mpsc::Sender<Input>) -> IpvsCounters {
        IpvsCounters { core, ipvs: Mutex::new(Connections::open().ok()) }
    }
}

impl ServiceCounters for IpvsCounters {
    fn read(&self) -> Vec<ServiceCounter> {
        let (ask, answer) = oneshot::channel();
        if self.core.blocking_send(Input::News(News::Owners(ask))).is_err() {
            return Vec::new();
        }
        let Ok(owners) = answer.blocking_recv() else { return Vec::new() };
        let Ok(mut ipvs) = self.ipvs.lock() else { return Vec::new() };
        let Some(Ok(counters)) = ipvs.as_mut().map(Connections::service_counters) else { return Vec::new() };
        let named = counters.into_iter().filter_map(|(key, counters)| {
            let service = owners.get(&key)?;
            let VirtualServerKey::Address { ip, protocol, port } = key else { return None };
            Some(counter(service, (ip, protocol.as_str(), port), &counters))
        });
        named.collect()
    }
}

fn counter(
    service: &crate::kube::model::ObjectName,
    (vip, protocol, port): (IpAddr, &'static str, u16),
    counters: &linux::ipvs::Counters,
) -> ServiceCounter {
    ServiceCounter {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        vip,
        protocol,
        port,
        connections: counters.connections,
        packets_in: counters.packets_in,
        packets_out: counters.packets_out,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        cps: counters.connections_per_second,
        pps_in: counters.packets_in_per_second,
        pps_out: counters.packets_out_per_second,
        bps_in: counters.bytes_in_per_second,
        bps_out: counters.bytes_out_per_second,
    }
}

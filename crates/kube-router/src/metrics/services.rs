//! Upstream's `service_*` metrics: values of the kernel, read when someone asks.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Histogram, IntCounterVec};

use super::opts;

/// Reads the kernel's counters of our services.
pub trait ServiceCounters: Send + Sync {
    /// The counters now, one per address, protocol and port of a service. Blocks for a dump of IPVS. A kernel that does
    /// not answer has none.
    fn read(&self) -> Vec<ServiceCounter>;
}

/// The kernel's counters of one address, protocol and port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCounter {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The address.
    pub vip: IpAddr,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// Connections since the virtual server exists.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections a second, by the kernel's estimator.
    pub cps: u64,
    /// Packets a second from clients.
    pub pps_in: u64,
    /// Packets a second to clients.
    pub pps_out: u64,
    /// Bytes a second from clients.
    pub bps_in: u64,
    /// Bytes a second to clients.
    pub bps_out: u64,
}

type Field = fn(&ServiceCounter) -> u64;

/// Counters that only grow, with upstream's names.
const TOTALS: [(&str, &str, Field); 5] = [
    ("service_total_connections", "Connections to the service", |c| c.connections),
    ("service_packets_in", "Packets from clients", |c| c.packets_in),
    ("service_packets_out", "Packets to clients", |c| c.packets_out),
    ("service_bytes_in", "Bytes from clients", |c| c.bytes_in),
    ("service_bytes_out", "Bytes to clients", |c| c.bytes_out),
];

/// Rates, with upstream's names.
const RATES: [(&str, &str, Field); 5] = [
    ("service_cps", "Connections a second", |c| c.cps),
    ("service_pps_in", "Packets a second from clients", |c| c.pps_in),
    ("service_pps_out", "Packets a second to clients", |c| c.pps_out),
    ("service_bps_in", "Bytes a second from clients", |c| c.bps_in),
    ("service_bps_out", "Bytes a second to clients", |c| c.bps_out),
];

/// Names of all of them, without the prefix, and their labels.
pub(super) fn labels() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    const LABELS: &[&str] = &SERVICE_LABELS;
    TOTALS.into_iter().chain(RATES).map(|(name, ..)| (name, LABELS))
}

const SERVICE_LABELS: [&str; 5] = ["svc_namespace", "service_name", "service_vip", "protocol", "port"];

/// The `service_*` metrics with the values of one scrape.
struct ServiceFamilies {
    totals: Vec<(IntCounterVec, Field)>,
    rates: Vec<(GaugeVec, Field)>,
}

impl ServiceFamilies {
    fn new() -> prometheus::Result<Self> {
        let total = |(name, help, field): (&str, &str, Field)| {
            IntCounterVec::new(opts(name, help), &SERVICE_LABELS).map(|vec| (vec, field))
        };
        let rate = |(name, help, field): (&str, &str, Field)| {
            GaugeVec::new(opts(name, help), &SERVICE_LABELS).map(|vec| (vec, field))
        };
        Ok(Self {
            totals: TOTALS.into_iter().map(total).collect::<Result<_, _>>()?,
            rates: RATES.into_iter().map(rate).collect::<Result<_, _>>()?,
        })
    }

    fn fill(&self, counter: &ServiceCounter) {
        let (vip, port) = (counter.vip.to_string(), counter.port.to_string());
        let labels = [counter.namespace.as_str(), &counter.name, &vip, counter.protocol, &port];
        for (vec, field) in &self.totals {
            vec.with_label_values(&labels).inc_by(field(counter));
        }
        for (vec, field) in &self.rates {
            // Rates are far below 2^53, where floats stop counting one by one.
            vec.with_label_values(&labels).set(field(counter) as f64);
        }
    }
}

/// Reads the kernel when the registry is asked.
pub(super) struct ServiceScrape {
    counters: Arc<dyn ServiceCounters>,
    families: ServiceFamilies,
    export_time: Histogram,
}

impl ServiceScrape {
    /// Reads through `counters` and tells `export_time` how long it took.
    pub(super) fn new(
        counters: Arc<dyn ServiceCounters>,
        export_time: Histogram,
    ) -> prometheus::Result<Self> {
        Ok(Self { counters, families: ServiceFamilies::new()?, export_time })
    }
}

impl Collector for ServiceScrape {
    fn desc(&self) -> Vec<&Desc> {
        let totals = self.families.totals.iter().flat_map(|(vec, _)| vec.desc());
        totals.chain(self.families.rates.iter().flat_map(|(vec, _)| vec.desc())).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _timer = self.export_time.start_timer();
        // Fresh families at each scrape: the kernel's values are absolute, and a service that went must not stay.
        let Ok(families) = ServiceFamilies::new() else { return Vec::new() };
        for counter in self.counters.read() {
            families.fill(&counter);
        }
        let totals = families.totals.iter().flat_map(|(vec, _)| vec.collect());
        totals.chain(families.rates.iter().flat_map(|(vec, _)| vec.collect())).collect()
    }
}

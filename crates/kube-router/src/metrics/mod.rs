//! Metrics: upstream's names for what upstream has, ours for what it has not, and how they are served.
//!
//! Nothing is decided here. The core counts through the handles of [`Metrics`]; the counters of services stay in the
//! kernel and are read when someone asks, through [`ServiceCounters`].

mod bgp;
mod services;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::{Collector, Desc};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::bgp::{BgpPeer, BgpPeers};
pub use self::services::{ServiceCounter, ServiceCounters};

use self::bgp::PeerScrape;
use self::services::ServiceScrape;
use crate::version;

const NAMESPACE: &str = "kube_router";

/// A metric is defined twice or badly: a mistake in this program.
#[derive(Debug, thiserror::Error)]
#[error("cannot define the metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// Every metric of the agent. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Names and labels, but of those that are attached.
    defined: Arc<[(String, Vec<String>)]>,
    /// Virtual servers of ours on this node.
    pub ipvs_services: IntGauge,
    /// Seconds a batch of changes of virtual and real servers takes.
    pub ipvs_services_sync_time: Histogram,
    /// Seconds a change of rules takes, from handing it over to having it in the kernel.
    pub iptables_sync_time: Histogram,
    /// Seconds a run of `iptables-save` takes, of IPv4 and of IPv6.
    pub iptables_save_time: [Histogram; 2],
    /// Seconds a run of `iptables-restore` takes, of IPv4 and of IPv6.
    pub iptables_restore_time: [Histogram; 2],
    /// Seconds a change of policy chains takes.
    pub policy_chains_sync_time: Histogram,
    /// Seconds a change of sets takes, where it has members or headers of IPv4, and of IPv6.
    pub policy_ipset_restore_time: [Histogram; 2],
    /// Chains of network policies, of both families.
    pub policy_chains: IntGauge,
    /// Sets of network policies, of both families.
    pub policy_ipsets: IntGauge,
    /// Seconds a change of the sets of pod networks and node addresses takes (upstream's name promises more, and means this).
    pub routes_sync_time: Histogram,
    /// Seconds it takes to hand a new set of peers to the BGP speaker.
    pub bgp_internal_peers_sync_time: Histogram,
    /// Best paths learned from BGP peers, each change of one counted.
    pub bgp_advertisements_received: IntCounter,
    /// Paths of this node's own told to or taken back from the speaker, by `type`: pod-route, advertise-vip, withdraw-vip.
    pub bgp_advertisements_sent: IntCounterVec,
    /// Seconds a change of learned routes in the kernel takes.
    pub host_routes_sync_time: Histogram,
    /// Prefixes learned from BGP peers that have a route.
    pub host_routes_synced: IntGauge,
    /// Learned routes written.
    pub host_routes_added: IntCounter,
    /// Learned routes removed.
    pub host_routes_removed: IntCounter,
    /// Seconds a scrape spends on reading the kernel's counters.
    pub ipvs_metrics_export_time: Histogram,
    /// Seconds from the change of an endpoint, as its slice's trigger annotation says, to its rows in the kernel.
    pub network_programming: Histogram,
    /// Rows per `table` that should be in the kernel.
    pub rows_desired: IntGaugeVec,
    /// Rows per `table` that are believed to be in the kernel.
    pub rows_actual: IntGaugeVec,
    /// Rows per `table` the kernel refuses at present.
    pub rows_refused: IntGaugeVec,
    /// Rows per `table` an audit or a notification found changed by others, and put right.
    pub drift_healed: IntCounterVec,
    /// Rows per `table` refused by the kernel, each attempt counted.
    pub refusals: IntCounterVec,
    /// Objects of the cluster with something that cannot be used.
    pub rejected_objects: IntGauge,
    /// Netlink requests by `family` (route, ipvs, ipset, conntrack) and `kind`: read, write, or interrupted, which
    /// are the readings that were made anew because others changed what was being read.
    pub netlink_requests: IntCounterVec,
    /// 1 if the watch of a `resource` is established and complete, else 0.
    pub watch_synced: IntGaugeVec,
    /// Watches of a `resource` that ended and were taken up again.
    pub watch_restarts: IntCounterVec,
}

impl Metrics {
    /// Defines every metric, with the process's own (`process_*`).
    ///
    /// # Errors
    /// [`MetricsError`] if two definitions clash.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let labels = [("goversion", version::RUSTC), ("version", version::VERSION)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let build = IntGauge::with_opts(
            opts("build_info", "The build: always 1").const_labels(labels.into_iter().collect()),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Definer { registry: &registry, defined: RefCell::default() };
        Ok(Self {
            ipvs_services: make.gauge("controller_ipvs_services", "Our IPVS virtual servers")?,
            ipvs_services_sync_time: make.seconds(
                "controller_ipvs_services_sync_time",
                "Seconds a batch of changes of virtual and real servers takes",
            )?,
            iptables_sync_time: make.seconds(
                "controller_iptables_sync_time",
                "Seconds a change of rules takes, from handing it over to having it in the kernel",
            )?,
            iptables_save_time: make.of_families(
                |family| format!("controller_iptables_{family}_save_time"),
                "Seconds a run of iptables-save takes",
            )?,
            iptables_restore_time: make.of_families(
                |family| format!("controller_iptables_{family}_restore_time"),
                "Seconds a run of iptables-restore takes",
            )?,
            policy_chains_sync_time: make
                .seconds("controller_policy_chains_sync_time", "Seconds a change of policy chains takes")?,
            policy_ipset_restore_time: make.of_families(
                |family| format!("controller_policy_ipset_{family}_restore_time"),
                "Seconds a change of sets takes",
            )?,
            policy_chains: make.gauge("controller_policy_chains", "Chains of network policies")?,
            policy_ipsets: make.gauge("controller_policy_ipsets", "Sets of network policies")?,
            routes_sync_time: make.seconds(
                "controller_routes_sync_time",
                "Seconds a change of the sets of pod networks and node addresses takes",
            )?,
            bgp_internal_peers_sync_time: make.seconds(
                "controller_bgp_internal_peers_sync_time",
                "Seconds it takes to hand a new set of peers to the BGP speaker",
            )?,
            bgp_advertisements_received: make.counter(
                "controller_bgp_advertisements_received",
                "Best paths learned from BGP peers, each change of one",
            )?,
            bgp_advertisements_sent: make.counters(
                "controller_bgp_advertisements_sent",
                "Own paths told to BGP peers or taken back, by type",
                &["type"],
            )?,
            host_routes_sync_time: make
                .seconds("host_routes_sync_time", "Seconds a change of learned routes in the kernel takes")?,
            host_routes_synced: make.gauge("host_routes_synced", "Learned prefixes that have a route")?,
            host_routes_added: make.counter("host_routes_added", "Learned routes written")?,
            host_routes_removed: make.counter("host_routes_removed", "Learned routes removed")?,
            ipvs_metrics_export_time: make.seconds(
                "controller_ipvs_metrics_export_time",
                "Seconds a scrape spends on reading IPVS counters",
            )?,
            network_programming: make.programming()?,
            rows_desired: make.gauges("rows_desired", "Rows that should be in the kernel", &["table"])?,
            rows_actual: make.gauges("rows_actual", "Rows believed to be in the kernel", &["table"])?,
            rows_refused: make.gauges("rows_refused", "Rows the kernel refuses at present", &["table"])?,
            drift_healed: make.counters(
                "drift_healed_total",
                "Rows found changed by others and put right",
                &["table"],
            )?,
            refusals: make.counters(
                "refusals_total",
                "Rows refused by the kernel, each attempt",
                &["table"],
            )?,
            rejected_objects: make.gauge("rejected_objects", "Objects with something that cannot be used")?,
            netlink_requests: make.counters(
                "netlink_requests_total",
                "Netlink requests",
                &["family", "kind"],
            )?,
            watch_synced: make.gauges(
                "watch_synced",
                "1 if the watch is established and complete",
                &["resource"],
            )?,
            watch_restarts: make.counters("watch_restarts_total", "Watches taken up again", &["resource"])?,
            defined: make.defined.into_inner().into(),
            registry,
        })
    }

    /// Adds upstream's `service_*` metrics, read through `counters` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`] on a second call.
    pub fn attach_service_counters(&self, counters: Arc<dyn ServiceCounters>) -> Result<(), MetricsError> {
        let scrape = ServiceScrape::new(counters, self.ipvs_metrics_export_time.clone())?;
        Ok(self.registry.register(Box::new(scrape))?)
    }

    /// Adds `bgp_peer_*`, asked of `peers` at each scrape.
    ///
    /// # Errors
    /// [`MetricsError`] on a second call.
    pub fn attach_bgp_peers(&self, peers: Arc<dyn BgpPeers>) -> Result<(), MetricsError> {
        Ok(self.registry.register(Box::new(PeerScrape::new(peers)?))?)
    }

    /// Names of all metrics that can be exported, whether they have values yet or not. Histograms export names with
    /// `_bucket`, `_sum` and `_count` behind.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.labels().into_keys()
    }

    /// The same with the labels each can have; `le` of buckets is not among them.
    pub fn labels(&self) -> BTreeMap<String, Vec<String>> {
        let build: &[&str] = &["goversion", "version"];
        let attached = services::labels().chain(bgp::labels()).chain([("build_info", build)]);
        let attached = attached.map(|(name, labels)| {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            (format!("{NAMESPACE}_{name}"), labels)
        });
        self.defined.iter().cloned().chain(attached).collect()
    }

    /// All values in the text format of Prometheus. Reads the kernel's counters, so it may block for milliseconds.
    ///
    /// # Errors
    /// [`MetricsError`] if a value cannot be encoded.
    pub fn text(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The metrics at `path`.
    pub fn routes(&self, path: &str) -> Router {
        Router::new().route(path, get(serve)).with_state(self.clone())
    }
}

async fn serve(State(metrics): State<Metrics>) -> Response {
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

/// Makes and registers metrics of the agent.
struct Definer<'r> {
    registry: &'r Registry,
    defined: RefCell<Vec<(String, Vec<String>)>>,
}

impl Definer<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.registry.register(Box::new(metric.clone()))?;
        let described = |desc: &Desc| (desc.fq_name.clone(), desc.variable_labels.clone());
        self.defined.borrow_mut().extend(metric.desc().into_iter().map(described));
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    /// Histograms of IPv4 and IPv6.
    fn of_families(&self, name: impl Fn(&str) -> String, help: &str) -> prometheus::Result<[Histogram; 2]> {
        Ok([self.seconds(&name("v4"), help)?, self.seconds(&name("v6"), help)?])
    }

    /// A histogram with the default buckets, as upstream's.
    fn seconds(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::from(opts(name, help)))?)
    }

    /// kube-proxy's name and buckets (`pkg/proxy/metrics`), so that its dashboards and its SLO apply; below 0.25 s
    /// there are more, because that is where we are.
    fn programming(&self) -> prometheus::Result<Histogram> {
        let mut buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
        buckets.extend((1..60).map(f64::from));
        buckets.extend((60..120).step_by(5).map(f64::from));
        buckets.extend((120..=300).step_by(30).map(f64::from));
        let help = "Seconds from the change of an endpoint to its rows in the kernel";
        let options =
            HistogramOpts::new("kubeproxy_network_programming_duration_seconds", help).buckets(buckets);
        self.register(Histogram::with_opts(options)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<ServiceCounter>);

    impl ServiceCounters for Fixed {
        fn read(&self) -> Vec<ServiceCounter> {
            self.0.clone()
        }
    }

    fn counter() -> ServiceCounter {
        ServiceCounter {
            namespace: "default".into(),
            name: "web".into(),
            vip: "2001:db8::1".parse().unwrap(),
            protocol: "tcp",
            port: 80,
            connections: 3,
            packets_in: 10,
            packets_out: 9,
            bytes_in: u64::from(u32::MAX) + 1,
            bytes_out: 7,
            cps: 1,
            pps_in: 2,
            pps_out: 3,
            bps_in: 4,
            bps_out: 5,
        }
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.text().unwrap()).unwrap()
    }

    #[test]
    fn build_and_process_are_there_from_the_start() {
        let text = text(&Metrics::new().unwrap());
        let build = format!(
            "kube_router_build_info{{goversion=\"{}\",version=\"{}\"}} 1\n",
            version::RUSTC,
            version::VERSION
        );
        assert!(text.contains(&build), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(
            text.contains("kube_router_controller_ipvs_services_sync_time_bucket{le=\"0.005\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("kubeproxy_network_programming_duration_seconds_bucket{le=\"300\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn service_counters_are_the_kernels_at_every_scrape() {
        let metrics = Metrics::new().unwrap();
        metrics.attach_service_counters(Arc::new(Fixed(vec![counter()]))).unwrap();
        let labels = "port=\"80\",protocol=\"tcp\",service_name=\"web\",service_vip=\"2001:db8::1\",\
                      svc_namespace=\"default\"";
        for scrape in 1..=2 {
            let text = text(&metrics);
            assert!(text.contains("# TYPE kube_router_service_bytes_in counter\n"), "{text}");
            assert!(
                text.contains(&format!("kube_router_service_bytes_in{{{labels}}} 4294967296\n")),
                "{text}"
            );
            assert!(text.contains(&format!("kube_router_service_bps_out{{{labels}}} 5\n")), "{text}");
            let exports =
                text.lines().find(|l| l.starts_with("kube_router_controller_ipvs_metrics_export_time_count"));
            // Collected in no fixed order, so the scrape itself may or may not be in the count.
            let count: u64 = exports.and_then(|l| l.rsplit(' ').next()).unwrap().parse().unwrap();
            assert!(count == scrape || count + 1 == scrape, "{count}");
        }
        assert!(metrics.attach_service_counters(Arc::new(Fixed(vec![]))).is_err());
    }

    /// As `docs/compatibility.md` lists them.
    #[test]
    fn upstreams_names_are_there() {
        let metrics = Metrics::new().unwrap();
        let names: Vec<String> = metrics.names().collect();
        for name in [
            "build_info",
            "service_total_connections",
            "service_packets_in",
            "service_packets_out",
            "service_bytes_in",
            "service_bytes_out",
            "service_pps_in",
            "service_pps_out",
            "service_cps",
            "service_bps_in",
            "service_bps_out",
            "controller_ipvs_services",
            "controller_ipvs_services_sync_time",
            "controller_ipvs_metrics_export_time",
            "controller_iptables_sync_time",
            "controller_iptables_v4_save_time",
            "controller_iptables_v6_save_time",
            "controller_iptables_v4_restore_time",
            "controller_iptables_v6_restore_time",
            "controller_policy_chains_sync_time",
            "controller_policy_ipset_v4_restore_time",
            "controller_policy_ipset_v6_restore_time",
            "controller_policy_chains",
            "controller_policy_ipsets",
            "controller_routes_sync_time",
            "host_routes_sync_time",
            "host_routes_synced",
            "host_routes_added",
            "host_routes_removed",
            "bgp_peer_info",
        ] {
            assert!(names.contains(&format!("kube_router_{name}")), "{name}");
        }
    }

    #[test]
    fn tables_are_labelled() {
        let metrics = Metrics::new().unwrap();
        metrics.rows_desired.with_label_values(&["ipvs"]).set(7);
        metrics.drift_healed.with_label_values(&["address"]).inc();
        let text = text(&metrics);
        assert!(text.contains("kube_router_rows_desired{table=\"ipvs\"} 7\n"), "{text}");
        assert!(text.contains("kube_router_drift_healed_total{table=\"address\"} 1\n"), "{text}");
    }
}

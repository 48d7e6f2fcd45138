//! Sessions with BGP peers, as the speaker reports them when someone asks.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::opts;

/// Knows the peers.
pub trait BgpPeers: Send + Sync {
    /// All that are configured, now. May block for a moment; a speaker that does not answer has none.
    fn read(&self) -> Vec<BgpPeer>;
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Its address.
    pub address: IpAddr,
    /// Its AS number; none for other nodes, which are of the cluster's.
    pub asn: Option<u32>,
    /// State of the session, in the words of RFC 4271 and lower case.
    pub state: String,
    /// Prefixes it has told, by family: `ipv4`, `ipv6`.
    pub received: Vec<(&'static str, usize)>,
    /// Prefixes it has been told, by family.
    pub told: Vec<(&'static str, usize)>,
    /// Announcements received since it is configured, one for each prefix.
    pub announced: u64,
    /// Withdrawals, likewise.
    pub withdrawn: u64,
    /// Announcements that could not be used when they came, by reason; reasons that did not occur are left out, because
    /// a large mesh has many peers and hardly any has one.
    pub refused: Vec<(&'static str, u64)>,
    /// What it did wrong otherwise, by reason, likewise.
    pub faults: Vec<(&'static str, u64)>,
}

/// Name without the prefix, meaning, labels.
type Definition = (&'static str, &'static str, &'static [&'static str]);

const INFO: Definition =
    ("bgp_peer_info", "A configured BGP peer and its state: always 1", &["address", "type", "asn", "state"]);
const RECEIVED: Definition =
    ("bgp_peer_prefixes_received", "Prefixes a BGP peer has told", &["address", "family"]);
const TOLD: Definition =
    ("bgp_peer_prefixes_sent", "Prefixes a BGP peer has been told", &["address", "family"]);
const UPDATES: Definition = (
    "bgp_peer_updates_received_total",
    "Prefixes a BGP peer has announced and withdrawn, each time, by type: announce, withdraw",
    &["address", "type"],
);
const REFUSED: Definition = (
    "bgp_peer_refused_total",
    "Announcements of a BGP peer that could not be used when they came, by reason",
    &["address", "reason"],
);
const FAULTS: Definition = (
    "bgp_peer_faults_total",
    "Malformed updates, sessions with too many prefixes or another peer's router id, by reason",
    &["address", "reason"],
);

/// Names of all of them, without the prefix, and their labels.
pub(super) fn labels() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    [INFO, RECEIVED, TOLD, UPDATES, REFUSED, FAULTS].into_iter().map(|(name, _, labels)| (name, labels))
}

fn gauges((name, help, labels): Definition) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(opts(name, help), labels)
}

fn counters((name, help, labels): Definition) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(opts(name, help), labels)
}

/// The metrics with the values of one scrape.
struct PeerFamilies {
    info: IntGaugeVec,
    received: IntGaugeVec,
    told: IntGaugeVec,
    updates: IntCounterVec,
    refused: IntCounterVec,
    faults: IntCounterVec,
}

impl PeerFamilies {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            info: gauges(INFO)?,
            received: gauges(RECEIVED)?,
            told: gauges(TOLD)?,
            updates: counters(UPDATES)?,
            refused: counters(REFUSED)?,
            faults: counters(FAULTS)?,
        })
    }

    /// Upstream's labels: nodes are `internal`, and their number is 0, because none is configured for them.
    fn fill(&self, peer: &BgpPeer) {
        let (address, asn) = (peer.address.to_string(), peer.asn.unwrap_or(0).to_string());
        let kind = if peer.asn.is_some() { "external" } else { "internal" };
        self.info.with_label_values(&[address.as_str(), kind, &asn, &peer.state]).set(1);
        let set = |gauge: IntGauge, count: usize| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        for (family, count) in &peer.received {
            set(self.received.with_label_values(&[address.as_str(), family]), *count);
        }
        for (family, count) in &peer.told {
            set(self.told.with_label_values(&[address.as_str(), family]), *count);
        }
        let updates = [("announce", peer.announced), ("withdraw", peer.withdrawn)];
        let add = |counters: &IntCounterVec, counts: &[(&'static str, u64)]| {
            for (label, count) in counts {
                counters.with_label_values(&[address.as_str(), label]).inc_by(*count);
            }
        };
        add(&self.updates, &updates);
        add(&self.refused, &peer.refused);
        add(&self.faults, &peer.faults);
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [&self.info, &self.received, &self.told, &self.updates, &self.refused, &self.faults]
    }
}

/// Asks for the peers when the registry is asked.
pub(super) struct PeerScrape {
    peers: Arc<dyn BgpPeers>,
    families: PeerFamilies,
}

impl PeerScrape {
    pub(super) fn new(peers: Arc<dyn BgpPeers>) -> prometheus::Result<Self> {
        Ok(Self { peers, families: PeerFamilies::new()? })
    }
}

impl Collector for PeerScrape {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().into_iter().flat_map(|family| family.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Fresh at each scrape: a peer that went must not stay, nor a state that is over.
        let Ok(families) = PeerFamilies::new() else { return Vec::new() };
        self.peers.read().iter().for_each(|peer| families.fill(peer));
        families.all().into_iter().flat_map(|family| family.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    struct Fixed(Vec<BgpPeer>);

    impl BgpPeers for Fixed {
        fn read(&self) -> Vec<BgpPeer> {
            self.0.clone()
        }
    }

    #[test]
    fn peers_are_told_with_upstreams_labels() {
        let peer = |address: &str, asn: Option<u32>, state: &str| BgpPeer {
            address: address.parse().unwrap(),
            asn,
            state: state.to_owned(),
            received: vec![("ipv4", 2)],
            told: vec![("ipv4", 1), ("ipv6", 3)],
            announced: 5,
            withdrawn: 0,
            refused: vec![("own_as", 4)],
            faults: vec![("too_many_prefixes", 1)],
        };
        let peers = vec![peer("10.0.0.2", None, "established"), peer("2001:db8::1", Some(65_000), "active")];
        let metrics = Metrics::new().unwrap();
        metrics.attach_bgp_peers(Arc::new(Fixed(peers))).unwrap();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "kube_router_bgp_peer_info{address=\"10.0.0.2\",asn=\"0\",state=\"established\",type=\"internal\"} 1",
            "kube_router_bgp_peer_info{address=\"2001:db8::1\",asn=\"65000\",state=\"active\",type=\"external\"} 1",
            "kube_router_bgp_peer_prefixes_received{address=\"10.0.0.2\",family=\"ipv4\"} 2",
            "kube_router_bgp_peer_prefixes_sent{address=\"2001:db8::1\",family=\"ipv6\"} 3",
            "kube_router_bgp_peer_updates_received_total{address=\"10.0.0.2\",type=\"announce\"} 5",
            "kube_router_bgp_peer_updates_received_total{address=\"10.0.0.2\",type=\"withdraw\"} 0",
            "kube_router_bgp_peer_refused_total{address=\"10.0.0.2\",reason=\"own_as\"} 4",
            "kube_router_bgp_peer_faults_total{address=\"2001:db8::1\",reason=\"too_many_prefixes\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        // All of them are among the names told to whoever checks queries, and none besides.
        let exported: std::collections::BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("kube_router_")?.split_once('{'))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("bgp_peer_"))
            .collect();
        let known: std::collections::BTreeSet<&str> = labels().map(|(name, _)| name).collect();
        assert_eq!(exported, known);
    }
}

//! Sessions with BGP peers, as the speaker reports them when someone asks.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec};

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
}

/// The metrics with the values of one scrape.
struct PeerFamilies {
    info: IntGaugeVec,
    received: IntGaugeVec,
    told: IntGaugeVec,
}

impl PeerFamilies {
    fn new() -> prometheus::Result<Self> {
        let prefixes = |name, help| IntGaugeVec::new(opts(name, help), &["address", "family"]);
        Ok(Self {
            info: IntGaugeVec::new(
                opts("bgp_peer_info", "A configured BGP peer and its state: always 1"),
                &["address", "type", "asn", "state"],
            )?,
            received: prefixes("bgp_peer_prefixes_received", "Prefixes a BGP peer has told")?,
            told: prefixes("bgp_peer_prefixes_sent", "Prefixes a BGP peer has been told")?,
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
    }

    fn all(&self) -> [&IntGaugeVec; 3] {
        [&self.info, &self.received, &self.told]
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
        self.families.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Fresh at each scrape: a peer that went must not stay, nor a state that is over.
        let Ok(families) = PeerFamilies::new() else { return Vec::new() };
        self.peers.read().iter().for_each(|peer| families.fill(peer));
        families.all().into_iter().flat_map(Collector::collect).collect()
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
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}

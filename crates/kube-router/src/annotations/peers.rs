//! External peers in annotations of a Node: one YAML list, or four parallel comma lists.
//!
//! Decided here: which peers an annotation names, and which of its values belong to which. The YAML list wins; the comma
//! lists are then not read, as with upstream. Passwords never appear in an objection.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bgp::Asn;
use serde::Deserialize;

use super::node;
use super::routing::Reader;
use crate::secret::Secret;

/// Where an external peer listens unless said otherwise.
const BGP_PORT: u16 = 179;

/// A router outside of the cluster that this node peers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePeer {
    /// Its address.
    pub ip: IpAddr,
    /// Its AS number.
    pub asn: Asn,
    /// Its TCP port.
    pub port: u16,
    /// The TCP MD5 key (RFC 2385), decoded.
    pub password: Option<Secret>,
    /// Our address of the session; of the peer's family. `None` is the node's own.
    pub local_ip: Option<IpAddr>,
}

/// A peer as YAML says it, unchecked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    remoteip: Option<String>,
    remoteasn: Option<i64>,
    localip: Option<String>,
    password: Option<String>,
    port: Option<i64>,
    bfd: Option<Bfd>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // accepted, so that an annotation with it can be read; there is no BFD
struct Bfd {
    #[serde(default)]
    enabled: bool,
    port: Option<i64>,
    detection_multiplier: Option<i64>,
    required_min_rx_interval: Option<i64>,
    desired_min_tx_interval: Option<i64>,
}

pub(super) fn read_peers(reader: &mut Reader<'_, '_>) -> Vec<NodePeer> {
    match reader.text(node::PEERS) {
        Some(text) => from_yaml(reader, text),
        None => from_lists(reader),
    }
}

fn from_yaml(reader: &mut Reader<'_, '_>, text: &str) -> Vec<NodePeer> {
    let key = node::PEERS;
    // Not one list of peers: a peer that cannot be read must not take the others with it.
    let list = match serde_saphyr::from_str::<Vec<serde_json::Value>>(text) {
        Ok(list) => list,
        Err(_) => {
            reader.object_to(
                key,
                "(not shown)",
                "is not a YAML list of peers",
                "correct it; there are no peers",
            );
            return Vec::new();
        }
    };
    let mut peers = Vec::new();
    for (place, value) in list.into_iter().enumerate() {
        let name = format!("[{place}]");
        match serde_json::from_value::<Written>(value) {
            Ok(written) => peers.extend(check(reader, key, &name, written)),
            Err(_) => {
                let reason = "is not a peer: it has a field of another name or type";
                let remedy =
                    "use remoteip, remoteasn, localip, password, port, bfd; the other peers are used";
                reader.object_to(key, &name, reason, remedy);
            }
        }
    }
    peers
}

/// Four lists side by side. Addresses and AS numbers must be as many; ports, passwords and local addresses as many, or
/// absent: otherwise nobody can tell whose they are.
fn from_lists(reader: &mut Reader<'_, '_>) -> Vec<NodePeer> {
    let list = |reader: &Reader<'_, '_>, key| {
        let text: Option<&str> = reader.text(key);
        text.map(|text| text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>())
    };
    let (Some(ips), Some(asns)) = (list(reader, node::PEER_IPS), list(reader, node::PEER_ASNS)) else {
        for (key, other) in [(node::PEER_IPS, node::PEER_ASNS), (node::PEER_ASNS, node::PEER_IPS)] {
            if let Some(value) = reader.text(key) {
                let remedy = format!("add {other}; there are no peers until then");
                reader.object_to(key, value, "names no peers alone", &remedy);
            }
        }
        return Vec::new();
    };
    let further =
        [node::PEER_PORTS, node::PEER_PASSWORDS, node::PEER_LOCAL_IPS].map(|key| (key, list(reader, key)));
    let asns = (node::PEER_ASNS, Some(asns));
    for (key, list) in further.iter().chain([&asns]) {
        if let Some(list) = list.as_ref().filter(|list| list.len() != ips.len()) {
            let reason = format!("has {} items, {} has {}", list.len(), node::PEER_IPS, ips.len());
            reader.object_to(key, "(not shown)", &reason, "make them as many; there are no peers until then");
            return Vec::new();
        }
    }
    let item = |list: &Option<Vec<String>>, at: usize| {
        list.as_ref().and_then(|list| list.get(at)).filter(|item| !item.is_empty()).cloned()
    };
    let [(_, ports), (_, passwords), (_, local_ips)] = &further;
    let mut peers = Vec::new();
    for (place, ip) in ips.iter().enumerate() {
        let number = |list: &Option<Vec<String>>| item(list, place).map(|text| text.parse().unwrap_or(-1));
        let written = Written {
            remoteip: Some(ip.clone()),
            remoteasn: number(&asns.1),
            localip: item(local_ips, place),
            password: item(passwords, place),
            port: number(ports),
            bfd: None,
        };
        peers.extend(check(reader, node::PEER_IPS, ip, written));
    }
    peers
}

/// A peer of which everything can be used; `name` tells it to the user.
fn check(reader: &mut Reader<'_, '_>, key: &str, name: &str, written: Written) -> Option<NodePeer> {
    let checked = checked(&written);
    if let Err(reason) = &checked {
        reader.object_to(key, name, reason, "correct it; the other peers are used");
    }
    if written.bfd.is_some_and(|bfd| bfd.enabled) {
        reader.object_to(key, name, "asks for BFD, which is not built", "the peer is used without");
    }
    checked.ok()
}

fn checked(written: &Written) -> Result<NodePeer, String> {
    let ip = written.remoteip.as_deref().ok_or("has no remoteip")?;
    let ip: IpAddr = ip.parse().map_err(|_| format!("has the address {ip:?}, which is none"))?;
    let asn = written.remoteasn.ok_or("has no remoteasn")?;
    let asn = u32::try_from(asn).map_err(|_| format!("has {asn} for an AS number"))?;
    let asn = Asn::peer(asn).map_err(|error| error.to_string())?;
    let port = match written.port {
        None => BGP_PORT,
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("has port {port}; ports are 1 to 65535"))?,
    };
    let local_ip = written.localip.as_deref().filter(|text| !text.trim().is_empty());
    let local_ip = local_ip
        .map(|text| {
            text.trim()
                .parse::<IpAddr>()
                .map_err(|_| format!("has the local address {text:?}, which is none"))
        })
        .transpose()?;
    if local_ip.is_some_and(|local| local.is_ipv4() != ip.is_ipv4()) {
        return Err("has a local address of the other family".to_owned());
    }
    let password = written.password.as_deref().filter(|text| !text.is_empty()).map(decoded).transpose()?;
    Ok(NodePeer { ip, asn, port, password, local_ip })
}

fn decoded(encoded: &str) -> Result<Secret, String> {
    let not_base64 = || "has a password that is not the base64 of a text".to_owned();
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| not_base64())?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| not_base64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::routing::RoutingAnnotations;
    use super::*;
    use crate::objection::ObjectRef;

    fn read(annotations: &[(&str, &'static str)]) -> (Vec<NodePeer>, Vec<String>) {
        let map: BTreeMap<&str, &'static str> = annotations.iter().copied().collect();
        let object = ObjectRef { kind: "Node", namespace: String::new(), name: "n1".to_owned() };
        let (read, objections) = RoutingAnnotations::read(&object, |key| map.get(key).copied());
        (read.peers, objections.iter().map(ToString::to_string).collect())
    }

    fn peer(ip: &str, asn: u32) -> NodePeer {
        let asn = Asn::peer(asn).unwrap();
        NodePeer { ip: ip.parse().unwrap(), asn, port: 179, password: None, local_ip: None }
    }

    const YAML: &str = "
- remoteip: 10.0.0.1
  remoteasn: 64640
  password: aHVudGVyMg==
  localip: 10.0.0.2
- remoteip: 2001:db8::1
  remoteasn: 4200000000
  port: 1790
  bfd: {enabled: false, port: 3784}
";

    #[test]
    fn yaml_names_peers() {
        let (peers, objections) = read(&[(node::PEERS, YAML), (node::PEER_IPS, "192.0.2.1")]);
        let first = NodePeer {
            password: Some(Secret::new("hunter2")),
            local_ip: Some([10, 0, 0, 2].into()),
            ..peer("10.0.0.1", 64_640)
        };
        assert_eq!(peers, [first, NodePeer { port: 1790, ..peer("2001:db8::1", 4_200_000_000) }]);
        assert!(objections.is_empty(), "{objections:?}");
        assert!(!format!("{peers:?}").contains("hunter2"));
    }

    #[test]
    fn a_bad_peer_is_left_out_alone() {
        let bad = "[{remoteip: 10.0.0.1}, {remoteip: 10.0.0.2, remoteasn: 65000}, {remoteip: x, remoteasn: 65000}, \
                   {remoteip: 10.0.0.4, remoteasn: 23456}, {remoteip: 10.0.0.5, remoteasn: 65000, port: 70000}, \
                   {remoteip: 10.0.0.6, remoteasn: 65000, localip: fd00::1}, {ip: 10.0.0.7}, \
                   {remoteip: 10.0.0.8, remoteasn: 65000, password: hunter2!}]";
        let (peers, objections) = read(&[(node::PEERS, bad)]);
        assert_eq!(peers, [peer("10.0.0.2", 65_000)]);
        assert_eq!(objections.len(), 7, "{objections:#?}");
        assert!(!objections.join(" ").contains("hunter2"));
        let (peers, objections) = read(&[(node::PEERS, "remoteip: 10.0.0.1")]);
        assert_eq!((peers.len(), objections.len()), (0, 1));
    }

    #[test]
    fn lists_go_side_by_side() {
        let (peers, objections) = read(&[
            (node::PEER_IPS, "192.0.2.1, 2001:db8::1"),
            (node::PEER_ASNS, "65000,65001"),
            (node::PEER_PORTS, "179,1790"),
            (node::PEER_PASSWORDS, ",aHVudGVyMg=="),
            (node::PEER_LOCAL_IPS, "192.0.2.9,"),
        ]);
        let first = NodePeer { local_ip: Some([192, 0, 2, 9].into()), ..peer("192.0.2.1", 65_000) };
        let second =
            NodePeer { port: 1790, password: Some(Secret::new("hunter2")), ..peer("2001:db8::1", 65_001) };
        assert_eq!((peers, objections), (vec![first, second], vec![]));
    }

    #[test]
    fn lists_of_other_lengths_name_nobody() {
        let ips = (node::PEER_IPS, "192.0.2.1,192.0.2.2");
        let asns = (node::PEER_ASNS, "65000,65001");
        for more in [
            vec![ips],
            vec![asns],
            vec![ips, (node::PEER_ASNS, "65000")],
            vec![ips, asns, (node::PEER_PASSWORDS, "aHVudGVyMg==")],
            vec![ips, asns, (node::PEER_PORTS, "179")],
        ] {
            let (peers, objections) = read(&more);
            assert_eq!((peers.len(), objections.len()), (0, 1), "{more:?}");
            assert!(!objections.join("").contains("aHVudGVyMg"));
        }
    }
}

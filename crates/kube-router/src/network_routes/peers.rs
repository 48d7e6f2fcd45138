//! Whom this node's speaker peers with: the other nodes, and routers outside of the cluster.
//!
//! Decided here, from Node objects and options: who is a peer and on which terms. How a session is held is the
//! speaker's business; what a peer is told is decided in [`super::policy`].
//!
//! A mesh peer must be of our AS (upstream takes any, W29), and a reflector is known by the cluster ID it was given
//! (upstream makes the router id of a number, W30). Every peer has a bound on what it may tell, which upstream has not:
//! a router that leaks a full table costs its own session, not the node's memory and the kernel's routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp::config::{MaxPrefixes, PeerConfig, RemoteAsn, Role, Ttl};
use bgp::{Asn, Families, Password};
use linux::row::Family;

use crate::annotations::{NodePeer, Reflector, node as annotation};
use crate::kube::model::{Kind, Node, ObjectName};
use crate::objection::Objection;
use crate::options::{Bgp, Options};
use crate::secret::Secret;

/// Hold time between nodes, upstream's.
const INTERNAL_HOLD_TIME: Duration = Duration::from_secs(90);

/// How long a peer that told too many prefixes is left alone. Long enough for somebody to look, and for a table that
/// leaks again at once to cost next to nothing; short enough that a leak that has ended needs nobody.
pub(crate) const TOO_MANY_PREFIXES_PAUSE: Duration = Duration::from_secs(30 * 60);

/// A peer and why it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The terms.
    pub config: PeerConfig,
    /// Another node of the cluster, or a router outside.
    pub is_node: bool,
}

/// Why two nodes do not peer; worth telling only where the reader may have wanted otherwise.
#[derive(Debug, PartialEq, Eq)]
enum NoPeer {
    Silent,
    Objected(Box<Objection>),
}

/// What the peering of nodes depends on, of this one.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// This node.
    pub node: &'a Node,
    /// Its AS number.
    pub asn: Asn,
}

/// The session with another node, if there is to be one, under the address it is known by. O(1).
///
/// # Errors
/// The other node cannot be a peer, but one would expect it.
pub fn of_node(
    other: &Node,
    own: Own<'_>,
    options: &Options,
) -> Result<Option<(IpAddr, Peer)>, Box<Objection>> {
    match mesh(other, own, &options.bgp) {
        Ok((ip, config)) => Ok(Some((ip, Peer { config, is_node: true }))),
        Err(NoPeer::Silent) => Ok(None),
        Err(NoPeer::Objected(objection)) => Err(objection),
    }
}

fn mesh(other: &Node, own: Own<'_>, options: &Bgp) -> Result<(IpAddr, PeerConfig), NoPeer> {
    if !options.ibgp || other.name == own.node.name {
        return Err(NoPeer::Silent);
    }
    let (Some(here), Some(there)) = (own.node.primary_ip(), other.primary_ip()) else {
        return Err(NoPeer::Silent);
    };
    if here == there {
        return Err(NoPeer::Silent);
    }
    let reflector = |node: &Node| node.routing.reflector;
    let other_reflects = matches!(reflector(other), Some(Reflector::Server(_)));
    if matches!(reflector(own.node), Some(Reflector::Client(_))) && !other_reflects {
        return Err(NoPeer::Silent);
    }
    if !options.full_mesh && other.routing.asn != Some(own.asn) {
        return Err(NoPeer::Silent);
    }
    if here.is_ipv4() != there.is_ipv4() {
        let reason = format!("is of another family than this node's address {here}");
        return Err(NoPeer::Objected(Box::new(Objection {
            object: ObjectName::cluster_wide(other.name.clone()).of_kind(Kind::Node),
            field: "status.addresses".to_owned(),
            value: there.to_string(),
            reason,
            remedy: "give all nodes a first address of one family; the two do not peer until then".to_owned(),
        })));
    }
    let mut config = PeerConfig::new(RemoteAsn::Internal);
    config.port = options.port;
    config.local_address = Some(here);
    config.hold_time = INTERNAL_HOLD_TIME;
    config.max_prefixes = max_prefixes(options);
    config.families = families(|family| own.node.best_ip(family).and(other.best_ip(family)).is_some());
    config.graceful_restart = options.graceful_restart.is_some();
    let we_reflect = matches!(reflector(own.node), Some(Reflector::Server(_)));
    if we_reflect && matches!(reflector(other), Some(Reflector::Client(_))) {
        config.role = Role::ReflectorClient;
    }
    Ok((there, config))
}

/// Sessions with routers outside of the cluster: those of the flags, otherwise those of the node's annotations, and
/// what is wrong with them. `passwords` of a file, if there is one, replace those of the flags. O(peers).
pub fn external(
    own: &Node,
    flags: &[crate::options::ExternalPeer],
    options: &Options,
) -> (BTreeMap<IpAddr, Peer>, Vec<Objection>) {
    let mut peers = BTreeMap::new();
    let mut objections = Vec::new();
    let from_flags = flags.iter().map(|peer| NodePeer {
        ip: peer.ip,
        asn: peer.asn,
        port: peer.port,
        password: peer.password.clone(),
        local_ip: None,
    });
    let written: Vec<NodePeer> =
        if flags.is_empty() { own.routing.peers.clone() } else { from_flags.collect() };
    for peer in written {
        match outside(&peer, own, &options.bgp) {
            Ok(config) if !peers.contains_key(&peer.ip) => {
                peers.insert(peer.ip, Peer { config, is_node: false });
            }
            Ok(_) => {
                objections.push(objection(own, peer.ip, "is named twice".to_owned(), "the first is used"))
            }
            Err(reason) => objections.push(objection(own, peer.ip, reason, "the other peers are used")),
        }
    }
    (peers, objections)
}

fn outside(peer: &NodePeer, own: &Node, options: &Bgp) -> Result<PeerConfig, String> {
    let mut config = PeerConfig::new(RemoteAsn::Exactly(peer.asn));
    config.port = peer.port;
    let local = peer.local_ip.or_else(|| own.best_ip(Family::of(&peer.ip)));
    config.local_address = Some(local.ok_or("is of a family this node has no address of")?);
    config.hold_time = options.hold_time;
    config.max_prefixes = max_prefixes(options);
    config.families = families(|family| own.best_ip(family).is_some());
    config.graceful_restart = options.graceful_restart.is_some();
    config.ttl = options.multihop_ttl.map(Ttl::Multihop).unwrap_or_default();
    config.password = peer.password.as_ref().map(password).transpose()?;
    Ok(config)
}

fn max_prefixes(options: &Bgp) -> Option<MaxPrefixes> {
    let restart_after = Some(TOO_MANY_PREFIXES_PAUSE);
    options.max_prefixes.map(|limit| MaxPrefixes { limit, restart_after })
}

fn password(secret: &Secret) -> Result<Password, String> {
    Password::new(secret.reveal()).map_err(|error| error.to_string())
}

fn families(has: impl Fn(Family) -> bool) -> Families {
    let mut families = Families::NONE;
    for (family, name) in [(Family::V4, bgp::Family::Ipv4Unicast), (Family::V6, bgp::Family::Ipv6Unicast)] {
        if has(family) {
            families.insert(name);
        }
    }
    families
}

fn objection(own: &Node, peer: IpAddr, reason: String, remedy: &str) -> Objection {
    Objection {
        object: ObjectName::cluster_wide(own.name.clone()).of_kind(Kind::Node),
        field: format!("external peer ({} or --peer-router-ips)", annotation::PEERS),
        value: peer.to_string(),
        reason,
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(name: &str, ip: &str) -> Node {
        Node {
            name: name.into(),
            internal_ips: vec![ip.parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Arc::default(),
        }
    }

    /// What a node and a router outside may tell this one.
    fn bounds(flags: &[&str]) -> [Option<MaxPrefixes>; 2] {
        let peers = ["--peer-router-ips=192.0.2.1", "--peer-router-asns=65000"];
        let options = Options::from_flags(&[&peers[..], flags].concat()).unwrap();
        let (here, there) = (node("here", "10.0.0.1"), node("there", "10.0.0.2"));
        let own = Own { node: &here, asn: Asn::DEFAULT };
        let (_, inside) = of_node(&there, own, &options).unwrap().unwrap();
        let (outside, objections) = external(&here, &options.bgp.peers, &options);
        assert_eq!(objections, []);
        let outside = outside.into_values().next().unwrap();
        [inside, outside].map(|peer| peer.config.max_prefixes)
    }

    #[test]
    fn nobody_may_tell_more_than_the_bound() {
        let bound = |limit| Some(MaxPrefixes { limit, restart_after: Some(Duration::from_secs(1800)) });
        assert_eq!(bounds(&[]), [bound(100_000); 2]);
        assert_eq!(bounds(&["--bgp-max-prefixes=7"]), [bound(7); 2]);
        assert_eq!(bounds(&["--bgp-max-prefixes=0"]), [None; 2]);
    }
}

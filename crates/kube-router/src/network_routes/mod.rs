//! The network routes controller: pods reach pods on other nodes, and the world reaches services.
//!
//! Decided here: which plans and which wishes to the BGP speaker an event makes necessary. The plans themselves are in
//! the modules below, each for one subject: the node, another node, one learned prefix. No I/O anywhere below this
//! module; the speaker is asked by effects and heard as news.
//!
//! ```text
//! Nodes ────────► peers, rules ─► speaker ─► best paths ─► overlay ─► routes, tunnels
//! own Node ─────► base: bridge, CNI file, settings, FORWARD    egress: sets of pod networks and nodes
//! Services, endpoints ─► service paths ─► speaker
//! ```

pub mod base;
mod controller;
mod describe;
pub mod egress;
pub mod identity;
pub mod learned;
pub mod overlay;
pub mod peers;
pub mod rules;
mod scope;
pub mod service_paths;
pub mod speaker;
pub mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::Name;
use ring::digest::{SHA256, digest};

use self::learned::LearnedPaths;
use self::peers::{Own, Peer};
use self::told::Told;
use crate::core::{Effect, Found, Inputs};
use crate::kube::model::{Kind, Node, ObjectName};
use crate::names;
use crate::node::Facts;
use crate::options::ExternalPeer;

/// The subject of a plan of this controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What pod routing needs whoever the peers are.
    PodRouting,
    /// A node, ours or another: what of it is inside of the cluster.
    Node(Name),
    /// A prefix another speaker advertised.
    Learned(IpNet),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::PodRouting => f.write_str("pod routing"),
            Subject::Node(name) => write!(f, "Node {name}"),
            Subject::Learned(prefix) => write!(f, "path to {prefix}"),
        }
    }
}

/// The controller's own state: indexes over the store and the speaker's paths, and what is due.
#[derive(Debug, Default)]
pub struct NetworkRoutes {
    learned: LearnedPaths,
    /// Sessions with other nodes, by address; and whose they are.
    mesh: BTreeMap<IpAddr, Peer>,
    mesh_of: BTreeMap<Name, IpAddr>,
    told: Told,
    /// External peers of the flags with the passwords their file last had; none before it has been read.
    with_passwords: Option<Vec<ExternalPeer>>,
    /// Why the file could not be read, if it could not.
    passwords_problem: Option<String>,
    /// Families in which the speaker selects paths: it knows what peers advertise, or has waited long enough.
    selecting: BTreeSet<bgp::Family>,
    /// Peers the speaker was last asked to have; none before it was asked.
    peers: Option<BTreeSet<IpAddr>>,
    /// Peers that are up, or have been since the start.
    met: BTreeSet<IpAddr>,
    /// When peers have had their time to come up after our start.
    settled_at: Option<Instant>,
    /// When they have had their time to tell what they know, all of them being up.
    heard_at: Option<Instant>,
    /// Routes nobody advertises may go.
    converged: bool,
    /// The node forwarded for pods when we came: somebody ran here before, and what it wrote works.
    forwarded: bool,
    dirty_base: bool,
    dirty_speaker: bool,
    dirty_nodes: BTreeSet<Name>,
    /// Learned prefixes that have a route, and how many that was when it was last told.
    routed: BTreeSet<IpNet>,
    routed_told: usize,
    effects: Vec<Effect>,
    found: Vec<Found>,
}

impl NetworkRoutes {
    /// A node came, went or changed. O(prefixes learned from it).
    fn node_changed(&mut self, name: &Name, inputs: Inputs<'_>) {
        let node = inputs.store.node(name);
        self.learned.set_node(name, node.into_iter().flat_map(addresses));
        self.dirty_nodes.insert(name.clone());
        self.mesh_with(name, node, inputs);
    }

    /// Replaces the session with a node, if there is or was one. While this node cannot say which AS it is of, its
    /// sessions stay as they were, since the speaker does; with the number every node is looked at anew.
    fn mesh_with(&mut self, name: &Name, node: Option<&Node>, inputs: Inputs<'_>) {
        let own = inputs.node.object.as_ref().filter(|own| own.name != *name);
        let own = own.map(|node| identity::asn(node, &inputs.options.bgp).map(|asn| Own { node, asn }));
        let Ok(own) = own.transpose() else { return };
        let mut objections = Vec::new();
        let session = own.zip(node).and_then(|(own, other)| {
            peers::of_node(other, own, inputs.options).unwrap_or_else(|objection| {
                objections.push(*objection);
                None
            })
        });
        let before = self.mesh_of.remove(name);
        let old = before.and_then(|address| self.mesh.remove(&address));
        self.dirty_speaker |= old.as_ref() != session.as_ref().map(|(_, peer)| peer)
            || before != session.as_ref().map(|(address, _)| *address);
        if let Some((address, peer)) = session {
            self.mesh.insert(address, peer);
            self.mesh_of.insert(name.clone(), address);
        }
        if let Some(heir) = before.and_then(|address| self.heir(address)) {
            self.mesh_with(&heir, inputs.store.node(&heir), inputs);
        }
        if own.is_some() {
            let object = ObjectName::cluster_wide(name.clone()).of_kind(Kind::Node);
            self.found.push((object, objections));
        }
    }

    /// Another node that had the session of an address which nobody has now: for a while two Node objects may have one
    /// address, as when a machine is made anew under another name. O(nodes), where an address was given up.
    fn heir(&self, address: IpAddr) -> Option<Name> {
        let lost = !self.mesh.contains_key(&address);
        let heir = || self.mesh_of.iter().find(|(_, held)| **held == address);
        lost.then(heir).flatten().map(|(name, _)| name.clone())
    }

    /// This node's object or addresses changed: every session and every route may look different. O(nodes + prefixes).
    fn own_node_changed(&mut self, inputs: Inputs<'_>) {
        self.dirty_base = true;
        self.dirty_speaker = true;
        self.learned.all_dirty();
        let names: BTreeSet<Name> =
            inputs.store.nodes().map(|node| node.name.clone()).chain(self.mesh_of.keys().cloned()).collect();
        for name in &names {
            self.node_changed(name, inputs);
        }
        self.told.pod_networks(inputs.node);
    }

    /// A Service or its endpoints changed. O(its addresses + endpoints).
    fn service_changed(&mut self, id: &ObjectName, inputs: Inputs<'_>) {
        let Inputs { store, node, options } = inputs;
        let wishes = store.service(id).map(|service| {
            let endpoints = store.endpoints(id).map(|(_, endpoint)| endpoint);
            service_paths::advertised(service, endpoints, &node.name, options)
        });
        self.told.service(id, wishes.unwrap_or_default());
    }

    fn plan_node(&self, name: &Name, inputs: Inputs<'_>) -> Vec<Claim> {
        let node = inputs.store.node(name);
        node.map(|node| egress::members(node, inputs.node)).unwrap_or_default()
    }

    fn plan_learned(&mut self, prefix: &IpNet, inputs: Inputs<'_>) -> Vec<Claim> {
        let learned = self.learned.get(prefix);
        let claims = learned
            .map(|learned| overlay::claims(&learned, inputs.node, &inputs.options.routes))
            .unwrap_or_default();
        if claims.is_empty() {
            self.routed.remove(prefix);
        } else {
            self.routed.insert(*prefix);
        }
        claims
    }

    /// Tells how many learned prefixes have a route, if that changed.
    fn count_routes(&mut self) {
        let count = self.routed.len();
        if std::mem::replace(&mut self.routed_told, count) != count {
            self.effects.push(Effect::HostRoutes(count));
        }
    }
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    node.internal_ips.iter().chain(&node.external_ips).copied()
}

/// The name of a tunnel to `remote` that is not there yet. Upstream's form with another hash: upstream leaves dots and
/// colons out before it hashes, so that two next hops may share a tunnel (W8).
pub fn tunnel_name(remote: IpAddr) -> Name {
    let hash = match remote {
        IpAddr::V4(ip) => digest(&SHA256, &ip.octets()),
        IpAddr::V6(ip) => digest(&SHA256, &ip.octets()),
    };
    let digits: String = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Name::from(format!("{}{}", names::link::TUNNEL_PREFIX, digits.get(..11).unwrap_or(&digits)))
}

/// What of this node's links plans of this controller look at.
fn seen(facts: &Facts) -> impl PartialEq + use<'_> {
    (&facts.addresses, &facts.mtu, &facts.tunnels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::annotations::RoutingAnnotations;
    use crate::kube::model::{Object, WatchEvent};
    use crate::node::ThisNode;
    use crate::options::Options;
    use crate::store::Store;

    fn node(name: &str, ip: &str, asn: Option<u32>) -> Node {
        let asn = asn.map(|asn| bgp::Asn::new(asn).unwrap());
        Node {
            name: name.into(),
            internal_ips: vec![ip.parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Arc::new(RoutingAnnotations { asn, ..RoutingAnnotations::default() }),
        }
    }

    #[test]
    fn a_node_that_loses_its_as_number_keeps_its_sessions() {
        let options = Options::from_flags(&["--nodes-full-mesh=false"]).unwrap();
        let (store, there) = (Store::new("here".into()), node("there", "10.0.0.2", Some(64600)));
        let mut routes = NetworkRoutes::default();
        let mut sessions = |asn| {
            let own = node("here", "10.0.0.1", asn);
            let this = ThisNode { name: "here".into(), object: Some(own.clone()), facts: Facts::default() };
            let inputs = Inputs { store: &store, node: &this, options: &options };
            routes.mesh_with(&"there".into(), Some(&there), inputs);
            let (ask, objections) = speaker::configure(&own, &routes.mesh, &[], false, &options);
            (routes.mesh_of.len(), routes.mesh.len(), ask.is_some(), objections.len())
        };
        assert_eq!(sessions(None), (0, 0, false, 1), "it had none");
        assert_eq!(sessions(Some(64600)), (1, 1, true, 0));
        assert_eq!(sessions(None), (1, 1, false, 1), "the speaker is asked nothing, and has it still");
        assert_eq!(sessions(Some(64601)), (0, 0, true, 0));
    }

    /// An address moves from one Node object to another: made anew under another name, or exchanged.
    #[test]
    fn the_session_of_an_address_stays_while_any_node_has_it() {
        let options = Options::from_flags(&[] as &[&str]).unwrap();
        let mut store = Store::new("here".into());
        let own = node("here", "10.0.0.1", None);
        let this = ThisNode { name: "here".into(), object: Some(own), facts: Facts::default() };
        let mut routes = NetworkRoutes::default();
        let (ip, other): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap());
        let mut set = |name: &str, ip: Option<&str>| {
            store.apply(match ip {
                Some(ip) => WatchEvent::Applied(Object::Node(node(name, ip, None)), Vec::new()),
                None => WatchEvent::Deleted(Kind::Node, ObjectName::cluster_wide(name.into())),
            });
            routes.node_changed(&name.into(), Inputs { store: &store, node: &this, options: &options });
            routes.mesh.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(set("a", Some("10.0.0.2")), [ip]);
        assert_eq!(set("b", Some("10.0.0.2")), [ip], "both for a while");
        assert_eq!(set("a", None), [ip], "its successor has it");
        assert_eq!(set("c", Some("10.0.0.3")), [ip, other]);
        assert_eq!(set("b", Some("10.0.0.3")), [other]);
        assert_eq!(set("c", Some("10.0.0.2")), [ip, other], "exchanged");
        assert_eq!(set("b", None), [ip]);
    }

    /// Whatever address a node has, and whatever times the flags allow.
    #[test]
    fn what_options_allow_the_speaker_takes() {
        let flags = [
            "--router-id=generate",
            "--bgp-graceful-restart",
            "--bgp-graceful-restart-time=90500ms",
            "--bgp-graceful-restart-deferral-time=1s",
        ];
        let options = Options::from_flags(&flags).unwrap();
        for last in 1..=255u8 {
            for ip in [format!("10.0.0.{last}"), format!("2001:db8::{last:x}")] {
                let own = node("here", &ip, None);
                let (ask, objections) = speaker::configure(&own, &BTreeMap::new(), &[], false, &options);
                let Some(speaker::Ask::Configure(wish)) = ask else { panic!("{ip}: it asks for a speaker") };
                assert_eq!((wish.0.objections(), objections), (Vec::new(), Vec::new()), "{ip}");
            }
        }
    }

    #[test]
    fn tunnel_names_tell_next_hops_apart() {
        let remotes = ["10.1.1.11", "10.1.11.1", "10.11.1.1", "::1.2.3.4", "1.2.3.4", "2001:db8::1"];
        let names: BTreeSet<Name> = remotes.map(|ip| tunnel_name(ip.parse().unwrap())).into();
        assert_eq!(names.len(), remotes.len());
        assert!(names.iter().all(|name| name.len() == 15 && name.starts_with("tun-")));
    }
}

//! What the BGP speaker is asked to be: its configuration and rules as a whole, its own paths by change.
//!
//! Pure: values in, values out. Who carries them to the speaker is in [`crate::core`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Families;
use bgp::config::{Config, GracefulRestart};
use bgp::speaker::Routing;

use super::peers::Peer;
use super::told::PathChange;
use super::{identity, peers, rules};
use crate::annotations::Reflector;
use crate::kube::model::Node;
use crate::objection::Objection;
use crate::options::{ExternalPeer, Options};

/// Something the speaker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To be this, in place of what it was; sessions that stay the same go on.
    Configure(Box<(Config, Routing)>),
    /// To announce or withdraw paths of its own.
    Paths(Vec<PathChange>),
}

/// The speaker of a node, and what is wrong with what its Node object asks for. `forwarded`: the node forwarded for pods
/// before this agent came. A node that cannot say who it is leaves the speaker as it was. O(peers).
pub fn configure(
    own: &Node,
    mesh: &BTreeMap<IpAddr, Peer>,
    flags: &[ExternalPeer],
    forwarded: bool,
    options: &Options,
) -> (Option<Ask>, Vec<Objection>) {
    let asn = match identity::asn(own, &options.bgp) {
        Ok(asn) => asn,
        Err(objection) => return (None, vec![*objection]),
    };
    let Some(router_id) = identity::router_id(own, &options.bgp) else { return (None, Vec::new()) };
    let (outside, objections) = peers::external(own, flags, options);
    let nodes: BTreeSet<IpAddr> = mesh.keys().copied().collect();
    // An address of both is a node's: it is told what nodes are told.
    let outside: BTreeMap<IpAddr, Peer> =
        outside.into_iter().filter(|(address, _)| !nodes.contains(address)).collect();
    let told = rules::Told { node: own, nodes: &nodes, outside: &outside.keys().copied().collect() };
    let routing = rules::routing(&told, &options.bgp);
    let all = mesh.iter().chain(&outside);
    let config = Config {
        asn,
        router_id,
        cluster_id: match own.routing.reflector {
            Some(Reflector::Server(id)) => Some(id),
            _ => None,
        },
        listen: identity::listen(own, &options.bgp),
        graceful_restart: options.bgp.graceful_restart.map(|restart| GracefulRestart {
            restart_time: restart.restart,
            deferral: restart.deferral,
            stale_time: restart.restart,
            // Whoever ran here before left its routes in the kernel, and they are kept. A machine that has just booted
            // has none, and nobody waits for it.
            restarting: forwarded,
            forwarding_kept: if forwarded { Families::all() } else { Families::NONE },
        }),
        peers: all.map(|(address, peer)| (*address, peer.config.clone())).collect(),
    };
    (Some(Ask::Configure(Box::new((config, routing)))), objections)
}

//! What pod routing tells of itself: peers by Node, learned prefixes with the ways to them, tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use linux::reconciler::{Claim, Reconciler};
use linux::row::{Key, LinkKind, Name, Row, Tunnel};

use super::learned::LearnedPaths;
use super::overlay::{self, Learned};
use crate::core::Inputs;
use crate::explain::{Explanation, PlannedRoute};
use crate::kube::model::Node;
use crate::names;
use crate::owner::Owner;
use crate::status::{PeerState, RouteState, TunnelState};

/// Peers that are nodes. The speaker knows their sessions.
pub(super) fn peers(mesh: &BTreeMap<Name, IpAddr>) -> Vec<PeerState> {
    let state = |(name, address): (&Name, &IpAddr)| PeerState {
        address: address.to_string(),
        node: Some(name.to_string()),
        state: "unknown".to_owned(),
        ..PeerState::default()
    };
    mesh.iter().map(state).collect()
}

/// Learned prefixes and tunnels. O(prefixes × addresses of this node + nodes).
pub(super) fn ways(
    paths: &LearnedPaths,
    inputs: Inputs<'_>,
    rows: &Reconciler<Owner>,
) -> (Vec<RouteState>, Vec<TunnelState>) {
    let nodes = Nodes::of(inputs);
    let (mut routes, mut tunnels) = (Vec::new(), BTreeMap::new());
    for learned in paths.all() {
        let claims = overlay::claims(&learned, inputs.node, &inputs.options.routes);
        let route = claims.iter().find(|claim| is_route(claim, &learned));
        routes.push(RouteState {
            prefix: learned.prefix.to_string(),
            next_hop: learned.next_hop.to_string(),
            node: nodes.at(learned.next_hop),
            link: route.and_then(link),
            programmed: route.is_some_and(|claim| is_there(claim, rows)),
        });
        for claim in &claims {
            let (Key::Link(name), Row::Link(link)) = (&claim.key, &claim.row) else { continue };
            if let LinkKind::Tunnel(tunnel) = link.kind {
                tunnels.insert(name.clone(), state(name, &tunnel, &nodes, is_there(claim, rows)));
            }
        }
    }
    (routes, tunnels.into_values().collect())
}

/// Adds the plan for each path's destination, where a learned prefix covers it. O(paths × prefixes).
pub(super) fn plans(
    paths: &LearnedPaths,
    inputs: Inputs<'_>,
    rows: &Reconciler<Owner>,
    explanation: &mut Explanation,
) {
    let nodes = Nodes::of(inputs);
    for path in &mut explanation.paths {
        let Some(learned) = paths.covering(path.destination) else { continue };
        let claims = overlay::claims(&learned, inputs.node, &inputs.options.routes);
        let route = claims.iter().find(|claim| is_route(claim, &learned));
        path.planned = Some(PlannedRoute {
            prefix: learned.prefix.to_string(),
            next_hop: learned.next_hop.to_string(),
            node: nodes.at(learned.next_hop),
            link: route.and_then(link),
            tunnel: claims.iter().any(|claim| matches!(claim.key, Key::Link(_))),
            programmed: route.is_some_and(|claim| is_there(claim, rows)),
        });
    }
}

/// Nodes by their addresses.
struct Nodes<'a>(BTreeMap<IpAddr, &'a Node>);

impl<'a> Nodes<'a> {
    fn of(inputs: Inputs<'a>) -> Nodes<'a> {
        let addresses = |node: &'a Node| {
            node.internal_ips.iter().chain(&node.external_ips).map(move |address| (*address, node))
        };
        Nodes(inputs.store.nodes().flat_map(addresses).collect())
    }

    fn at(&self, address: IpAddr) -> Option<String> {
        self.0.get(&address).map(|node| node.name.to_string())
    }
}

fn is_route(claim: &Claim, learned: &Learned) -> bool {
    matches!(&claim.key, Key::Route { table, destination, .. }
        if *table == names::route::TABLE_MAIN && *destination == learned.prefix)
}

fn link(claim: &Claim) -> Option<String> {
    match &claim.row {
        Row::Route(route) => route.link.as_ref().map(ToString::to_string),
        _ => None,
    }
}

fn is_there(claim: &Claim, rows: &Reconciler<Owner>) -> bool {
    rows.actual(&claim.key) == Some(&claim.row)
}

fn state(name: &Name, tunnel: &Tunnel, nodes: &Nodes<'_>, programmed: bool) -> TunnelState {
    TunnelState {
        link: name.to_string(),
        local: tunnel.local.to_string(),
        remote: tunnel.remote.to_string(),
        encapsulation: tunnel.udp_port.map_or("ipip".to_owned(), |port| format!("fou, UDP port {port}")),
        node: nodes.at(tunnel.remote),
        programmed,
    }
}

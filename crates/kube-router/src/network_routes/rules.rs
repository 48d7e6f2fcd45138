//! What peers are told, and what is taken from them: the speaker's policies.
//!
//! Decided here, from the node, the options and the addresses of peers: other nodes are told this node's pod networks
//! (and by a reflector what it reflects), external peers the service addresses and, if asked, the pod networks. Nobody's
//! path to everything, or to a prefix the operator rejects, is taken; to an address we advertise ourselves our own path
//! is always the best. These rules hold on route reflectors, too, and an empty set of neighbours matches nobody
//! (upstream's W20, W21). They name no service address: Services come and go without a change of rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::policy::{
    Actions, CommunityAction, Conditions, NextHopAction, PathSource, Policy, PrefixRange, PrefixSet, Prepend,
    SetName, Statement, Verdict,
};
use bgp::speaker::Routing;
use ipnet::IpNet;

use crate::kube::model::Node;
use crate::options::Bgp;

/// Who the peers are, and what of ours there is to tell.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// This node.
    pub node: &'a Node,
    /// Addresses of the other nodes.
    pub nodes: &'a BTreeSet<IpAddr>,
    /// Addresses of the external peers.
    pub outside: &'a BTreeSet<IpAddr>,
}

const PODS: &str = "pod networks";
const NODES: &str = "nodes";
const OUTSIDE: &str = "external peers";
const EVERYTHING: &str = "default routes";
const REJECTED: &str = "rejected by annotation";

/// The policies. O(peers).
pub fn routing(told: &Told<'_>, options: &Bgp) -> Routing {
    Routing {
        import: Some(import()),
        export: Some(export(told.node, options)),
        // The two policies say what external peers are told; upstream takes from them whatever is not rejected.
        external_needs_policy: false,
        sets: sets(told),
        addresses: told.node.internal_ips.iter().chain(&told.node.external_ips).copied().collect(),
        ..Routing::default()
    }
}

fn sets(told: &Told<'_>) -> BTreeMap<SetName, PrefixSet> {
    let hosts = |ips: &BTreeSet<IpAddr>| ips.iter().map(|ip| PrefixRange::exact(IpNet::from(*ip))).collect();
    let exact = |nets: &mut dyn Iterator<Item = IpNet>| nets.map(PrefixRange::exact).collect::<PrefixSet>();
    let within = told.node.routing.import_reject.iter().map(|net| PrefixRange::within(*net)).collect();
    let default_routes = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|net| net.parse().ok());
    let sets = [
        (PODS, exact(&mut told.node.pod_cidrs.iter().copied())),
        (NODES, hosts(told.nodes)),
        (OUTSIDE, hosts(told.outside)),
        (EVERYTHING, exact(&mut default_routes.into_iter())),
        (REJECTED, within),
    ];
    sets.into_iter().map(|(name, set)| (SetName::from(name), set)).collect()
}

fn export(node: &Node, options: &Bgp) -> Policy {
    let to = |prefixes: Option<&str>, neighbours: &str, from| Conditions {
        prefixes: prefixes.map(SetName::from),
        neighbours: Some(SetName::from(neighbours)),
        from,
        ..Conditions::default()
    };
    let accept = |name: &str, when, then| Statement {
        name: name.to_owned(),
        when,
        then,
        verdict: Some(Verdict::Accept),
    };
    let mut statements = Vec::new();
    if options.ibgp {
        let own = to(Some(PODS), NODES, Some(PathSource::Local));
        statements.push(accept("own pod networks to nodes", own, Actions::default()));
        // Told on by reflectors only; the speaker knows who is one.
        let reflected = to(None, NODES, Some(PathSource::Internal));
        statements.push(accept("reflected to nodes", reflected, Actions::default()));
    }
    let pods = to(Some(PODS), OUTSIDE, Some(PathSource::Local));
    statements.push(match options.advertise.pod_cidr {
        true => accept("own pod networks to external peers", pods, outward(node, options)),
        false => Statement {
            name: "no pod networks to external peers".to_owned(),
            when: pods,
            then: Actions::default(),
            verdict: Some(Verdict::Reject),
        },
    });
    // Whatever else is ours is the address of a service.
    let services = to(None, OUTSIDE, Some(PathSource::Local));
    statements.push(accept("service addresses to external peers", services, outward(node, options)));
    Policy { statements, default: Verdict::Reject }
}

/// What the annotations of the node do to paths on their way out of the cluster.
fn outward(node: &Node, options: &Bgp) -> Actions {
    let communities = &node.routing.communities;
    let add = (!communities.is_empty()).then(|| CommunityAction::Add(communities.clone()));
    let prepend =
        node.routing.prepend.map(|prepend| Prepend { asn: Some(prepend.asn.get()), times: prepend.times });
    let next_hop = options.override_next_hop.then_some(NextHopAction::Ours);
    Actions { communities: add.into_iter().collect(), prepend, next_hop, ..Actions::default() }
}

fn import() -> Policy {
    let reject = |set: &str| Statement {
        name: format!("not {set}"),
        when: Conditions { prefixes: Some(SetName::from(set)), ..Conditions::default() },
        then: Actions::default(),
        verdict: Some(Verdict::Reject),
    };
    Policy { statements: [EVERYTHING, REJECTED].map(reject).into(), default: Verdict::Accept }
}

//! What on a node belongs to pod routing, told from the kernel alone: the bridge, tunnels, routes of our protocol, the
//! overlay's table, two sets, and rules in chains of the kernel's own.

use linux::firewall::FirewallScope;
use linux::reconciler::Gate;
use linux::route::RouteScope;
use linux::row::{ChainKey, FilterTable, Key, LaneName, Name, Position, Row};
use linux::rule::{Action, Match, Rule};

use super::base;
use crate::core::Needs;
use crate::kube::model::Kind;
use crate::kube::watch::Selection;
use crate::names;
use crate::options::{Encap, Options};

const SETS: [&str; 2] = [names::set::POD_SUBNETS, names::set::NODE_IPS];
const FORWARD: [&str; 3] =
    [names::comment::PODS_OUTBOUND, names::comment::PODS_INBOUND, names::comment::NODE_PORT_OUTBOUND];

/// What pod routing watches, all nodes and what is advertised of Services, and what it needs on the node.
pub(super) fn needs(options: &Options) -> Needs {
    let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
    let mut lanes = vec![LaneName::Sysctl, LaneName::Route, LaneName::Sets, LaneName::Firewall];
    lanes.extend(options.routes.cni.then_some(LaneName::Cni));
    Needs {
        watches: vec![
            Selection::all(Kind::Node),
            Selection::not_headless(Kind::Service),
            Selection::not_headless(Kind::EndpointSlice),
        ],
        lanes,
        routes: RouteScope {
            links: names(&[names::link::BRIDGE]),
            link_prefixes: names(&[names::link::TUNNEL_PREFIX]),
            links_with_mtu: if options.routes.auto_mtu { names(&[names::link::BRIDGE]) } else { Vec::new() },
            bridges: Vec::new(),
            tables: vec![names::route::TABLE_OVERLAY],
            protocol: names::route::PROTOCOL,
            udp_port: match options.routes.encap {
                Encap::Fou(port) => Some(port),
                Encap::IpIp => None,
            },
            ..RouteScope::default()
        },
        firewall: FirewallScope { sets: names(&SETS), foreign: vec![place], ..FirewallScope::default() },
        settings: base::setting_paths().map(Name::from).collect(),
        audit: options.routes.sync_period.min(options.routes.injected_sync_period),
        flows: false,
        speaker: true,
    }
}

/// Routes and tunnels of a predecessor may go when the speaker knows what peers advertise, and those that a peer of ours
/// told and withdrew at once: their next hop may be gone. Everything else once there are plans.
pub(super) fn gates(converged: bool) -> Vec<Gate> {
    // Lines in the CNI file that nobody here asks for were written by its operator.
    vec![
        Gate::new(learned, converged).but_for_the_withdrawn(),
        Gate::new(others, true),
        Gate::new(is_plugin, false),
    ]
}

fn learned(key: &Key, row: &Row) -> bool {
    match (key, row) {
        (Key::Link(name), _) => name.starts_with(names::link::TUNNEL_PREFIX),
        (Key::Route { table, .. }, Row::Route(route)) => {
            *table == names::route::TABLE_OVERLAY || route.protocol == names::route::PROTOCOL
        }
        (Key::FouPort(..), _) => true,
        _ => false,
    }
}

fn is_plugin(key: &Key, _row: &Row) -> bool {
    matches!(key, Key::CniPlugin(_))
}

fn others(key: &Key, _row: &Row) -> bool {
    match key {
        Key::Sysctl(_) | Key::CniConfig => true,
        Key::Link(name) => **name == *names::link::BRIDGE,
        Key::PolicyRule(rule) => rule.table == names::route::TABLE_OVERLAY,
        Key::Set(set) => SETS.contains(&&*set.name),
        Key::Member(set, _) => SETS.contains(&&*set.name),
        Key::ForeignRule(chain, rule) => place(chain, rule).is_some(),
        _ => false,
    }
}

/// Where our rules in the kernel's chains belong: accepting behind network policy at the head of FORWARD, masquerading
/// anywhere.
pub(super) fn place(chain: &ChainKey, rule: &Rule) -> Option<Position> {
    let Rule::Known(rule) = rule else { return None };
    match (chain.table, &*chain.name, &rule.action) {
        (FilterTable::Filter, "FORWARD", Action::Accept) => {
            let ours = rule.comment.as_deref().is_some_and(|comment| FORWARD.contains(&comment));
            ours.then_some(Position::First(names::rank::PODS))
        }
        (FilterTable::Nat, "POSTROUTING", Action::Masquerade { .. }) => {
            let of_pods = |found: &Match| matches!(found, Match::Set { name, .. } if **name == *names::set::POD_SUBNETS);
            rule.matches.iter().any(of_pods).then_some(Position::Anywhere)
        }
        _ => None,
    }
}

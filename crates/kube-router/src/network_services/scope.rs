//! What on a node belongs to the service proxy, told from the kernel alone: links, addresses and routes; sets, chains
//! and rules; settings.

use linux::firewall::FirewallScope;
use linux::reconciler::Gate;
use linux::route::RouteScope;
use linux::row::{ChainKey, Key, LaneName, Name, Position, Row};
use linux::rule::{Action, Match, Rule};

use super::base;
use crate::core::Needs;
use crate::kube::model::Kind;
use crate::kube::watch::Selection;
use crate::names;
use crate::options::Options;

const CHAINS: [&str; 2] = [names::chain::SERVICES, names::chain::HAIRPIN];
const SETS: [&str; 5] = [
    names::set::LOCAL_IPS,
    names::set::SERVICE_IPS,
    names::set::SERVICE_PORTS,
    names::set::HAIRPIN,
    names::set::NODE_PODS,
];

/// What the service proxy watches: no headless Services, only this node, and only its pods unless removed endpoints
/// are given their pod's time to finish; and what it needs on the node.
pub(super) fn needs(node: &Name, options: &Options) -> Needs {
    let own = Selection { fields: Some(format!("metadata.name={node}")), ..Selection::all(Kind::Node) };
    let drains = options.service_proxy.drain.is_some();
    let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
    Needs {
        watches: vec![
            Selection::not_headless(Kind::Service),
            Selection::not_headless(Kind::EndpointSlice),
            own,
            if drains { Selection::all(Kind::Pod) } else { Selection::pods_of(node) },
        ],
        lanes: vec![LaneName::Sysctl, LaneName::Route, LaneName::Ipvs, LaneName::Sets, LaneName::Firewall],
        routes: RouteScope {
            links: names(&[names::link::DUMMY]),
            address_links: names(&[names::link::DUMMY]),
            bridges: names(&[names::link::BRIDGE]),
            ..RouteScope::default()
        },
        firewall: FirewallScope {
            chains: names(&CHAINS),
            sets: names(&SETS),
            foreign: vec![place],
            ..FirewallScope::default()
        },
        settings: base::settings().map(|(path, _)| path.into()).collect(),
        flows: false,
        audit: options.service_proxy.sync_period,
        speaker: false,
    }
}

/// All rows of the service proxy may go once it plans.
pub(super) fn gate() -> Gate {
    Gate::new(covers, true)
}

fn covers(key: &Key, _row: &Row) -> bool {
    let on_dummy = |link: &Name| **link == *names::link::DUMMY;
    let our_set = |name: &Name| SETS.contains(&&**name);
    match key {
        Key::Sysctl(_) | Key::BridgePortHairpin(_) => true,
        Key::IpvsTimeouts | Key::VirtualServer(_) | Key::RealServer(..) => true,
        Key::Link(name) | Key::Address { link: name, .. } => on_dummy(name),
        Key::Route { table, link, .. } => {
            *table == names::route::TABLE_LOCAL && link.as_ref().is_some_and(on_dummy)
        }
        Key::PolicyRule(_) | Key::FouPort(..) | Key::CniConfig | Key::CniPlugin(_) => false,
        Key::VerdictMap(_) | Key::Verdict(..) => false,
        Key::Set(set) => our_set(&set.name),
        Key::Member(set, _) => our_set(&set.name),
        Key::Chain(chain) => CHAINS.contains(&&*chain.name),
        Key::ForeignRule(chain, rule) => {
            place(chain, rule).is_some() || rule.jump_target().is_some_and(|to| CHAINS.contains(&&**to))
        }
    }
}

/// Where our rules in the kernel's chains belong: the jumps at the head, masquerading (this program's or Go
/// kube-router's: source NAT of what goes through IPVS) anywhere.
pub(super) fn place(chain: &ChainKey, rule: &Rule) -> Option<Position> {
    if let Some(target) = rule.jump_target() {
        return match &**target {
            names::chain::SERVICES => Some(Position::First(names::rank::SERVICES)),
            // Or masquerading would give the pod the node's address for its peer.
            names::chain::HAIRPIN => Some(Position::First(names::rank::HAIRPIN)),
            _ => None,
        };
    }
    let Rule::Known(rule) = rule else { return None };
    let nat = matches!(rule.action, Action::SourceNat { .. } | Action::Masquerade { .. });
    let through_ipvs = rule.matches.iter().any(|condition| matches!(condition, Match::Ipvs(_)));
    (*chain.name == *"POSTROUTING" && nat && through_ipvs).then_some(Position::Anywhere)
}

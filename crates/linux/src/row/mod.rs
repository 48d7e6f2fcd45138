//! Rows: what can be desired of, and read from, the kernel.
//!
//! A key says which object, a row says how it should be. Both are plain data in the kernel's own normal form, so
//! that what is read back compares equal to what was written. Which rows are wanted is decided by plans in the
//! agent; how they get into the kernel is each lane's business.

mod network;
mod packet_filter;
mod table;
mod virtual_server;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::network::{Family, Link, LinkKind, PolicyRuleKey, Protocol, Route, RouteKind, Scope, Tunnel};
pub use self::packet_filter::{ChainKey, FilterTable, Member, Position, SetHeader, SetKey, SetKind};
pub use self::table::{LaneName, Table};
pub use self::virtual_server::{
    Forwarding, IpvsTimeouts, RealServer, Scheduler, VirtualServer, VirtualServerKey,
};
use crate::cni::CniConfig;
use crate::rule::Rule;

/// A short name (set, chain, link) shared by everything that mentions it.
pub type Name = Arc<str>;

/// Every key of every table. The order groups keys by lane, and members behind what contains them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A sysctl by its path below /proc/sys, e.g. `net/ipv4/vs/conntrack`.
    Sysctl(Name),
    /// A link by name.
    Link(Name),
    /// Whether a bridge port sends frames back out of the port they came in by (`IFLA_BRPORT_MODE`); by port name.
    BridgePortHairpin(Name),
    /// An address on a link.
    Address {
        /// Link name.
        link: Name,
        /// Address with its prefix length; host bits kept.
        net: IpNet,
    },
    /// A route.
    Route {
        /// Routing table number.
        table: u32,
        /// Destination.
        destination: IpNet,
        /// Outgoing link where several routes to one destination are told apart by it (table local).
        link: Option<Name>,
    },
    /// A policy routing rule.
    PolicyRule(PolicyRuleKey),
    /// A UDP port on which generic UDP encapsulation is unwrapped (`fou` generic netlink), by family.
    FouPort(Family, u16),
    /// Our part of the CNI configuration file.
    CniConfig,
    /// A plugin of this type in the list of the CNI configuration file.
    CniPlugin(Name),
    /// The global IPVS timeouts.
    IpvsTimeouts,
    /// A virtual server.
    VirtualServer(VirtualServerKey),
    /// A real server: of which virtual server, address, port.
    RealServer(VirtualServerKey, IpAddr, u16),
    /// A set.
    Set(SetKey),
    /// A member of a set, which is named once for all its members: of all keys this would otherwise be the largest.
    Member(Arc<SetKey>, Member),
    /// A chain of ours, whole.
    Chain(ChainKey),
    /// A rule of ours (most often a jump) in a chain that is not ours.
    ForeignRule(ChainKey, Rule),
    /// A verdict map: which chain of `filter` a packet is sent to, by one of its addresses. nftables only; shares its
    /// names with sets.
    VerdictMap(SetKey),
    /// An entry of a verdict map.
    Verdict(SetKey, IpAddr),
}

impl Key {
    /// The table of this key.
    pub fn table(&self) -> Table {
        match self {
            Key::Sysctl(_) => Table::Sysctls,
            Key::Link(_) => Table::Links,
            Key::BridgePortHairpin(_) => Table::BridgePorts,
            Key::Address { .. } => Table::Addresses,
            Key::Route { .. } => Table::Routes,
            Key::PolicyRule(_) => Table::PolicyRules,
            Key::FouPort(..) => Table::FouPorts,
            Key::CniConfig | Key::CniPlugin(_) => Table::CniConfigs,
            Key::IpvsTimeouts => Table::IpvsTimeouts,
            Key::VirtualServer(_) => Table::VirtualServers,
            Key::RealServer(..) => Table::RealServers,
            Key::Set(_) => Table::Sets,
            Key::Member(..) => Table::Members,
            Key::Chain(_) => Table::Chains,
            Key::ForeignRule(..) => Table::ForeignRules,
            Key::VerdictMap(_) => Table::VerdictMaps,
            Key::Verdict(..) => Table::Verdicts,
        }
    }

    /// The lane that reads and writes this key.
    pub fn lane(&self) -> LaneName {
        self.table().lane()
    }

    /// The row this one lives in and dies with: a real server in its virtual server, a member in its set, an
    /// address on its link. The kernel removes it with its container, so it is never removed on its own then.
    pub fn container(&self) -> Option<Key> {
        match self {
            Key::RealServer(server, ..) => Some(Key::VirtualServer(*server)),
            Key::Member(set, _) => Some(Key::Set(SetKey::clone(set))),
            Key::Verdict(map, _) => Some(Key::VerdictMap(map.clone())),
            Key::Address { link, .. } => Some(Key::Link(link.clone())),
            _ => None,
        }
    }
}

/// How an object should be, or is. The variant always belongs to the key's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Value of a sysctl, trimmed.
    Sysctl(Name),
    /// A link.
    Link(Box<Link>),
    /// On or off.
    BridgePortHairpin(bool),
    /// An address.
    Address {
        /// Scope; IPv6 addresses read back as universe or link by their prefix.
        scope: Scope,
    },
    /// A route.
    Route(Box<Route>),
    /// A rule is all key.
    PolicyRule,
    /// A port is all key.
    FouPort,
    /// Prefixes and MTU.
    CniConfig(Arc<CniConfig>),
    /// A plugin is all key: what else is said of it is its author's.
    CniPlugin,
    /// Timeouts.
    IpvsTimeouts(IpvsTimeouts),
    /// A virtual server; boxed, or every row would be as large.
    VirtualServer(Box<VirtualServer>),
    /// A real server.
    RealServer(RealServer),
    /// A set.
    Set(SetHeader),
    /// A member is all key.
    Member,
    /// Rules in order.
    Chain(Arc<[Rule]>),
    /// Position in the foreign chain.
    ForeignRule(Position),
    /// A verdict map is all key.
    VerdictMap,
    /// The chain that packets of the address are sent to. It may return: to where the chain was called in which a rule
    /// looked into the map.
    Verdict(Name),
}

impl Row {
    /// Keys a row under `key` needs to be there first, by its own content (a rule its sets and maps; a verdict its chain;
    /// anything its container). For chains that rules jump to see [`Self::goes_with`].
    pub fn stands_on(&self, key: &Key) -> Vec<Key> {
        let mut needs: Vec<Key> = key.container().into_iter().collect();
        match (key, self) {
            (Key::Chain(chain), Row::Chain(rules)) => {
                for rule in rules.iter() {
                    needs.extend(looked_into(chain.family, rule));
                }
            }
            (Key::ForeignRule(chain, rule), _) => needs.extend(looked_into(chain.family, rule)),
            (Key::Verdict(map, _), Row::Verdict(chain)) => {
                let (family, table) = (map.family, FilterTable::Filter);
                needs.push(Key::Chain(ChainKey { family, table, name: chain.clone() }));
            }
            (_, Row::Route(route)) => needs.extend(route.link.clone().map(Key::Link)),
            (_, Row::Link(link)) => {
                needs.extend(link.udp_port().map(|(family, port)| Key::FouPort(family, port)));
            }
            _ => {}
        }
        needs
    }
}

impl Row {
    /// Chains that the rules of a chain, or a rule in a foreign chain, jump to. They must be there no later than it is:
    /// what is in one table is written in one transaction, so being written together is enough.
    pub fn goes_with(&self, key: &Key) -> Vec<Key> {
        let target = |chain: &ChainKey, rule: &Rule| {
            let name = rule.jump_target()?.clone();
            Some(Key::Chain(ChainKey { name, ..chain.clone() }))
        };
        match (key, self) {
            (Key::Chain(chain), Row::Chain(rules)) => {
                rules.iter().filter_map(|rule| target(chain, rule)).collect()
            }
            (Key::ForeignRule(chain, rule), _) => target(chain, rule).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Keys that may go only once this row is gone: what it stands on, and the target of a rule in a foreign chain, for
    /// a packet that has come by that rule must find all that is behind it.
    pub fn holds(&self, key: &Key) -> Vec<Key> {
        let mut held = self.stands_on(key);
        if matches!(key, Key::ForeignRule(..)) {
            held.extend(self.goes_with(key));
        }
        held
    }
}

/// Sets and maps a rule looks into.
fn looked_into(family: Family, rule: &Rule) -> impl Iterator<Item = Key> {
    let named = move |name: &Name| SetKey { family, name: name.clone() };
    let maps = rule.verdict_map().map(named).map(Key::VerdictMap);
    rule.sets().map(named).map(Key::Set).chain(maps)
}

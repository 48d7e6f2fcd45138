//! Rows: what can be desired of, and read from, the kernel.
//!
//! A key says which object, a row says how it should be. Both are plain data in the kernel's own normal form, so
//! that what is read back compares equal to what was written. Which rows are wanted is decided by plans in the
//! agent; how they get into the kernel is each lane's business.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cni::CniConfig;
use crate::order;
use crate::rule::Rule;

/// A short name (set, chain, link) shared by everything that mentions it.
pub type Name = Arc<str>;

/// Address family of a table, set or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: &IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family of a prefix.
    pub fn of_net(net: &IpNet) -> Family {
        Family::of(&net.addr())
    }

    /// The kernel's number, `AF_INET` or `AF_INET6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// Bits of a host prefix: 32 or 128.
    pub fn host_len(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// Transport protocols a Kubernetes Service or policy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Protocol of an IANA number, if it is one of ours.
    pub fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Lower-case name as tools print it: `tcp`, `udp`, `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which virtual server. The order puts real servers of one virtual server together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualServerKey {
    /// Found by destination address, protocol and port.
    Address {
        /// Virtual address.
        ip: IpAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// Port, 1-65535; 0 only when read from the kernel (a port-less service of someone else).
        port: u16,
    },
    /// Found by firewall mark (`IPVS_SVC_ATTR_FWMARK`).
    Mark {
        /// Family of its real servers.
        family: Family,
        /// The mark, never 0.
        mark: u32,
    },
}

impl VirtualServerKey {
    /// Family of the virtual server.
    pub fn family(&self) -> Family {
        match self {
            VirtualServerKey::Address { ip, .. } => Family::of(ip),
            VirtualServerKey::Mark { family, .. } => *family,
        }
    }
}

/// IPVS schedulers by kernel module name (`ip_vs_<name>`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// Round robin.
    RoundRobin,
    /// Least connection.
    LeastConnection,
    /// Destination hashing.
    DestinationHash,
    /// Source hashing.
    SourceHash,
    /// Maglev hashing.
    Maglev,
    /// Any other, by the kernel's name (`wrr`, `sed`, `nq`, …).
    Other(Name),
}

impl Scheduler {
    /// The kernel's name.
    pub fn as_str(&self) -> &str {
        match self {
            Scheduler::RoundRobin => "rr",
            Scheduler::LeastConnection => "lc",
            Scheduler::DestinationHash => "dh",
            Scheduler::SourceHash => "sh",
            Scheduler::Maglev => "mh",
            Scheduler::Other(name) => name,
        }
    }

    /// The scheduler the kernel calls `name`.
    pub fn named(name: &str) -> Scheduler {
        match name {
            "rr" => Scheduler::RoundRobin,
            "lc" => Scheduler::LeastConnection,
            "dh" => Scheduler::DestinationHash,
            "sh" => Scheduler::SourceHash,
            "mh" => Scheduler::Maglev,
            other => Scheduler::Other(Arc::from(other)),
        }
    }
}

/// How a virtual server should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Scheduler flags `flag-1..3` as `IP_VS_SVC_F_SCHED1..3` (0x08, 0x10, 0x20); other bits are not ours.
    pub scheduler_flags: u8,
    /// Session affinity: seconds a client sticks to its real server; `None` is not persistent.
    pub persistence: Option<u32>,
}

/// How packets reach a real server (`IP_VS_CONN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// NAT.
    Masquerade,
    /// The real server is this host.
    Local,
    /// IP-in-IP.
    Tunnel,
    /// Direct routing.
    DirectRoute,
}

/// How a real server should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServer {
    /// 0 takes no new connections.
    pub weight: u32,
    /// Forwarding method.
    pub forwarding: Forwarding,
}

/// Global IPVS timeouts in seconds (`IPVS_CMD_SET_CONFIG`); 0 keeps what the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpvsTimeouts {
    /// Established TCP.
    pub tcp: u32,
    /// TCP after FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

/// Kinds of links we create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// `dummy`
    Dummy,
    /// `bridge`
    Bridge,
    /// `ipip` or `ip6tnl`, by the family of its ends.
    Tunnel(Tunnel),
    /// Any other kind, as read; never created by us.
    Other(Name),
}

/// A point-to-point tunnel that carries IP in IP. Both ends are of one family; the kernel has at most one tunnel of a
/// kind between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Our end.
    pub local: IpAddr,
    /// The other end.
    pub remote: IpAddr,
    /// UDP port of the other end where packets are wrapped in generic UDP encapsulation (`encap gue`); `None` is plain.
    pub udp_port: Option<u16>,
}

/// How a link should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kind; a link of the wrong kind under our name is replaced.
    pub kind: LinkKind,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes; `None` leaves it alone.
    pub mtu: Option<u32>,
}

/// Address and route scope (`RT_SCOPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// 0
    Universe,
    /// 253
    Link,
    /// 254
    Host,
}

/// Route type (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Gateway or direct route.
    Unicast,
    /// Local delivery.
    Local,
    /// Any other type number, as read.
    Other(u8),
}

/// How a route should be. Its table, destination and metric are in its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Type.
    pub kind: RouteKind,
    /// Outgoing link.
    pub link: Option<Name>,
    /// Gateway; may be of the other family (RFC 8950).
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Scope; IPv6 routes always read back as universe.
    pub scope: Scope,
    /// Routing protocol number (`RTPROT_*`): 2 kernel, 17 ours.
    pub protocol: u8,
}

/// Which policy routing rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRuleKey {
    /// Family.
    pub family: Family,
    /// Priority; `None` lets the kernel choose and matches any when read back.
    pub priority: Option<u32>,
    /// `from`
    pub from: Option<IpNet>,
    /// `fwmark`
    pub mark: Option<u32>,
    /// `lookup`
    pub table: u32,
}

/// ipset types in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `hash:ip`
    HashIp,
    /// `hash:net`
    HashNet,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:net,port`
    HashNetPort,
}

/// Which set, by the name without the kernel's family prefix (`inet6:` is added by the ipset lane).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetKey {
    /// Family of the members.
    pub family: Family,
    /// Name.
    pub name: Name,
}

impl Ord for SetKey {
    fn cmp(&self, other: &SetKey) -> Ordering {
        self.family.cmp(&other.family).then_with(|| order::names(&self.name, &other.name))
    }
}

impl PartialOrd for SetKey {
    fn partial_cmp(&self, other: &SetKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Header of a set. A change of it is a swap, members are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetHeader {
    /// Type.
    pub kind: SetKind,
    /// Most members the kernel will take.
    pub max_members: u32,
    /// Default timeout in seconds; `Some(0)` is what Go kube-router creates, ours have none.
    pub timeout: Option<u32>,
}

/// A member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// An address.
    Ip(IpAddr),
    /// A prefix; /0 is never written (two halves are).
    Net(IpNet),
    /// Address, protocol and port.
    IpPort(IpAddr, Protocol, u16),
    /// Address, protocol and port, second address.
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    /// Prefix, protocol and port.
    NetPort(IpNet, Protocol, u16),
}

/// Packet filter tables in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterTable {
    /// `filter`
    Filter,
    /// `nat`
    Nat,
    /// `mangle`
    Mangle,
}

impl FilterTable {
    /// Every table, in the order they are read and written.
    pub const ALL: [FilterTable; 3] = [FilterTable::Mangle, FilterTable::Nat, FilterTable::Filter];

    /// iptables' name.
    pub fn as_str(self) -> &'static str {
        match self {
            FilterTable::Filter => "filter",
            FilterTable::Nat => "nat",
            FilterTable::Mangle => "mangle",
        }
    }
}

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    /// Family.
    pub family: Family,
    /// Table.
    pub table: FilterTable,
    /// Chain name, at most 28 bytes.
    pub name: Name,
}

/// Where a rule of ours stands in a chain that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// Before every other rule but those of ours that are first with a lower rank; equal ranks stand in any order.
    First(u8),
    /// After every other rule at the time of insertion; later rules of others may follow.
    Last,
    /// Anywhere.
    Anywhere,
}

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

/// Lanes: groups of tables that share a kernel interface and a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneName {
    /// Files below /proc/sys.
    Sysctl,
    /// rtnetlink: links, addresses, routes, rules.
    Route,
    /// IPVS.
    Ipvs,
    /// Sets and their members.
    Sets,
    /// Chains and rules.
    Firewall,
    /// The CNI configuration file.
    Cni,
}

impl LaneName {
    /// Every lane, in the order of start-up messages.
    pub const ALL: [LaneName; 6] = [
        LaneName::Sysctl,
        LaneName::Route,
        LaneName::Ipvs,
        LaneName::Sets,
        LaneName::Firewall,
        LaneName::Cni,
    ];
}

/// Tables as metrics and `status` name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is the plural of its key
pub enum Table {
    Sysctls,
    Links,
    BridgePorts,
    Addresses,
    Routes,
    PolicyRules,
    FouPorts,
    CniConfigs,
    IpvsTimeouts,
    VirtualServers,
    RealServers,
    Sets,
    Members,
    Chains,
    ForeignRules,
    VerdictMaps,
    Verdicts,
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

impl Table {
    /// Every table.
    pub const ALL: [Table; 17] = [
        Table::Sysctls,
        Table::Links,
        Table::BridgePorts,
        Table::Addresses,
        Table::Routes,
        Table::PolicyRules,
        Table::FouPorts,
        Table::CniConfigs,
        Table::IpvsTimeouts,
        Table::VirtualServers,
        Table::RealServers,
        Table::Sets,
        Table::Members,
        Table::Chains,
        Table::ForeignRules,
        Table::VerdictMaps,
        Table::Verdicts,
    ];

    /// The lane of this table.
    pub fn lane(self) -> LaneName {
        match self {
            Table::Sysctls => LaneName::Sysctl,
            Table::Links
            | Table::BridgePorts
            | Table::Addresses
            | Table::Routes
            | Table::PolicyRules
            | Table::FouPorts => LaneName::Route,
            Table::CniConfigs => LaneName::Cni,
            Table::IpvsTimeouts | Table::VirtualServers | Table::RealServers => LaneName::Ipvs,
            Table::Sets | Table::Members => LaneName::Sets,
            Table::Chains | Table::ForeignRules | Table::VerdictMaps | Table::Verdicts => LaneName::Firewall,
        }
    }

    /// Label in metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Sysctls => "sysctls",
            Table::Links => "links",
            Table::BridgePorts => "bridge_ports",
            Table::Addresses => "addresses",
            Table::Routes => "routes",
            Table::PolicyRules => "policy_rules",
            Table::FouPorts => "fou_ports",
            Table::CniConfigs => "cni_configs",
            Table::IpvsTimeouts => "ipvs_timeouts",
            Table::VirtualServers => "virtual_servers",
            Table::RealServers => "real_servers",
            Table::Sets => "sets",
            Table::Members => "set_members",
            Table::Chains => "chains",
            Table::ForeignRules => "rules_in_foreign_chains",
            Table::VerdictMaps => "verdict_maps",
            Table::Verdicts => "verdicts",
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
    /// The chain that packets of the address are sent to; it may return.
    Verdict(Name),
}

impl Row {
    /// Keys a row under `key` needs to be there first, by its own content (a rule its sets and maps and, in a foreign
    /// chain, its target chain; a verdict its chain; anything its container). For chains that chains refer to see
    /// [`Self::goes_with`].
    pub fn stands_on(&self, key: &Key) -> Vec<Key> {
        let mut needs: Vec<Key> = key.container().into_iter().collect();
        match (key, self) {
            (Key::Chain(chain), Row::Chain(rules)) => {
                for rule in rules.iter() {
                    needs.extend(looked_into(chain.family, rule));
                }
            }
            (Key::ForeignRule(chain, rule), _) => {
                needs.extend(looked_into(chain.family, rule));
                if let Some(target) = rule.jump_target() {
                    needs.push(Key::Chain(ChainKey { name: target.clone(), ..chain.clone() }));
                }
            }
            (Key::Verdict(map, _), Row::Verdict(chain)) => {
                let (family, table) = (map.family, FilterTable::Filter);
                needs.push(Key::Chain(ChainKey { family, table, name: chain.clone() }));
            }
            (_, Row::Route(route)) => needs.extend(route.link.clone().map(Key::Link)),
            (_, Row::Link(link)) => {
                if let LinkKind::Tunnel(Tunnel { local, udp_port: Some(port), .. }) = link.kind {
                    needs.push(Key::FouPort(Family::of(&local), port));
                }
            }
            _ => {}
        }
        needs
    }
}

impl Row {
    /// Chains a chain jumps to. They must be there no later than it is: chains of one table are written in one
    /// transaction, so being written together is enough.
    pub fn goes_with(&self, key: &Key) -> Vec<Key> {
        match (key, self) {
            (Key::Chain(chain), Row::Chain(rules)) => {
                let targets = rules.iter().filter_map(Rule::jump_target);
                targets.map(|target| Key::Chain(ChainKey { name: target.clone(), ..chain.clone() })).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Sets and maps a rule looks into.
fn looked_into(family: Family, rule: &Rule) -> impl Iterator<Item = Key> {
    let named = move |name: &Name| SetKey { family, name: name.clone() };
    let maps = rule.verdict_map().map(named).map(Key::VerdictMap);
    rule.sets().map(named).map(Key::Set).chain(maps)
}

//! Tables, and the lanes that read and write them.

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

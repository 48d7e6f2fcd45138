//! `kube-router doctor`: looks at a node as kube-router will find it, and says what is wrong with it and the fix.
//!
//! Decided here: what a check is and how bad its outcome. [`gather`] looks (the only part with I/O, and it writes nothing),
//! the modules under [`checks`] judge [`Facts`]. It needs no running agent; of one that runs it takes the flags, so that
//! what those need is checked.

mod api;
pub mod checks;
pub mod command;
pub mod gather;
pub mod text;
pub mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use linux::nftables::obstacles::Obstacle;
use linux::row::Name;
use serde::Serialize;

use self::wanted::Wanted;

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `modules`, `iptables`, …
    pub about: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Fine,
    /// It cannot be told.
    Unknown,
    /// It works, but not as well as it might.
    Warning,
    /// Something will not work.
    Problem,
}

impl Check {
    fn new(about: &'static str, level: Level, found: impl Into<String>, fix: Option<String>) -> Check {
        Check { about, level, found: found.into(), fix }
    }

    fn fine(about: &'static str, found: impl Into<String>) -> Check {
        Check::new(about, Level::Fine, found, None)
    }

    fn unknown(about: &'static str, found: impl Into<String>) -> Check {
        Check::new(about, Level::Unknown, found, None)
    }

    fn warning(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check::new(about, Level::Warning, found, Some(fix.into()))
    }

    fn problem(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check::new(about, Level::Problem, found, Some(fix.into()))
    }
}

/// What was looked at. What could not be is `None` or an error's text.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What runs here, or is to.
    pub runs: Wanted,
    /// The agent that answers on this node's socket.
    pub agent: Option<Agent>,
    /// Effective capabilities of the agent, else of this process, as bits.
    pub capabilities: Option<u64>,
    /// Kernel modules by name.
    pub modules: BTreeMap<&'static str, Presence>,
    /// Whether the kernel answers for IPVS.
    pub ipvs: Option<Result<(), String>>,
    /// Settings by their path below /proc/sys; `None` if this kernel has none.
    pub settings: BTreeMap<Name, Option<String>>,
    /// Those of them that can be written from here.
    pub writable: BTreeSet<Name>,
    /// Programs and rules of each flavour of iptables that is installed.
    pub iptables: Vec<Iptables>,
    /// What `iptables-restore` is, or why there is none.
    pub iptables_default: Option<Result<String, String>>,
    /// A table of kube-proxy's is in nftables.
    pub kube_proxy_table: bool,
    /// Chains in tables of others that drop packets of pods, whatever our rules say.
    pub obstacles: Vec<Obstacle>,
    /// Links by name.
    pub links: BTreeMap<Name, Link>,
    /// Addresses of this node.
    pub addresses: Vec<IpNet>,
    /// Files in the folder of CNI configurations, in the order of the container runtime, with their text.
    pub cni: Vec<(String, String)>,
    /// The API server.
    pub api: Api,
}

/// A running agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its process.
    pub pid: Option<i32>,
    /// Its version; `None` if it does not answer.
    pub version: Option<String>,
    /// How many things its status names as refused or not usable.
    pub troubles: usize,
}

/// A kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Loaded, or part of the kernel.
    There,
    /// Can be loaded.
    Loadable,
    /// Neither.
    Absent,
    /// There is no list of this kernel's modules to look into.
    Untold,
}

/// One flavour of iptables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iptables {
    /// `legacy` or `nft`.
    pub flavour: &'static str,
    /// `1.8.9`
    pub version: String,
    /// `iptables-save` of IPv4 and IPv6.
    pub dump: Result<String, String>,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// MTU in bytes.
    pub mtu: u32,
    /// Its kind as the kernel names it; empty for physical links and loopback.
    pub kind: String,
    /// It holds an address of the Node object.
    pub is_uplink: bool,
    /// There are routes by it that IPv6 router advertisements brought.
    pub is_advertised: bool,
}

/// The API server, as far as it could be asked.
#[derive(Debug, Clone, Default)]
pub struct Api {
    /// Where it is, or why that is not known.
    pub server: Option<Result<String, String>>,
    /// Each kind that is to be read, and what came of it.
    pub lists: Vec<(&'static str, Listed)>,
    /// This node's name.
    pub node_name: String,
    /// Its object, if there is one.
    pub node: Option<NodeSeen>,
    /// Seconds by which the server's clock is ahead of ours.
    pub clock_ahead: Option<i64>,
}

/// What came of asking for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It may be read.
    Yes,
    /// The server refuses: HTTP status and its reason.
    No(u16, String),
    /// The server was not reached.
    Unreached(String),
}

/// This node's object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Addresses.
    pub addresses: Vec<String>,
    /// Pod prefixes.
    pub pod_cidrs: Vec<String>,
}

/// All checks. O(lines of rules).
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut all = checks::process::all(facts);
    all.extend(checks::kernel::all(facts));
    all.extend(checks::settings::all(facts));
    all.extend(checks::paths::all(facts));
    all.extend(checks::firewall::all(facts));
    all.extend(checks::network::all(facts));
    all.extend(checks::api::all(facts));
    all
}

//! What this agent knows and has done, for a person or a program that asks.
//!
//! Decided here: what is told. The core fills a [`Status`] from what it holds in memory; nothing is looked up, so asking
//! costs the kernel nothing and an answer is as old as the last event. It is served as JSON over a unix socket that only
//! root may open ([`socket`]), and `kube-router status` shows it ([`client`], [`table`]).

pub mod client;
pub mod collect;
pub mod command;
pub mod peers;
pub mod section;
pub mod socket;
pub mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything told. Fields are added, never renamed: scripts read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// The packet filter written to: `iptables` or `nftables`; none where no controller needs one.
    pub firewall: Option<String>,
    /// Nothing is left to be programmed but what is refused.
    pub settled: bool,
    /// Controllers that run.
    pub controllers: Vec<ControllerState>,
    /// Watches of the API server.
    pub watches: Vec<WatchState>,
    /// Tables of the kernel.
    pub tables: Vec<TableState>,
    /// Rows the kernel does not take.
    pub refused: Vec<RefusedRow>,
    /// Virtual servers with their backends.
    pub services: Vec<ServiceState>,
    /// Pods of this node, with the policies that restrict them.
    pub policies: Vec<PodState>,
    /// Pods that are wired here and that the API server does not show with their addresses yet.
    pub announced: Vec<AnnouncedState>,
    /// BGP peers.
    pub peers: Vec<PeerState>,
    /// Prefixes learned from BGP peers, and the ways to them.
    pub routes: Vec<RouteState>,
    /// Tunnels to other nodes.
    pub tunnels: Vec<TunnelState>,
    /// What in the cluster's objects cannot be used.
    pub objections: Vec<ObjectionState>,
}

/// A controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerState {
    /// Its name.
    pub name: String,
    /// It knows enough to plan.
    pub planning: bool,
}

/// The watch of one kind of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchState {
    /// The kind.
    pub kind: String,
    /// A complete list has been seen.
    pub synced: bool,
    /// Why it does not work at present, if it does not.
    pub broken: Option<String>,
}

/// A table in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableState {
    /// Its name, as in metrics.
    pub table: String,
    /// Rows wanted.
    pub desired: usize,
    /// Rows believed to be in the kernel.
    pub actual: usize,
    /// Rows refused.
    pub refused: usize,
    /// Rows found changed by others and put right, ever.
    pub healed: u64,
}

/// A row the kernel does not take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedRow {
    /// Which.
    pub row: String,
    /// Who wants it.
    pub wanted_by: Vec<String>,
    /// The kernel's reason, with the remedy if known.
    pub reason: String,
    /// How often it was tried in a row.
    pub attempts: u32,
}

/// A virtual server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceState {
    /// Namespace and name of the Service that has it.
    pub service: String,
    /// Address, port and protocol.
    pub at: String,
    /// The kind of address.
    pub kind: String,
    /// Scheduler.
    pub scheduler: String,
    /// It is in the kernel.
    pub programmed: bool,
    /// Real servers in the kernel.
    pub backends: Vec<BackendState>,
}

/// A real server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendState {
    /// Address and port.
    pub at: String,
    /// 0 takes no new connections.
    pub weight: u32,
}

/// A pod of this node as network policy sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodState {
    /// Namespace and name.
    pub pod: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Policies that restrict what it receives; without one it receives everything.
    pub ingress: Vec<String>,
    /// Policies that restrict what it sends; without one it sends everything.
    pub egress: Vec<String>,
    /// Its rules are in the kernel.
    pub programmed: bool,
}

/// A pod the CNI plugin has told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnnouncedState {
    /// Namespace and name.
    pub pod: String,
    /// The sandbox, by the runtime's identifier.
    pub container: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The API server shows the pod, without these addresses.
    pub known: bool,
}

/// A BGP peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerState {
    /// Its address.
    pub address: String,
    /// The Node it is; none for a router outside of the cluster.
    pub node: Option<String>,
    /// Its AS number, while it is up.
    pub asn: Option<u32>,
    /// State of the session as RFC 4271 names it, in lower case; `unknown` before there is a speaker.
    pub state: String,
    /// Seconds since it came up.
    pub up_seconds: Option<u64>,
    /// Seconds until connections are wanted again, after an error or too many prefixes; none if they are.
    pub retry_seconds: Option<u64>,
    /// How often it came up.
    pub established: u64,
    /// Prefixes it has told us, of both families.
    pub received: usize,
    /// Prefixes it has been told.
    pub told: usize,
    /// The last NOTIFICATION, whether from it or to it, which it says.
    pub last_error: Option<String>,
    /// Announcements that could not be used when they came, by reason: `own_as`, `own_originator_id`, `own_cluster_id`,
    /// `martian_next_hop`, `martian_prefix`, `policy`, `no_policy`.
    pub refused: BTreeMap<String, u64>,
    /// What else it did wrong, by reason: `treated_as_withdraw`, `attribute_discarded`, `too_many_prefixes`,
    /// `duplicate_router_id`.
    pub faults: BTreeMap<String, u64>,
}

/// A prefix learned from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteState {
    /// The prefix.
    pub prefix: String,
    /// The next hop of the best path.
    pub next_hop: String,
    /// The Node that has this next hop.
    pub node: Option<String>,
    /// The link packets leave by; none where they are left to the network around the nodes.
    pub link: Option<String>,
    /// The route is in the kernel as it should be.
    pub programmed: bool,
}

/// A tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelState {
    /// The link.
    pub link: String,
    /// Our end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// `ipip`, or `fou` with its UDP port.
    pub encapsulation: String,
    /// The Node at the other end.
    pub node: Option<String>,
    /// It is in the kernel as it should be.
    pub programmed: bool,
}

/// Something in an object that cannot be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectionState {
    /// The object.
    pub object: String,
    /// The field.
    pub field: String,
    /// Its value.
    pub value: String,
    /// Why it cannot be used.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

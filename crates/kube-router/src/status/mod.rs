//! What this agent knows and has done, for a person or a program that asks.
//!
//! Decided here: what is told. The core fills a [`Status`] from what it holds in memory; nothing is looked up, so asking
//! costs the kernel nothing and an answer is as old as the last event. It is served as JSON over a unix socket that only
//! root may open ([`socket`]), and `kube-router status` shows it ([`client`], [`table`]).

pub mod client;
pub mod collect;
pub mod command;
pub mod socket;
pub mod table;

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

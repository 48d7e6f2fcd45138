//! The kernel as tables of desired rows.
//!
//! Everything this project owns on a node is a row under a key ([`row`]). A lane ([`lane`]) is one kernel
//! interface with a blocking thread: it reads rows and applies changes, nothing else. The reconciler
//! ([`reconciler`]) holds what is desired and what is believed to be there, and says which lane has to do what
//! next; it does no I/O. This crate is the only one that opens netlink sockets or starts processes, and it knows
//! neither Kubernetes nor BGP.

pub mod cni;
pub mod command;
pub mod conntrack;
pub mod firewall;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod lane;
pub mod memory;
pub mod netlink;
pub mod nflog;
pub mod nftables;
pub mod numbers;
pub mod order;
pub mod reconciler;
pub mod route;
pub mod row;
pub mod rt_tables;
pub mod rule;
pub mod sysctl;
mod words;

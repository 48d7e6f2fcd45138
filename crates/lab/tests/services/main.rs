//! The service proxy as a whole: agents as processes on nodes, an API server, pods wired by CNI. Connections and the
//! tools of other projects (ipvsadm, ipset, iptables-save, ip, curl) are the judges; nothing here asks the agent what it
//! believes.
//!
//! A cluster takes half a minute in the VM, so there is one for each subject and one test tells its whole story, with
//! what it was about in every failure. Two need no IPVS: `start` is about a kernel without, `access` about the way to the
//! API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod access;
mod endpoints;
mod faults;
mod filters;
mod firewall;
mod foreign;
mod objects;
mod setup;
mod sources;
mod start;
mod trial;
mod ways_in;

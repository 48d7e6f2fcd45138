//! Network policy as a whole: agents as processes on three nodes, an API server, pods wired by CNI, and packets as the
//! verdict. What should pass is computed from the objects by `lab::policy`'s reference, which knows nothing of the agent.
//!
//! Policy needs no IPVS, so everything here runs natively, in network namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod backends;
mod case;
mod changes;
mod documents;
mod ends;
mod faults;
mod fence;
mod first_packet;
mod flows;
mod gaps;
mod harness;
mod input;
mod isolation;
mod itself;
mod judge;
mod nodes;
mod operator;
#[path = "../pages/mod.rs"]
#[allow(dead_code, reason = "`docs.rs` asks for the rest")]
mod pages;
mod path_mtu;
mod random;
mod routed;
mod service_flows;
mod service_ways;
mod stage;
mod tables;
mod takeover;
mod upstream;

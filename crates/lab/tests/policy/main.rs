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
mod faults;
mod fence;
mod first_packet;
mod flows;
mod gaps;
mod harness;
mod input;
mod isolation;
mod judge;
mod nodes;
mod operator;
mod service_flows;
mod stage;
mod tables;
mod takeover;
mod upstream;

//! Pod routing end to end: whole agents, judged by packets between pods, by `ip`, and by routers of other makes.
//! Agents that route only, in one subnet, run on every kernel; what needs tunnels is in [`overlay`], what needs IPVS in
//! [`services`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test"
)]

mod above;
mod bad_paths;
mod cleanup;
mod direct;
mod documented;
mod identities;
mod limits;
mod live;
mod mixed;
mod newcomer;
mod overlay;
mod predecessor;
mod reflectors;
mod restart;
mod services;
mod setup;
mod stuck;
mod terms;
mod told_once;

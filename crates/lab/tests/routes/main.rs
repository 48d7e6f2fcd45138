//! Pod routing end to end: agents with nothing but the routes controller, judged by packets between pods and by `ip`.
//! Nodes in one subnet need no tunnels, so this runs on every kernel; what tunnels is in [`overlay`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod direct;
mod overlay;
mod setup;

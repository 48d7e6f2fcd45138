//! BGP between real implementations in network namespaces, natively: what FRR, BIRD, GoBGP and ExaBGP make of each
//! other, and of our speaker. Judged by what each says of its sessions and paths, and by `ip -j` for the kernel's routes.
//!
//! Every check is written for any two implementations. `foreign.rs` runs it between foreign pairs, which proves the
//! harness; `speaker.rs` runs it between our speaker and each of the four.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, too"
)]

mod checks;
mod foreign;
mod malformed;
mod pods;
mod raw;
mod setup;
mod speaker;

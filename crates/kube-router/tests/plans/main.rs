//! Plans from the outside: cluster objects in, rows out.
//!
//! [`golden`] holds whole rows against files a person can read, [`properties`] any order of events against planning
//! from scratch, [`orders`] what may be in the kernel without what, [`ownership`] whose a leftover is; [`policies`]
//! is about network policy, [`routes`] about pod routing with the speaker in between. The kernel has no part in any
//! of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail by panic

mod cluster;
mod files;
mod golden;
mod orders;
mod ownership;
mod policies;
mod properties;
mod routes;
mod text;

//! Sessions over real TCP: two of our speakers, or one and a socket that misbehaves, in a network namespace of their own.
//! `ss` says what connections there are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its parts too"
)]

mod hostile;
mod live;
mod setup;
mod tcp;

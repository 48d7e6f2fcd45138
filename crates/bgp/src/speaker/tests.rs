//! Whole speakers without sockets: what they select and tell.

mod restart;
mod rules;
mod scratch;
mod sessions;
mod world;

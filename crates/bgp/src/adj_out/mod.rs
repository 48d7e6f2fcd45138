//! What peers are told: Adj-RIB-Out (RFC 4271 section 3.2), for all peers that see the same at once.
//!
//! Peers whose view is equal form a [`Group`](group::Group): what they are told is worked out once
//! ([`export`]), and what has changed stands once in a [`log`]. Each member only has a position in that log and a bit
//! for each destination it has been told. Nothing is queued for a peer: the driver asks what to send next when the
//! peer's socket has room ([`feed`]), and a peer that does not read falls behind in the log, which never holds a
//! destination twice for long.

pub(crate) mod batch;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod log;
mod pull;

pub use export::Withheld;

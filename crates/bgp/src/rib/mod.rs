//! One table for each family: every path every peer told us, and which of them are selected.
//!
//! Adj-RIB-In and Loc-RIB (RFC 4271 section 3.2) are one structure. A destination has a number; its paths stand beside
//! each other, each with the attributes as received, those after the import policy and its standing. Which
//! destinations a peer has a path to is a bit set over the numbers ([`adj_in`]). What peers are told is decided in
//! [`crate::adj_out`].

pub(crate) mod acceptance;
pub(crate) mod adj_in;
pub(crate) mod best_path;
mod paths;
mod prefixes;
pub(crate) mod table;

use std::sync::Arc;

use crate::attributes::Attributes;
use crate::source::PeerId;
pub(crate) use best_path::Selector;
pub use best_path::{Multipath, Refusal, Standing, Step};
pub(crate) use table::{Change, Table};

/// Number of a destination in its table, used again after the destination is gone.
pub(crate) type DestinationId = u32;

/// A way to a destination, as one peer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// As received (or announced by ourselves), so that a new policy needs no message from the peer.
    pub(crate) learned: Arc<Attributes>,
    /// After the import policy; `None` if the path was refused, for the reason in `standing`.
    pub(crate) accepted: Option<Arc<Attributes>>,
    /// By whom.
    pub(crate) peer: PeerId,
    /// Used, or why not.
    pub(crate) standing: Standing,
}

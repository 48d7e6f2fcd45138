//! The network policy controller: which packets reach pods, and which leave them.
//!
//! Decided here: which plans an event makes necessary. [`Index`] finds what an event touches and holds the policies in
//! compiled form, [`Index::evaluate`] answers from it, and renderings make rows of it. No I/O anywhere below this module.

mod blocks;
mod compile;
mod evaluate;
mod hash;
mod index;
mod matcher;
mod selections;
mod touched;

pub use blocks::Blocks;
pub use compile::{Compiled, Direction, Peers, Permit};
pub use evaluate::{Judgement, Packet, Verdict};
pub use index::Index;
pub use touched::Touched;

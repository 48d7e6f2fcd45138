//! Clusters out of network namespaces: for tests, for the demo, to poke at by hand. Never shipped.

#[allow(
    clippy::indexing_slicing,
    reason = "indexing JSON by name reads null or inserts; it panics on no object here"
)]
pub mod api_server;
pub mod bench;
pub mod chaos;
pub mod cluster;
#[allow(
    clippy::indexing_slicing,
    reason = "indexing JSON by name reads null or inserts; it panics on no object here"
)]
pub mod control_plane;
pub mod kubelet;
pub mod node;
pub mod policy;
pub mod probe;
pub mod process;
#[allow(
    clippy::indexing_slicing,
    reason = "indexing JSON by name reads null or inserts; it panics on no object here"
)]
pub mod router;
pub mod vm;

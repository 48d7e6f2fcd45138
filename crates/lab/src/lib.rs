//! Clusters out of network namespaces: for tests, for the demo, to poke at by hand. Never shipped.

pub mod api_server;
pub mod bench;
pub mod cluster;
pub mod control_plane;
pub mod kubelet;
pub mod node;
pub mod probe;
pub mod process;
pub mod vm;

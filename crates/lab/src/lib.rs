//! Clusters out of network namespaces. Never shipped.

pub mod api_server;
pub mod control_plane;

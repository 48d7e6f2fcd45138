//! Kubernetes at the edge: client, watches, and the small typed model everything else works on.

pub mod client;
pub mod model;

//! Kubernetes at the edge: client, watches, and the small typed model everything else works on.

pub mod client;
pub mod connection;
pub mod convert;
pub mod interner;
pub mod lenient;
pub mod model;
pub mod proxy;
pub mod watch;
pub mod wire;

//! The Kubernetes API as the agent sees it.

pub mod client;

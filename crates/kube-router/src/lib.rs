//! The node agent as a library; the binary is `main.rs`.

pub mod annotations;
pub mod cleanup;
pub mod cni;
mod commands;
pub mod core;
pub mod counters;
pub mod health;
pub mod health_ports;
pub mod kube;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod network_policy;
pub mod network_routes;
pub mod network_services;
pub mod node;
pub mod objection;
pub mod options;
pub mod owner;
pub mod preflight;
pub mod run;
pub mod secret;
pub mod status;
pub mod store;
pub mod version;

//! The node agent as a library; the binary is `main.rs`.

pub mod annotations;
pub mod cleanup;
pub mod health;
pub mod kube;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod objection;
pub mod options;
pub mod run;
pub mod secret;
pub mod version;

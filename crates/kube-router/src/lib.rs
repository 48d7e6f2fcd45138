//! The node agent as a library; the binary is `main.rs`.

pub mod annotations;
pub mod kube;
pub mod logging;
pub mod names;
pub mod objection;
pub mod options;
pub mod secret;
pub mod store;

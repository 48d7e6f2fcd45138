//! The node agent as a library; the binary is `main.rs`.

pub mod options;
pub mod secret;

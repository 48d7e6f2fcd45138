//! A Kubernetes API server inside the process that wants one: tests, the demo, `lab api-server`.
//!
//! It speaks the HTTP that kubectl and kube-rs speak, keeps objects in memory as JSON, and fails on
//! demand. What a control plane adds (defaults, addresses, pods, endpoints) is decided in
//! [`crate::control_plane`], not here.

mod error;
mod faults;
mod handle;
mod resource;
mod server;

pub use error::ApiError;
pub use faults::{Availability, Faults};
pub use handle::{EventKind, Handle, WatchEvent};
pub use resource::{Definition, Resource};
pub use server::{ApiServer, Config, Error, serve};

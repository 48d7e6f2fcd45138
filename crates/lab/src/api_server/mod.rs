//! A Kubernetes API server inside the process that wants one: tests, the demo, `lab api-server`.
//!
//! It speaks the HTTP that kubectl and kube-rs speak, keeps objects in memory as JSON, and fails on
//! demand. What a control plane adds (defaults, addresses, pods, endpoints) is decided in
//! [`crate::control_plane`], not here.
//!
//! From the wire inwards: `listener`, `tls` and `http` (requests, views, watches), `rules` (what a write does to
//! an object), `store` (objects, versions, history). [`Handle`] enters at `rules`.

mod error;
mod faults;
mod handle;
mod http;
mod listener;
pub(crate) mod object;
mod paging;
mod patch;
mod resource;
pub(crate) mod rules;
pub(crate) mod selector;
mod server;
mod shared;
mod store;
mod tls;

pub use error::ApiError;
pub use faults::{Availability, Faults, Requests};
pub use handle::{EventKind, Handle, WatchEvent};
#[cfg(test)]
pub(crate) use patch::merge;
pub use resource::{Definition, Resource};
pub use server::{ApiServer, Config, Error, serve};
pub use tls::{Tls, TlsError};

//! A BGP-4 speaker, as a library. It knows neither Kubernetes nor netlink.
//!
//! The vocabulary is in [`asn`], [`family`], [`attributes`], [`as_path`], [`community`] and [`update`]. The routes are
//! the [`speaker`]'s: [`rib`], [`policy`], [`adj_out`].

pub mod adj_out;
pub mod as_path;
pub mod asn;
pub mod attributes;
mod chunked;
pub mod community;
pub mod config;
pub mod driver;
pub mod families;
pub mod family;
pub mod graceful_restart;
mod interner;
pub mod negotiated;
pub mod password;
pub mod peer;
pub mod policy;
pub mod rib;
pub mod session;
mod source;
pub mod speaker;
pub mod transport;
pub mod update;
pub mod wire;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use asn::{Asn, AsnError};
pub use attributes::{Attributes, NextHop, Origin, UnknownAttribute};
pub use community::{Community, LargeCommunity};
pub use config::{Config, PeerConfig};
pub use families::Families;
pub use family::Family;
pub use negotiated::{Negotiated, PeerKind};
pub use password::Password;
pub use speaker::Speaker;
pub use update::Update;

//! A small blocking netlink core that every kernel table here sits on.
//!
//! [`attribute`] writes and reads attributes, [`socket`] sends requests and collects answers. What the messages mean
//! is the tables' business. Sources: `include/uapi/linux/netlink.h`, RFC 3549.

pub mod attribute;
pub mod generic;
mod ports;
mod requests;
pub mod socket;
mod wait;

pub use attribute::{Attributes, MessageBuilder};
pub use ports::OwnPorts;
pub use requests::Requests;
pub use socket::{Error, Request, Socket};
pub(crate) use wait::wait;

/// `NLM_F_*` flags used here.
pub mod flag {
    /// `NLM_F_REQUEST`
    pub const REQUEST: u16 = 0x1;
    /// `NLM_F_ACK`
    pub const ACK: u16 = 0x4;
    /// `NLM_F_DUMP`
    pub const DUMP: u16 = 0x300;
    /// `NLM_F_DUMP_INTR`
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// `NLM_F_REPLACE`
    pub const REPLACE: u16 = 0x100;
    /// `NLM_F_EXCL`
    pub const EXCL: u16 = 0x200;
    /// `NLM_F_CREATE`
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`
    pub const APPEND: u16 = 0x800;
}

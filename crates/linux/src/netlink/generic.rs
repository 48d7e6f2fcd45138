//! Generic netlink: finding a family's number (`include/uapi/linux/genetlink.h`).

use super::attribute::{Attributes, MessageBuilder};
use super::flag;
use super::socket::{Error, Request, Socket};

const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const ATTR_FAMILY_ID: u16 = 1;
const ATTR_FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`.
pub const HEADER: usize = 4;

/// Starts a generic netlink message.
pub fn message(command: u8, version: u8) -> MessageBuilder {
    MessageBuilder::new(&[command, version, 0, 0])
}

/// Message type of the family called `name`. Resolving makes the kernel load the family's module where it can.
///
/// # Errors
/// ENOENT when this kernel has no such family.
pub fn family(socket: &mut Socket, name: &str) -> Result<u16, Error> {
    let mut request = message(GET_FAMILY, 1);
    request.put_str(ATTR_FAMILY_NAME, name);
    let answers = socket.ask(Request::new(CONTROLLER, flag::ACK, request)?)?;
    answers
        .iter()
        .find_map(|payload| Attributes::after(payload, HEADER).get(ATTR_FAMILY_ID)?.u16())
        .ok_or(Error::Malformed("CTRL_CMD_GETFAMILY answer without a family id"))
}

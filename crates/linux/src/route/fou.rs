//! UDP ports on which generic UDP encapsulation is unwrapped: the `fou` generic netlink family.
//!
//! The family is there only with its module (`fou`, `fou6` for IPv6). A kernel without it has no such port.

use std::collections::BTreeSet;

use crate::lane::{Change, Refusal};
use crate::netlink::{Attributes, Error, Request, Socket, flag, generic};
use crate::row::{Family, Key};

use super::kernel::fou as number;
use super::lane::{Outcomes, refusal};

/// A generic netlink socket that knows the family's message type.
#[derive(Debug)]
pub(super) struct Fou {
    socket: Socket,
    kind: u16,
}

impl Fou {
    /// Opens it in the calling thread's network namespace; `None` on kernels without the family.
    pub(super) fn open() -> Result<Option<Fou>, Error> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC)?;
        match generic::family(&mut socket, number::NAME) {
            Ok(kind) => Ok(Some(Fou { socket, kind })),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ports that unwrap generic UDP encapsulation.
    pub(super) fn ports(&mut self) -> Result<Vec<(Family, u16)>, Error> {
        let request = Request::new(self.kind, 0, generic::message(number::GET, number::VERSION))?;
        let found = self.socket.dump(&request, |_, payload| parse(payload))?;
        Ok(found)
    }

    fn has(&mut self, family: Family, port: u16) -> bool {
        self.ports().is_ok_and(|open| open.contains(&(family, port)))
    }

    /// Opens or closes a port.
    pub(super) fn set(&mut self, family: Family, port: u16, open: bool) -> Result<(), Error> {
        let command = if open { number::ADD } else { number::DELETE };
        let mut request = generic::message(command, number::VERSION);
        request.put_be16(number::PORT, port).put_u8(number::FAMILY, family.number());
        if open {
            request.put_u8(number::TYPE, number::GUE);
        }
        self.socket.request(Request::new(self.kind, flag::ACK, request)?)
    }
}

/// Those of `ports` that are open, by family. The socket is opened at the first call, where the kernel has the family.
pub(super) fn read(socket: &mut Option<Fou>, ports: &BTreeSet<u16>) -> Result<Vec<(Family, u16)>, Error> {
    let Some(fou) = opened(socket)? else { return Ok(Vec::new()) };
    let mut open = fou.ports()?;
    open.retain(|(_, port)| ports.contains(port));
    Ok(open)
}

/// Opens and closes the ports of a stage.
pub(super) fn write(socket: &mut Option<Fou>, stage: &[Change], outcomes: &mut Outcomes) {
    for (at, change) in stage.iter().enumerate() {
        if let Key::FouPort(family, port) = change.key
            && let Err(refusal) = set(socket, family, port, change.to.is_some())
        {
            outcomes.refuse(at, refusal);
        }
    }
}

fn set(socket: &mut Option<Fou>, family: Family, port: u16, open: bool) -> Result<(), Refusal> {
    const DOING: &str = "setting the UDP port of tunnels";
    let fou = match opened(socket) {
        Ok(Some(fou)) => fou,
        Ok(None) if !open => return Ok(()),
        Ok(None) => {
            return Err(Refusal::new(format!(
                "{DOING}: this kernel has no FoU until `modprobe -a fou fou6`"
            )));
        }
        Err(error) => return Err(refusal(DOING, &error)),
    };
    // What is not open cannot be closed: the kernel says so in this way.
    let fulfilled = if open { libc::EALREADY } else { libc::EINVAL };
    match fou.set(family, port, open) {
        Err(error) if error.errno() == Some(fulfilled) => Ok(()),
        // Somebody's socket, or ours: the kernel does not tell them apart.
        Err(error) if open && error.errno() == Some(libc::EADDRINUSE) && fou.has(family, port) => Ok(()),
        Err(error) => Err(refusal(DOING, &error)),
        Ok(()) => Ok(()),
    }
}

fn opened(socket: &mut Option<Fou>) -> Result<Option<&mut Fou>, Error> {
    if socket.is_none() {
        *socket = Fou::open()?;
    }
    Ok(socket.as_mut())
}

fn parse(payload: &[u8]) -> Option<(Family, u16)> {
    let attributes = Attributes::after(payload, generic::HEADER);
    let family = match i32::from(attributes.get(number::FAMILY)?.u8()?) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return None,
    };
    let gue = attributes.get(number::TYPE)?.u8()? == number::GUE;
    let port = attributes.get(number::PORT)?.be16()?;
    gue.then_some((family, port))
}

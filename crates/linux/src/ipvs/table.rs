//! The kernel's IPVS table behind one socket: dumps and requests, no decisions.

use std::sync::Arc;

use crate::netlink::{self, Request, Requests, Socket, generic};
use crate::row::{IpvsTimeouts, VirtualServerKey};

use super::codec::{self, DestinationRecord, ServiceRecord, command};

/// `IPVS_GENL_NAME`
const FAMILY_NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`
const VERSION: u8 = 1;

/// IPVS could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No generic netlink socket.
    #[error(transparent)]
    Socket(netlink::Error),
    /// The kernel does not know the generic netlink family `IPVS`, and could not load it.
    #[error(
        "this kernel has no IPVS: load its module on the node with `modprobe ip_vs`, \
         or use a kernel built with CONFIG_IP_VS"
    )]
    NoIpvs,
    /// Any other answer to the question for the family.
    #[error("asking the kernel for IPVS: {0}")]
    Resolve(netlink::Error),
}

/// A generic netlink socket that knows IPVS's message type; of the network namespace it was opened in.
#[derive(Debug)]
pub(super) struct IpvsTable {
    socket: Socket,
    message_type: u16,
}

impl IpvsTable {
    pub(super) fn open() -> Result<IpvsTable, OpenError> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC).map_err(OpenError::Socket)?;
        match generic::family(&mut socket, FAMILY_NAME) {
            Ok(message_type) => Ok(IpvsTable { socket, message_type }),
            Err(error) if error.errno() == Some(libc::ENOENT) => Err(OpenError::NoIpvs),
            Err(error) => Err(OpenError::Resolve(error)),
        }
    }

    /// A request of this family, its attributes written by `fill`.
    pub(super) fn message(
        &self,
        command: u8,
        fill: impl FnOnce(&mut netlink::MessageBuilder),
    ) -> Result<Request, netlink::Error> {
        let mut message = generic::message(command, VERSION);
        fill(&mut message);
        Request::new(self.message_type, 0, message)
    }

    /// What was sent so far; goes on counting.
    pub(super) fn requests(&self) -> Arc<Requests> {
        self.socket.requests()
    }

    /// One outcome for each request, in order.
    pub(super) fn batch(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<(), netlink::Error>>, netlink::Error> {
        self.socket.batch(requests)
    }

    /// Every virtual server that could be ours. One dump, O(virtual servers).
    pub(super) fn services(&mut self) -> Result<Vec<ServiceRecord>, netlink::Error> {
        let request = self.message(command::GET_SERVICE, |_| {})?;
        self.socket.dump(&request, |kind, payload| {
            (kind == self.message_type).then(|| codec::parse_service(payload)).flatten()
        })
    }

    /// The real servers of one virtual server; none when it is not there. One dump, O(real servers).
    pub(super) fn destinations(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<Vec<DestinationRecord>, netlink::Error> {
        let request = self.message(command::GET_DEST, |message| codec::put_service_key(message, key))?;
        self.socket.dump(&request, |kind, payload| {
            (kind == self.message_type).then(|| codec::parse_destination(payload, key.family())).flatten()
        })
    }

    /// The global timeouts.
    pub(super) fn timeouts(&mut self) -> Result<IpvsTimeouts, netlink::Error> {
        let request = self.message(command::GET_CONFIG, |_| {})?;
        let answers = self.socket.ask(request)?;
        let answer = answers.first().ok_or(netlink::Error::Malformed("no answer to IPVS_CMD_GET_CONFIG"))?;
        Ok(codec::parse_timeouts(answer))
    }
}

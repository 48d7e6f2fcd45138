//! Packets that a rule logs to a group of the kernel's packet log (NFLOG), as they come.
//!
//! Decided here: what of a packet is told. Who reads a group is decided by the caller: the kernel has one reader for each
//! group and network namespace, and whoever comes second is refused. Without a reader the kernel throws the packets away.
//! Sources: `include/uapi/linux/netfilter/nfnetlink_log.h`, RFC 791, RFC 8200.

mod packet;

use std::time::Duration;

use crate::netlink::{self, Attributes, MessageBuilder, Request, Socket, flag};

pub use packet::Packet;

/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_*`
const MESSAGE_PACKET: u16 = 0x400;
const MESSAGE_CONFIG: u16 = 0x401;
/// `NFULA_CFG_*`
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_THRESHOLD: u16 = 5;
/// `NFULNL_CFG_CMD_BIND`
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`
const COPY_PACKET: u8 = 2;
/// Bytes of each packet that are wanted: headers, some IPv6 extensions, ports.
const COPIED: u32 = 192;
/// `NFULA_*`
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
/// Bytes of `struct nfgenmsg`.
const HEADER: usize = 4;

/// A group could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netfilter socket, or no packet log.
    #[error("opening the kernel's packet log: {0} (module nfnetlink_log)")]
    Open(netlink::Error),
    /// There is a reader already.
    #[error(
        "group {0} of the kernel's packet log has another reader (ulogd, for one): the kernel allows one"
    )]
    Taken(u16),
    /// Reading failed.
    #[error("reading the kernel's packet log: {0}")]
    Read(netlink::Error),
}

/// A logged packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What the rule says of it (`--nflog-prefix`).
    pub prefix: String,
    /// Its ends.
    pub packet: Packet,
}

/// What came within the time one waits.
#[derive(Debug, Default)]
pub struct Heard {
    /// In order. Packets that cannot be read as IPv4 or IPv6 are left out.
    pub packets: Vec<Logged>,
    /// The kernel had more than there was room for.
    pub lost: bool,
}

/// The one reader of a group, as long as it lives.
#[derive(Debug)]
pub struct PacketLog {
    socket: Socket,
}

impl PacketLog {
    /// Becomes the reader of a group in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Taken`] if somebody is, [`Error::Open`] without the kernel's packet log.
    pub fn open(group: u16) -> Result<PacketLog, Error> {
        let mut socket = Socket::open(libc::NETLINK_NETFILTER).map_err(Error::Open)?;
        let mut configure = |kind: u16, value: &[u8]| {
            let [high, low] = group.to_be_bytes();
            let mut message = MessageBuilder::new(&[libc::AF_UNSPEC as u8, 0, high, low]);
            message.put(kind, value);
            socket.request(Request::new(MESSAGE_CONFIG, flag::ACK, message)?)
        };
        configure(CONFIG_COMMAND, &[BIND]).map_err(|error| match error.errno() {
            // Without CAP_NET_ADMIN the answer is EPERM, too; whoever gets here has it.
            Some(libc::EBUSY | libc::EPERM) => Error::Taken(group),
            _ => Error::Open(error),
        })?;
        let range = COPIED.to_be_bytes();
        configure(CONFIG_MODE, &[range[0], range[1], range[2], range[3], COPY_PACKET, 0])
            .map_err(Error::Open)?;
        // Told at once, not by the hundred or after a second.
        configure(CONFIG_THRESHOLD, &1_u32.to_be_bytes()).map_err(Error::Open)?;
        Ok(PacketLog { socket })
    }

    /// Waits at most `patience` for packets; there may be none.
    ///
    /// # Errors
    /// [`Error::Read`] when the socket fails for good.
    pub fn listen(&mut self, patience: Duration) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        self.socket.set_patience(patience).map_err(Error::Read)?;
        let outcome = self.socket.notifications(|message| {
            if message.kind == MESSAGE_PACKET {
                heard.packets.extend(read(message.payload));
            }
        });
        match outcome {
            Err(error) => match error.errno() {
                Some(libc::EAGAIN) => Ok(heard),
                Some(libc::ENOBUFS) => Ok(Heard { lost: true, ..heard }),
                _ => Err(Error::Read(error)),
            },
            Ok(()) => Ok(heard),
        }
    }
}

fn read(payload: &[u8]) -> Option<Logged> {
    let attributes = Attributes::after(payload, HEADER);
    let packet = Packet::read(attributes.get(PAYLOAD)?.payload)?;
    let prefix = attributes.get(PREFIX).and_then(|prefix| prefix.str()).unwrap_or_default().to_owned();
    Some(Logged { prefix, packet })
}

//! SCTP where the kernel has no SCTP sockets: the first two packets of its handshake on raw sockets.
//!
//! A question is an INIT chunk, its answer an INIT ACK whose state cookie carries what the server says (RFC 9260 sections
//! 3.3.2 and 3.3.3). Rules, routes and conntrack treat the two as they treat any association, which is all that a network
//! can do to it. No association comes of it. The server answers from the address the route back prefers, so it belongs
//! into namespaces with one address in each family, as pods are.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use crc::{CRC_32_ISCSI, Crc};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use super::socket::Protocol;
use crate::node::Namespace;

/// A raw socket that gets every SCTP packet of its namespace, of one family. tokio's name for a socket of datagrams is
/// `UdpSocket`; what is in them was decided when it was made.
pub(super) type Raw = UdpSocket;

const HEADER: usize = 12;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Chunk header, initiate tag, window, streams out and in, first TSN.
const INIT_LENGTH: usize = 20;
const STATE_COOKIE: u16 = 7;
/// The checksum of RFC 9260 appendix A.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Whether an error of `socket(2)` says that the kernel has no SCTP.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EPROTONOSUPPORT | nix::libc::ESOCKTNOSUPPORT))
}

/// A raw socket in the calling thread's namespace. The ports of `address` and `peer` mean nothing to it.
pub(super) fn open(domain: Domain, address: Option<IpAddr>, peer: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(socket2::Protocol::SCTP))?;
    socket.set_nonblocking(true)?;
    if let Some(address) = address {
        socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
    }
    if let Some(peer) = peer {
        socket.connect(&SockAddr::from(SocketAddr::new(peer, 0)))?;
    }
    Ok(socket)
}

/// The client's end of a handshake.
#[derive(Debug)]
pub(super) struct Initiator {
    raw: Raw,
    port: u16,
    to: u16,
}

impl Initiator {
    /// Prepares to ask `to`. Nothing is sent yet.
    pub(super) async fn new(
        namespace: &Namespace,
        to: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<Self> {
        let make = move || open(Domain::for_address(to), source, Some(to.ip()));
        let socket = namespace.run_async(make).await.map_err(io::Error::other)??;
        Ok(Self { raw: Raw::from_std(socket.into())?, port: next_port(), to: to.port() })
    }

    /// Sends the INIT and waits for its INIT ACK; returns the cookie. An ICMP is not believed: a raw socket cannot tell
    /// which of several handshakes with the same host it is about.
    pub(super) async fn exchange(&self) -> io::Result<Vec<u8>> {
        let tag = u32::from(self.port) << 8 | 1;
        let packet = packet(self.port, self.to, 0, &init(INIT, tag, &[]));
        // The first attempt may meet the ICMP of another handshake.
        if self.raw.send(&packet).await.is_err() {
            self.raw.send(&packet).await?;
        }
        let mut buffer = [0u8; 2048];
        loop {
            let Ok((length, from)) = self.raw.recv_from(&mut buffer).await else { continue };
            let Some(chunk) = Chunk::parse(payload(&buffer, length, from)) else { continue };
            let ours = (chunk.source, chunk.destination, chunk.tag) == (self.to, self.port, tag);
            if chunk.kind == INIT_ACK && ours {
                return chunk.cookie().map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Answers every INIT for `port` with what `say` makes of the client's address.
pub(super) async fn answer(raw: Raw, port: u16, say: impl Fn(SocketAddr) -> io::Result<String>) {
    let mut buffer = [0u8; 2048];
    loop {
        let Ok((length, from)) = raw.recv_from(&mut buffer).await else { continue };
        let Some(chunk) = Chunk::parse(payload(&buffer, length, from)) else { continue };
        let Some(tag) = chunk.initiate_tag().filter(|_| (chunk.kind, chunk.destination) == (INIT, port))
        else {
            continue;
        };
        let Ok(saying) = say(SocketAddr::new(from.ip(), chunk.source)) else { continue };
        let own = u32::from(port) << 8 | 2;
        let reply = packet(port, chunk.source, tag, &init(INIT_ACK, own, saying.as_bytes()));
        // An answer that cannot be sent is a question that is not answered.
        let _ = raw.send_to(&reply, SocketAddr::new(from.ip(), 0)).await;
    }
}

/// What follows the IPv4 header; of IPv6 packets raw sockets deliver no header (raw(7), RFC 3542 section 3).
fn payload(buffer: &[u8], length: usize, from: SocketAddr) -> &[u8] {
    let header = match buffer.first() {
        Some(first) if from.is_ipv4() => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    buffer.get(header..length).unwrap_or_default()
}

/// Ports of clients go round, so that no handshake meets what conntrack remembers of an earlier one.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 40_000;
    let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some((next + 1) % COUNT));
    FIRST + next.unwrap_or_default()
}

/// A packet of one chunk, with the checksum that conntrack insists on.
fn packet(source: u16, destination: u16, tag: u32, chunk: &[u8]) -> Vec<u8> {
    let header = |checksum: u32| {
        let mut bytes = Vec::with_capacity(HEADER + chunk.len());
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(chunk);
        bytes
    };
    header(CHECKSUM.checksum(&header(0)))
}

/// An INIT or INIT ACK; the latter with a state cookie.
fn init(kind: u8, tag: u32, cookie: &[u8]) -> Vec<u8> {
    let parameter = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![kind, 0];
    bytes.extend(length(INIT_LENGTH + parameter));
    bytes.extend(tag.to_be_bytes());
    bytes.extend(65_536u32.to_be_bytes()); // window
    bytes.extend(1u16.to_be_bytes()); // streams out
    bytes.extend(1u16.to_be_bytes()); // streams in
    bytes.extend(1u32.to_be_bytes()); // first TSN
    if parameter > 0 {
        bytes.extend(STATE_COOKIE.to_be_bytes());
        bytes.extend(length(parameter));
        bytes.extend(cookie);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The first chunk of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Chunk<'a> {
    source: u16,
    destination: u16,
    tag: u32,
    kind: u8,
    /// From the chunk's header on, without padding.
    bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let chunk = packet.get(HEADER..)?;
        let length = usize::from(be16(chunk, 2)?);
        Some(Self {
            source: be16(packet, 0)?,
            destination: be16(packet, 2)?,
            tag: be32(packet, 4)?,
            kind: *chunk.first()?,
            bytes: chunk.get(..length)?,
        })
    }

    fn initiate_tag(&self) -> Option<u32> {
        be32(self.bytes, 4)
    }

    /// The state cookie, where it is the first parameter.
    fn cookie(&self) -> Option<&'a [u8]> {
        let parameter = self.bytes.get(INIT_LENGTH..)?;
        let length = usize::from(be16(parameter, 2)?);
        (be16(parameter, 0)? == STATE_COOKIE).then(|| parameter.get(4..length))?
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Whether this kernel makes SCTP sockets of its own.
pub fn kernel_has_sctp() -> bool {
    Protocol::Sctp.open(Domain::IPV4).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back() {
        let bytes = packet(80, 20_001, 0x0102_0304, &init(INIT_ACK, 7, b"{\"name\":\"web\"}"));
        assert_eq!(bytes.len() % 4, 0);
        let chunk = Chunk::parse(&bytes).expect("a chunk");
        assert_eq!((chunk.source, chunk.destination, chunk.tag), (80, 20_001, 0x0102_0304));
        assert_eq!((chunk.kind, chunk.initiate_tag()), (INIT_ACK, Some(7)));
        assert_eq!(chunk.cookie(), Some(&b"{\"name\":\"web\"}"[..]));
    }

    #[test]
    fn a_truncated_packet_is_nothing() {
        let bytes = packet(1, 2, 3, &init(INIT_ACK, 7, b"abc"));
        for length in 0..bytes.len() - 1 {
            let short = bytes.get(..length).unwrap_or_default();
            assert_eq!(Chunk::parse(short).and_then(|chunk| chunk.cookie()), None, "{length} bytes");
        }
    }

    /// The check value that every catalogue gives for this polynomial.
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xe306_9283);
    }
}

//! Sockets that belong to another namespace: made on its thread, used from anywhere. A socket stays in the namespace it
//! was made in, so one runtime serves every pod of a lab and no probe costs a process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::sctp;
use crate::node::Namespace;

/// Transport of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP: one datagram, one answer, no retransmission.
    Udp,
    /// SCTP in its one-to-one style (RFC 6458 section 4), which behaves as TCP does; where the kernel has no such sockets,
    /// the first two packets of its handshake.
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl Protocol {
    pub(super) fn open(self, domain: Domain) -> io::Result<Socket> {
        let socket = match self {
            Self::Tcp => Socket::new(domain, Type::STREAM, Some(socket2::Protocol::TCP)),
            Self::Udp => Socket::new(domain, Type::DGRAM, Some(socket2::Protocol::UDP)),
            Self::Sctp => Socket::new(domain, Type::STREAM, Some(socket2::Protocol::SCTP)),
        }?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A listening or receiving socket, one per family.
pub(super) enum Listening {
    Stream(TcpListener),
    Datagram(UdpSocket),
    Handshake(sctp::Raw),
}

/// Binds `port` on all addresses of `address`'s family.
pub(super) async fn listen(
    namespace: &Namespace,
    protocol: Protocol,
    address: SocketAddr,
) -> io::Result<Listening> {
    let make = move || -> io::Result<Socket> {
        let socket = protocol.open(Domain::for_address(address))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        match (protocol, address.is_ipv6()) {
            // The answer must leave from the address that was asked, which only the datagram's own header tells.
            (Protocol::Udp, false) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            (Protocol::Udp, true) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        socket.bind(&SockAddr::from(address))?;
        if protocol != Protocol::Udp {
            socket.listen(1024)?;
        }
        Ok(socket)
    };
    let socket = match namespace.run_async(make).await.map_err(io::Error::other)? {
        Err(error) if sctp::is_missing(&error) && protocol == Protocol::Sctp => {
            return listen_raw(namespace, address).await;
        }
        other => other?,
    };
    Ok(match protocol {
        Protocol::Udp => Listening::Datagram(UdpSocket::from_std(socket.into())?),
        Protocol::Tcp | Protocol::Sctp => Listening::Stream(TcpListener::from_std(socket.into())?),
    })
}

/// The raw form of a port; it is taken by the server that reads the packets, not by the kernel.
async fn listen_raw(namespace: &Namespace, address: SocketAddr) -> io::Result<Listening> {
    let make = move || sctp::open(Domain::for_address(address), Some(address.ip()), None);
    let socket = namespace.run_async(make).await.map_err(io::Error::other)??;
    Ok(Listening::Handshake(sctp::Raw::from_std(socket.into())?))
}

/// A client's end.
pub(super) enum Connected {
    Stream(TcpStream),
    Datagram(UdpSocket),
    Handshake(sctp::Initiator),
}

/// Connects from `namespace`, from `source` if given, within `limit`.
pub(super) async fn connect(
    namespace: &Namespace,
    protocol: Protocol,
    to: SocketAddr,
    source: Option<IpAddr>,
    limit: Duration,
) -> io::Result<Connected> {
    let make = move || -> io::Result<Socket> {
        let socket = protocol.open(Domain::for_address(to))?;
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        if protocol == Protocol::Udp {
            socket.connect(&SockAddr::from(to))?;
        }
        Ok(socket)
    };
    let socket = match namespace.run_async(make).await.map_err(io::Error::other)? {
        Err(error) if sctp::is_missing(&error) && protocol == Protocol::Sctp => {
            return Ok(Connected::Handshake(sctp::Initiator::new(namespace, to, source).await?));
        }
        other => other?,
    };
    if protocol == Protocol::Udp {
        return Ok(Connected::Datagram(UdpSocket::from_std(socket.into())?));
    }
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
    Ok(Connected::Stream(tokio::time::timeout(limit, connecting).await??))
}

//! What the tasks that hold sockets tell the driver.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::peer::ConnectionId;
use crate::transport::TransportError;

/// From a listener, an attempt to dial, or a connection.
#[derive(Debug)]
pub(super) enum Inbound {
    /// Somebody has dialled us.
    Accepted(TcpStream, SocketAddr),
    /// An attempt to dial has come to an end.
    Dialled { peer: IpAddr, id: ConnectionId, outcome: Result<TcpStream, TransportError> },
    /// The peer sent something.
    Octets { peer: IpAddr, id: ConnectionId, octets: Bytes },
    /// Octets left the socket.
    Progress { peer: IpAddr, id: ConnectionId, drained: bool },
    /// The connection broke, or the peer closed it.
    Closed { peer: IpAddr, id: ConnectionId },
}

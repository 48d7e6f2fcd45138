//! A peer made of octets: says OPEN, then what it is told to say; hears everything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::super::{Error, io};
use super::message::{self, Inbox};
use crate::node::Namespace;

/// Octets read at a time.
const CHUNK: usize = 64 * 1024;
/// From the first attempt to an established session; some speakers want a pause between attempts.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Who a peer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) address: Ipv4Addr,
    pub(super) asn: u32,
}

/// An established session.
pub(super) struct Session {
    pub(super) hears: Hears,
    pub(super) says: OwnedWriteHalf,
}

/// The half that reads.
pub(super) struct Hears {
    read: OwnedReadHalf,
    inbox: Inbox,
}

impl Session {
    /// Dials the router from the peer's own address until the session is up.
    pub(super) async fn establish(
        senders: &Namespace,
        identity: Identity,
        router: IpAddr,
    ) -> Result<Session, Error> {
        let end = Instant::now() + PATIENCE;
        loop {
            let attempt = match dial(senders, identity.address, router).await? {
                Ok(stream) => introduce(stream, identity).await,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > end => {
                    return Err(Error::TooLate {
                        what: format!("a session of {} with {router}", identity.address),
                        seconds: PATIENCE.as_secs(),
                        said: format!(": {error}"),
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

async fn dial(senders: &Namespace, from: Ipv4Addr, to: IpAddr) -> Result<std::io::Result<TcpStream>, Error> {
    let dial = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from.into(), 0).into())?;
        socket.connect_timeout(&SocketAddr::new(to, 179).into(), Duration::from_secs(5))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(std::net::TcpStream::from(socket))
    };
    let stream: std::io::Result<std::net::TcpStream> = senders.run_async(dial).await?;
    Ok(stream.and_then(TcpStream::from_std))
}

async fn introduce(stream: TcpStream, identity: Identity) -> std::io::Result<Session> {
    let (read, mut says) = stream.into_split();
    let mut hears = Hears { read, inbox: Inbox::default() };
    says.write_all(&message::open(identity.asn, identity.address)).await?;
    let (mut opened, mut confirmed) = (false, false);
    while !confirmed {
        let before = opened;
        let see = |kind: u8, _: &[u8]| {
            opened |= kind == message::OPEN;
            confirmed |= kind == message::KEEPALIVE;
        };
        if !hears.next(see).await? {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        if opened && !before {
            says.write_all(&message::keepalive()).await?;
        }
    }
    Ok(Session { hears, says })
}

impl Hears {
    /// Waits for octets and shows the messages they complete, type and body. `false` at the end.
    pub(super) async fn next(&mut self, see: impl FnMut(u8, &[u8])) -> std::io::Result<bool> {
        self.inbox.octets.reserve(CHUNK);
        let read = self.read.read_buf(&mut self.inbox.octets).await?;
        self.inbox.drain(see);
        Ok(read > 0)
    }

    /// Hears and forgets until the end.
    pub(super) async fn deafly(mut self) {
        let mut nowhere = vec![0; CHUNK];
        while matches!(self.read.read(&mut nowhere).await, Ok(1..)) {}
    }
}

/// Writes all of it.
pub(super) async fn say(says: &mut OwnedWriteHalf, octets: &[u8]) -> Result<(), Error> {
    says.write_all(octets).await.map_err(io("telling the router a table"))
}

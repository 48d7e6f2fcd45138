//! What answers in a pod: its name and the client's address as it saw it, for every line or datagram it gets.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::sctp;
use super::socket::{Listening, Protocol, listen};
use crate::node::Namespace;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saying {
    /// Name of who answers.
    pub(super) name: String,
    /// The client as the server saw it.
    pub(super) client: SocketAddr,
}

/// The question that is answered for ever, every [`PACE`].
pub(super) const SEND_ALWAYS: &str = "always";
/// Between two answers that nobody asked for.
const PACE: Duration = Duration::from_millis(10);

/// A listening port; dropping it closes the port and every connection on it, when the runtime next runs its tasks: the
/// caller waits for a refusal rather than expecting it at once.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<AbortHandle>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Listens on `port` in both families; a family the kernel has switched off is left out, both off is an error.
pub(super) async fn serve(
    namespace: &Namespace,
    name: &str,
    protocol: Protocol,
    port: u16,
    on: Option<IpAddr>,
) -> io::Result<Server> {
    let name: Arc<str> = name.into();
    let anywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: Vec<IpAddr> = on.map_or(anywhere.to_vec(), |address| vec![address]);
    let mut tasks = Vec::new();
    let mut refused = None;
    for address in addresses {
        match listen(namespace, protocol, SocketAddr::new(address, port)).await {
            Ok(Listening::Stream(listener)) => {
                tasks.push(tokio::spawn(accept(listener, Arc::clone(&name))).abort_handle());
            }
            Ok(Listening::Datagram(socket)) => {
                tasks.push(tokio::spawn(datagrams(socket, Arc::clone(&name))).abort_handle());
            }
            Ok(Listening::Handshake(raw)) => {
                let name = Arc::clone(&name);
                let answering = sctp::answer(raw, port, move |client| answer(&name, client));
                tasks.push(tokio::spawn(answering).abort_handle());
            }
            Err(error) => refused = Some(error),
        }
    }
    match (tasks.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        _ => Ok(Server { tasks }),
    }
}

async fn accept(listener: TcpListener, name: Arc<str>) {
    // Connections live in the set: aborting this task closes them all.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => { connections.spawn(converse(stream, client, Arc::clone(&name))); }
                // Out of descriptors, or a connection gone before it was taken: the next may do.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, name: Arc<str>) -> io::Result<()> {
    let _ = stream.set_nodelay(true); // SCTP sockets refuse it
    let answer = answer(&name, client)?;
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("GET ") {
            // For a person with curl.
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            writer.write_all(head.as_bytes()).await?;
            return writer.shutdown().await;
        }
        if line == SEND_ALWAYS {
            loop {
                writer.write_all(answer.as_bytes()).await?;
                sleep(PACE).await;
            }
        }
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

fn answer(name: &str, client: SocketAddr) -> io::Result<String> {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    Ok(serde_json::to_string(&Saying { name: name.to_owned(), client })? + "\n")
}

async fn datagrams(socket: UdpSocket, name: Arc<str>) {
    // Clients that get datagrams without asking again, until the port closes.
    let mut listeners: Vec<SocketAddr> = Vec::new();
    loop {
        tokio::select! {
            readable = socket.readable() => {
                if readable.is_err() {
                    return;
                }
                // An error belongs to one datagram (an ICMP of an earlier answer, say), never to the socket.
                if let Ok(Some(client)) = socket.try_io(Interest::READABLE, || reply(&socket, &name)) {
                    listeners.retain(|listener| *listener != client);
                    listeners.push(client);
                }
            }
            () = sleep(PACE), if !listeners.is_empty() => {
                for listener in &listeners {
                    // Refused by the listener's host or on the way: the next one may pass.
                    if let Ok(text) = answer(&name, *listener) {
                        let _ = socket.try_send_to(text.as_bytes(), *listener);
                    }
                }
            }
        }
    }
}

/// Answers one datagram from the address it was sent to (IP_PKTINFO of ip(7), IPV6_PKTINFO of RFC 3542). Returns the client
/// if it wants to hear more without asking.
fn reply(socket: &UdpSocket, name: &str) -> io::Result<Option<SocketAddr>> {
    let fd = socket.as_raw_fd();
    let mut buffer = [0u8; 2048];
    let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let from = message.address.ok_or(io::ErrorKind::InvalidData)?;
    let client = client(&from).ok_or(io::ErrorKind::InvalidData)?;
    let listens =
        message.iovs().next().is_some_and(|bytes| bytes.strip_suffix(b"\n") == Some(SEND_ALWAYS.as_bytes()));
    let text = answer(name, client)?;
    let parts = [IoSlice::new(text.as_bytes())];
    let mut asked = message.cmsgs()?;
    let sent = match asked.next() {
        Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
            // The route decides the interface; the source stays the address that was asked.
            info.ipi_ifindex = 0;
            info.ipi_spec_dst = info.ipi_addr;
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::empty(), Some(&from))
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(mut info)) => {
            if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                info.ipi6_ifindex = 0;
            }
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::empty(), Some(&from))
        }
        _ => sendmsg(fd, &parts, &[], MsgFlags::empty(), Some(&from)),
    };
    sent?;
    Ok(listens.then_some(client))
}

fn client(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from((from.ip(), from.port())));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| SocketAddr::from((from.ip(), from.port()))))
}

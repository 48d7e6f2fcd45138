//! HTTP listeners of the process: bound before anything else runs, so that a taken port is a plain start error.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::options::Listen;

/// Connections the kernel keeps until they are accepted; probes and scrapes are few.
const BACKLOG: i32 = 128;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--{flag}-addr, --{flag}-port)")]
pub struct ListenError {
    address: String,
    flag: &'static str,
    source: io::Error,
}

/// Opens the listener of `--<flag>-addr` and `--<flag>-port`, inside of a tokio runtime. An empty host is every
/// address of both families, or of IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// [`ListenError`] with the address and the kernel's reason.
pub fn bind(flag: &'static str, listen: &Listen) -> Result<TcpListener, ListenError> {
    let listener = if listen.host.is_empty() { every(listen.port) } else { resolve(listen).and_then(open) };
    let address =
        || if listen.host.contains(':') { format!("[{}]", listen.host) } else { listen.host.clone() };
    listener.map_err(|source| ListenError { address: format!("{}:{}", address(), listen.port), flag, source })
}

/// Listens at a port of every address of both families, or of IPv4 alone where the kernel has no IPv6; inside of a
/// tokio runtime.
///
/// # Errors
/// The kernel's refusal.
pub fn every(port: u16) -> io::Result<TcpListener> {
    let at = |ip: IpAddr| open(SocketAddr::new(ip, port));
    at(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.kind() {
        ErrorKind::AddrInUse | ErrorKind::PermissionDenied => Err(error),
        _ => at(Ipv4Addr::UNSPECIFIED.into()),
    })
}

fn resolve(listen: &Listen) -> io::Result<SocketAddr> {
    let mut addresses = (listen.host.as_str(), listen.port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the name has no address"))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Independent of net.ipv6.bindv6only.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves `routes` until the task is dropped with the runtime. A probe cut off by the end of the process is answered
/// by its absence, so nothing is waited for.
pub fn serve(listener: TcpListener, routes: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "an HTTP server ended");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(host: &str, port: u16) -> Listen {
        Listen { host: host.to_owned(), port }
    }

    /// A port that is free now.
    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn an_empty_host_answers_both_families() {
        let port = free_port();
        let _listener = bind("health", &listen("", port)).unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(ip.parse().unwrap(), port);
            assert!(tokio::net::TcpStream::connect(address).await.is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn ipv6_literals_and_names_are_addresses() {
        for host in ["::1", "localhost", "127.0.0.1"] {
            assert!(bind("health", &listen(host, free_port())).is_ok(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_names_address_and_flags() {
        let taken = std::net::TcpListener::bind("[::1]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind("metrics", &listen("::1", port)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on [::1]:{port} (--metrics-addr, --metrics-port)")
        );
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
    }
}

//! TCP for BGP: listening, dialling, and the socket options a session asks for.
//!
//! | option | for |
//! |---|---|
//! | `TCP_MD5SIG` | passwords (RFC 2385); on the listening socket, too, for the first segment is signed already |
//! | `IP_TTL`, `IPV6_UNICAST_HOPS` | how far packets may travel |
//! | `IP_MINTTL`, `IPV6_MINHOPCOUNT` | how far they may have travelled (RFC 5082) |
//! | `IP_TOS`, `IPV6_TCLASS` | CS6, as control traffic has |
//!
//! No crate has the first and the fourth; they are the only unsafe code of this crate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::asn::Asn;
use crate::config::{PeerConfig, RemoteAsn, Ttl};
use crate::password::{PASSWORD_MAX, Password};

/// Connections the kernel may hold for us until we look.
const BACKLOG: i32 = 128;
/// Traffic class CS6: network control (RFC 4594).
const CLASS: u32 = 0xc0;
/// The most hops there are, and what a listening socket answers with: a peer that checks (RFC 5082) does so from the
/// first segment on.
const TTL_MAX: u8 = 255;

/// What failed, and on which address.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel takes no password for this peer.
    #[error("cannot set the password of {peer}: {source}")]
    Password {
        /// Whose.
        peer: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// An accepted connection takes no options.
    #[error("cannot prepare the connection of {peer}: {source}")]
    Prepare {
        /// Whose.
        peer: IpAddr,
        /// Why.
        source: io::Error,
    },
}

/// Listens on an address. A wildcard IPv6 address is for IPv4 connections, too, unless `only_ipv6`.
///
/// # Errors
/// The address is not ours, or taken, or the port is not allowed.
pub fn listen(address: SocketAddr, only_ipv6: bool) -> Result<TcpListener, TransportError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_ipv6 || !address.ip().is_unspecified())?;
        }
        set_ttl(&socket, address.is_ipv6(), TTL_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| TransportError::Listen { address, source })
}

/// Sets or takes away the password of connections from a peer to a listening socket.
///
/// # Errors
/// The kernel has no TCP MD5 signatures.
pub fn set_listener_password(
    listener: &TcpListener,
    peer: IpAddr,
    password: Option<&Password>,
) -> Result<(), TransportError> {
    let set = || {
        let ipv6 = listener.local_addr()?.is_ipv6();
        // A socket of one family takes no keys for the other; connections of the other do not reach it either.
        if peer.is_ipv6() && !ipv6 {
            return Ok(());
        }
        set_password(listener.as_fd(), ipv6, peer, password)
    };
    set().map_err(|source| TransportError::Password { peer, source })
}

/// Dials a peer.
///
/// # Errors
/// The local address is not ours, the peer refuses or cannot be reached, or the kernel lacks an option.
pub async fn dial(remote: IpAddr, peer: &PeerConfig, ours: Asn) -> Result<TcpStream, TransportError> {
    let address = SocketAddr::new(remote, peer.port);
    let failed = |source| TransportError::Connect { address, source };
    let socket = prepared(address, peer, ours).map_err(failed)?;
    socket.connect(address).await.map_err(failed)
}

fn prepared(address: SocketAddr, peer: &PeerConfig, ours: Asn) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = peer.local_address {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    set_session_options(&socket, address.is_ipv6(), peer, ours)?;
    if peer.password.is_some() {
        set_password(socket.as_fd(), address.is_ipv6(), address.ip(), peer.password.as_ref())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Gives an accepted connection the options its peer asks for. Its password it has from the listening socket.
///
/// # Errors
/// The kernel lacks an option.
pub fn prepare_accepted(stream: &TcpStream, peer: &PeerConfig, ours: Asn) -> Result<(), TransportError> {
    let prepare = || {
        let local = stream.local_addr()?;
        // A connection of IPv4 through a socket of IPv6 has the options of both; those of IPv4 count.
        let ipv6 = local.ip().to_canonical().is_ipv6();
        set_session_options(&socket2::SockRef::from(stream), ipv6, peer, ours)
    };
    let remote = stream.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
    prepare().map_err(|source| TransportError::Prepare { peer: remote, source })
}

fn set_session_options(socket: &Socket, ipv6: bool, peer: &PeerConfig, ours: Asn) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if ipv6 {
        socket.set_tclass_v6(CLASS)?;
    } else {
        socket.set_tos_v4(CLASS)?;
    }
    let (ttl, least) = hops(peer, ours);
    if let Some(ttl) = ttl {
        set_ttl(socket, ipv6, ttl)?;
    }
    if let Some(least) = least {
        set_least_ttl(socket.as_fd(), ipv6, least)?;
    }
    Ok(())
}

/// TTL to send with, `None` for the system's; and the least to accept.
fn hops(peer: &PeerConfig, ours: Asn) -> (Option<u8>, Option<u8>) {
    let external = match peer.remote_asn {
        RemoteAsn::Exactly(asn) => asn != ours,
        RemoteAsn::External => true,
        RemoteAsn::Internal | RemoteAsn::Any => false,
    };
    match peer.ttl {
        Ttl::ByKind if external => (Some(1), None),
        // Accepted connections have the listening socket's, which reaches as far.
        Ttl::ByKind => (None, None),
        Ttl::Multihop(hops) => (Some(hops), None),
        Ttl::Security(hops) => (Some(TTL_MAX), Some(TTL_MAX - hops.saturating_sub(1))),
    }
}

fn set_ttl(socket: &Socket, ipv6: bool, ttl: u8) -> io::Result<()> {
    if ipv6 { socket.set_unicast_hops_v6(ttl.into()) } else { socket.set_ttl_v4(ttl.into()) }
}

fn set_least_ttl(socket: BorrowedFd<'_>, ipv6: bool, least: u8) -> io::Result<()> {
    /// `IPV6_MINHOPCOUNT` of `linux/in6.h`.
    const IPV6_MINHOPCOUNT: libc::c_int = 73;
    let least = libc::c_int::from(least);
    let (level, name) =
        if ipv6 { (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, libc::IP_MINTTL) };
    set_option(socket, level, name, &least)
}

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; PASSWORD_MAX],
}

/// Sets or takes away the key for one peer. An IPv4 peer of an IPv6 socket goes by its mapped address.
fn set_password(
    socket: BorrowedFd<'_>,
    ipv6: bool,
    peer: IpAddr,
    password: Option<&Password>,
) -> io::Result<()> {
    let peer = match peer {
        IpAddr::V4(peer) if ipv6 => IpAddr::V6(peer.to_ipv6_mapped()),
        peer => peer,
    };
    let mut key = [0; PASSWORD_MAX];
    let given = password.map_or(&[][..], Password::reveal);
    for (place, octet) in key.iter_mut().zip(given) {
        *place = *octet;
    }
    let signature = Md5Signature {
        address: storage(SocketAddr::new(peer, 0)),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(given.len()).unwrap_or(0),
        interface: 0,
        key,
    };
    match set_option(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature) {
        // There was none to take away.
        Err(error) if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

#[allow(unsafe_code)] // the option wants sockaddr_storage by value; socket2 lends it by pointer
fn storage(address: SocketAddr) -> libc::sockaddr_storage {
    let address = socket2::SockAddr::from(address);
    // SAFETY: `SockAddr::as_ptr` points to a whole `sockaddr_storage`.
    unsafe { address.as_ptr().cast::<libc::sockaddr_storage>().read() }
}

#[allow(unsafe_code)] // setsockopt(2) for options without a safe form anywhere
fn set_option<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as it is borrowed, and `value` has `length` octets.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! Listening sockets that can refuse connections for a while without giving up their address.
//!
//! `shutdown` takes a listening socket back to the closed state while it stays bound, in the network namespace it
//! was made in; `listen` opens it again (Linux `inet_shutdown`, `inet_listen`). So a caller in another namespace
//! can switch it, and no other program can take the port in between.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Availability;

/// Connections the kernel queues for us; a start-up of many agents must not overflow it.
const BACKLOG: i32 = 1024;

/// All listening sockets and the switch that cuts their connections.
#[derive(Default)]
pub(crate) struct Listeners {
    sockets: Mutex<Vec<Arc<TcpListener>>>,
    cut: Mutex<CancellationToken>,
    /// How often the sockets have been closed.
    closings: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// Adds a non-blocking socket and returns what `axum::serve` accepts from.
    pub(crate) fn add(
        self: &Arc<Self>,
        socket: TcpListener,
        availability: watch::Receiver<Availability>,
    ) -> io::Result<Accepting> {
        let registered = register(&socket)?;
        let socket = Arc::new(socket);
        lock(&self.sockets).push(socket.clone());
        let closings = self.closings.subscribe();
        Ok(Accepting {
            socket,
            registered: Some(registered),
            listeners: self.clone(),
            availability,
            closings,
        })
    }

    /// The bound addresses, in the order added.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.sockets).iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Refuses new connections and cuts the open ones.
    pub(crate) fn close(&self) {
        for socket in lock(&self.sockets).iter() {
            if let Err(error) = close(socket) {
                tracing::warn!(%error, "cannot close a listener");
            }
        }
        self.closings.send_modify(|closings| *closings += 1);
        self.cut();
    }

    /// Accepts again.
    pub(crate) fn reopen(&self) {
        for socket in lock(&self.sockets).iter() {
            if let Err(error) = SockRef::from(socket.as_ref()).listen(BACKLOG) {
                tracing::warn!(%error, "cannot reopen a listener");
            }
        }
    }

    /// Cuts the open connections.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }
}

/// A port the kernel chose is given back by `shutdown` (only a port asked for is locked to its socket, Linux
/// `SOCK_BINDPORT_LOCK`): it is asked for again at once.
fn close(socket: &TcpListener) -> io::Result<()> {
    let address = socket.local_addr()?;
    SockRef::from(socket).shutdown(Shutdown::Read)?;
    match SockRef::from(socket).bind(&address.into()) {
        // Still bound, as it should be.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        bound => bound,
    }
}

fn register(socket: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(socket.try_clone()?)
}

/// One listening socket, as `axum::serve` wants it.
pub(crate) struct Accepting {
    socket: Arc<TcpListener>,
    /// The socket in the runtime's poll set. A closed listener stays "hung up" there for ever, so it is registered
    /// anew when it is open again.
    registered: Option<tokio::net::TcpListener>,
    listeners: Arc<Listeners>,
    availability: watch::Receiver<Availability>,
    closings: watch::Receiver<u64>,
}

impl Accepting {
    async fn accept_once(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.registered.is_none() {
            self.registered = Some(register(&self.socket)?);
        }
        match &self.registered {
            Some(registered) => registered.accept().await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Leaves the poll set until connections are wanted again.
    async fn wait_until_open(&mut self) {
        self.registered = None;
        let open = |availability: &Availability| *availability != Availability::Refusing;
        if self.availability.wait_for(open).await.is_err() {
            // The server is being dropped, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}

impl axum::serve::Listener for Accepting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let mut closings = self.closings.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closings.changed() => {
                    self.closings = closings.clone();
                    self.wait_until_open().await;
                    continue;
                }
                accepted = self.accept_once() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Watch events are small and must not wait for the acknowledgement of the one before.
                    let _ = stream.set_nodelay(true);
                    let cut = Box::pin(lock(&self.listeners.cut).clone().cancelled_owned());
                    return (Connection { stream, cut }, address);
                }
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    self.wait_until_open().await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A TCP stream that fails once it is cut.
pub(crate) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> Result<(), io::Error> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

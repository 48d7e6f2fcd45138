//! Listening sockets that can refuse connections for a while without giving up their address.
//!
//! `shutdown` takes a listening socket back to the closed state while it stays bound, in the network namespace it
//! was made in; `listen` opens it again (Linux `inet_shutdown`, `inet_listen`). So a caller in another namespace
//! can switch it, and no other program can take the port in between.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// Adds a socket and returns what `axum::serve` accepts from.
    pub(crate) fn add(
        self: &Arc<Self>,
        socket: TcpListener,
        availability: watch::Receiver<Availability>,
    ) -> Accepting {
        let socket = Arc::new(socket);
        lock(&self.sockets).push(socket.clone());
        Accepting { socket, listeners: self.clone(), availability }
    }

    /// The bound addresses, in the order added.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.sockets).iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Refuses new connections and cuts the open ones.
    pub(crate) fn close(&self) {
        for socket in lock(&self.sockets).iter() {
            if let Err(error) = SockRef::from(socket.as_ref()).shutdown(Shutdown::Read) {
                tracing::warn!(%error, "cannot close a listener");
            }
        }
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

/// One listening socket, as `axum::serve` wants it.
pub(crate) struct Accepting {
    socket: Arc<TcpListener>,
    listeners: Arc<Listeners>,
    availability: watch::Receiver<Availability>,
}

impl axum::serve::Listener for Accepting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // A closed listener fails here at once; the wait below ends when it is open again.
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    // Watch events are small and must not wait for the acknowledgement of the one before.
                    let _ = stream.set_nodelay(true);
                    let cut = Box::pin(lock(&self.listeners.cut).clone().cancelled_owned());
                    return (Connection { stream, cut }, address);
                }
                Err(error) => {
                    let open = |availability: &Availability| *availability != Availability::Refusing;
                    if open(&self.availability.borrow()) {
                        tracing::debug!(%error, "accept");
                        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    } else if self.availability.wait_for(open).await.is_err() {
                        std::future::pending::<()>().await;
                    }
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

//! The task of one TCP connection: octets in, octets out, nothing understood.
//!
//! Reading stops while the driver is busy, so a peer that floods us is slowed down by TCP. What waits to be written is
//! counted; the driver asks the table for more only while the count is low, so a peer that does not read costs a bounded
//! amount of memory.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::inbound::Inbound;
use crate::peer::ConnectionId;

/// Octets read at a time.
const CHUNK: usize = 64 * 1024;
/// Octets that may wait to be written before a peer is told no more about paths.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// How long a closed connection may take to say its last words, and the peer to hear them.
const LINGER: Duration = Duration::from_secs(3);

/// The driver's end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Takes a stream over.
    pub(super) fn new(
        peer: IpAddr,
        id: ConnectionId,
        stream: TcpStream,
        inbound: mpsc::Sender<Inbound>,
    ) -> Self {
        // Unbounded in form only: see `waiting`. Beside paths there is one KEEPALIVE each third of the hold time.
        let (outgoing, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(run(peer, id, stream, inbound, queue, Arc::clone(&waiting)));
        Connection { outgoing, waiting, task }
    }

    /// Queues octets.
    pub(super) fn send(&self, octets: Vec<u8>) {
        self.waiting.fetch_add(octets.len(), Ordering::Relaxed);
        // The task ends with the connection and has said so; what is sent until that is read goes nowhere.
        let _ = self.outgoing.send(octets);
    }

    /// Whether more may be told about paths.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < HIGH_WATER
    }

    /// Closes the connection once everything queued has left, or after a while.
    pub(super) fn close(self) {
        let mut task = self.task;
        drop(self.outgoing);
        tokio::spawn(async move {
            if timeout(LINGER * 2, &mut task).await.is_err() {
                task.abort();
            }
        });
    }
}

async fn run(
    peer: IpAddr,
    id: ConnectionId,
    stream: TcpStream,
    inbound: mpsc::Sender<Inbound>,
    queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
) {
    let (mut read, write) = stream.into_split();
    let outcome = tokio::select! {
        outcome = read_all(peer, id, &mut read, &inbound) => Some(outcome),
        outcome = write_all(peer, id, write, queue, &inbound, &waiting) => outcome.err().map(Err),
    };
    match outcome {
        // How it broke says nothing that the peer's state machine could use. If the driver is gone, so is who would want to
        // know.
        Some(_) => drop(inbound.send(Inbound::Closed { peer, id }).await),
        // Closed by us. Reading on until the peer closes, too, keeps the kernel from answering its last words with a reset,
        // which could overtake ours.
        None => drop(timeout(LINGER, discard(&mut read)).await),
    }
}

async fn read_all(
    peer: IpAddr,
    id: ConnectionId,
    read: &mut OwnedReadHalf,
    inbound: &mpsc::Sender<Inbound>,
) -> io::Result<()> {
    loop {
        read.readable().await?;
        let Some(octets) = read_some(read)? else { continue };
        if octets.is_empty() {
            return Ok(());
        }
        if inbound.send(Inbound::Octets { peer, id, octets }).await.is_err() {
            return Ok(());
        }
    }
}

/// What there is to read, in a buffer of its size; empty at the end, `None` if there is nothing yet.
fn read_some(read: &OwnedReadHalf) -> io::Result<Option<Bytes>> {
    thread_local! {
        /// One for all connections of a thread, so that a thousand idle peers hold no memory.
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
    }
    SCRATCH.with_borrow_mut(|scratch| match read.try_read(scratch) {
        Ok(count) => Ok(Some(Bytes::copy_from_slice(scratch.get(..count).unwrap_or_default()))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })
}

async fn write_all(
    peer: IpAddr,
    id: ConnectionId,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    inbound: &mpsc::Sender<Inbound>,
    waiting: &AtomicUsize,
) -> io::Result<()> {
    while let Some(octets) = queue.recv().await {
        write.write_all(&octets).await?;
        let before = waiting.fetch_sub(octets.len(), Ordering::Relaxed);
        let left = before.saturating_sub(octets.len());
        // Two moments matter: there is room again, and nothing waits any more.
        if left == 0 || (before >= HIGH_WATER && left < HIGH_WATER) {
            let progress = Inbound::Progress { peer, id, drained: left == 0 };
            if inbound.send(progress).await.is_err() {
                break;
            }
        }
    }
    write.shutdown().await
}

async fn discard(read: &mut OwnedReadHalf) {
    let mut nowhere = BytesMut::with_capacity(CHUNK);
    while matches!(read.read_buf(&mut nowhere).await, Ok(1..)) {
        nowhere.clear();
    }
}

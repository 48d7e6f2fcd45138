//! A blocking netlink socket: requests out, answers and errors back.
//!
//! Decided here: sequence numbers, acknowledgements, batching, retry of interrupted dumps. Not here: what messages
//! mean, and what to do about an error.

mod transaction;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::attribute::{Attributes, MessageBuilder, TooLong};
use super::flag;
use super::requests::Requests;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NETLINK_GET_STRICT_CHK: libc::c_int = 12;
const NLMSGERR_ATTR_MSG: u16 = 1;
const DUMP_TRIES: u32 = 30;
/// Bytes sent at once; below the smallest default send buffer after SO_SNDBUFFORCE and far above one message.
const SEND_CHUNK: usize = 256 * 1024;
/// Messages sent before their acknowledgements are read, so that those never overrun the receive buffer.
const SEND_MESSAGES: usize = 2048;
const BUFFER: libc::c_int = 8 * 1024 * 1024;

/// What went wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be opened or set up.
    #[error("opening a netlink socket (protocol {protocol}): {source}")]
    Open {
        /// `NETLINK_*`
        protocol: libc::c_int,
        /// Cause.
        source: io::Error,
    },
    /// Sending failed.
    #[error("sending to the kernel: {0}")]
    Send(io::Error),
    /// Receiving failed; ENOBUFS means messages were lost.
    #[error("receiving from the kernel: {0}")]
    Receive(io::Error),
    /// The kernel refused the request.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), said.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// Positive errno; ipset's own codes are above 4096.
        errno: i32,
        /// The kernel's extended explanation.
        said: Option<String>,
    },
    /// A dump was interrupted by changes too often.
    #[error("a dump was interrupted by concurrent changes {DUMP_TRIES} times")]
    Interrupted,
    /// A message that does not follow its format.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// A message of ours does not fit.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Error {
    /// Errno of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Open { source, .. } | Error::Send(source) | Error::Receive(source) => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

/// A request ready to be sent but for its sequence number.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Request {
    /// `flags` beyond `NLM_F_REQUEST`.
    ///
    /// # Errors
    /// When the payload holds something longer than its length field.
    pub fn new(kind: u16, flags: u16, payload: MessageBuilder) -> Result<Request, Error> {
        Ok(Request { kind, flags, payload: payload.finish()? })
    }

    /// From a payload already serialised.
    pub fn from_bytes(kind: u16, flags: u16, payload: Vec<u8>) -> Request {
        Request { kind, flags, payload }
    }

    fn write(&self, buffer: &mut Vec<u8>, sequence: u32, extra_flags: u16) {
        let length = u32::try_from(HEADER + self.payload.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&self.kind.to_ne_bytes());
        buffer.extend_from_slice(&(self.flags | flag::REQUEST | extra_flags).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&0u32.to_ne_bytes());
        buffer.extend_from_slice(&self.payload);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// A message as received.
#[derive(Debug)]
pub struct Message<'a> {
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request it answers.
    pub sequence: u32,
    /// Port id of the socket that caused it (notifications), 0 for the kernel.
    pub port: u32,
    /// Payload behind the header.
    pub payload: &'a [u8],
}

/// A netlink socket, blocking, of one thread.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    port: u32,
    requests: Arc<Requests>,
    /// Bytes the kernel takes in one datagram of ours.
    room: usize,
}

impl Socket {
    /// Opens a socket of a `NETLINK_*` protocol in the calling thread's network namespace, with large buffers and
    /// extended error messages.
    ///
    /// # Errors
    /// [`Error::Open`] when the kernel lacks the protocol or refuses us.
    #[allow(unsafe_code)] // socket(2), bind(2), setsockopt(2), getsockname(2) have no safe form in std
    pub fn open(protocol: libc::c_int) -> Result<Socket, Error> {
        let failed = |source| Error::Open { protocol, source };
        // SAFETY: plain system call; the result is checked before it becomes an owned descriptor.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: `raw` was just opened and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER).map_err(failed)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).map_err(failed)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1).map_err(failed)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1).map_err(failed)?;
        // SAFETY: an all-zero sockaddr_nl is valid; the kernel chooses the port id (never our process id, which other
        // netlink sockets of this process would also claim).
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        let at = std::ptr::from_mut(&mut address).cast::<libc::sockaddr>();
        // SAFETY: `at` points to `length` bytes that live through both calls.
        let bound =
            unsafe { libc::bind(raw, at, length) == 0 && libc::getsockname(raw, at, &mut length) == 0 };
        if !bound {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(Socket {
            fd,
            sequence: 1,
            buffer: vec![0; 256 * 1024],
            port: address.nl_pid,
            requests: Arc::default(),
            room: BUFFER as usize,
        })
    }

    /// Port id, by which notifications caused by this socket can be told from others'.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// What was sent so far; goes on counting.
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Counts what is sent from now on here, as the socket before it did.
    pub fn count_in(&mut self, requests: Arc<Requests>) {
        self.requests = requests;
    }

    /// Bounds how long receiving blocks from now on; at least a millisecond. After that it fails with EAGAIN.
    ///
    /// # Errors
    /// [`Error::Receive`] when the kernel refuses.
    pub fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
        use nix::sys::time::{TimeVal, TimeValLike};
        let milliseconds = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX).max(1);
        setsockopt(&self.fd, ReceiveTimeout, &TimeVal::milliseconds(milliseconds))
            .map_err(|errno| Error::Receive(errno.into()))
    }

    /// Joins a multicast group (`NETLINK_ADD_MEMBERSHIP`).
    ///
    /// # Errors
    /// [`Error::Receive`] when the group does not exist.
    pub fn subscribe(&self, group: libc::c_int) -> Result<(), Error> {
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group).map_err(Error::Receive)
    }

    /// Makes the kernel check dump requests strictly and honour the filters in them (`NETLINK_GET_STRICT_CHK`,
    /// Linux 4.20): a dump of one table or one link then costs what is in it.
    ///
    /// # Errors
    /// [`Error::Receive`] when the kernel is older.
    pub fn filter_dumps(&self) -> Result<(), Error> {
        set_option(&self.fd, libc::SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1).map_err(Error::Receive)
    }

    /// Sends one request that changes something and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's errno.
    pub fn request(&mut self, request: Request) -> Result<(), Error> {
        self.requests.wrote(1);
        self.answered(request).map(drop)
    }

    /// Sends one question and returns the payloads of its answers, up to its acknowledgement.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's errno.
    pub fn ask(&mut self, question: Request) -> Result<Vec<Vec<u8>>, Error> {
        self.requests.read();
        self.answered(question)
    }

    fn answered(&mut self, request: Request) -> Result<Vec<Vec<u8>>, Error> {
        let mut answers = Vec::new();
        let mut outcome = Vec::with_capacity(1);
        self.exchange(std::slice::from_ref(&request), &mut outcome, |_, payload| {
            answers.push(payload.to_vec())
        })?;
        outcome.pop().unwrap_or(Err(Error::Malformed("no acknowledgement")))?;
        Ok(answers)
    }

    /// Sends many requests in few system calls, each acknowledged; one outcome for each, in order.
    ///
    /// # Errors
    /// Only when the socket itself fails; a refusal is an outcome.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for request in rest.iter().take(SEND_MESSAGES) {
                bytes += HEADER + request.payload.len();
                if count > 0 && bytes > SEND_CHUNK {
                    break;
                }
                count += 1;
            }
            let (chunk, later) = rest.split_at(count);
            self.requests.wrote(chunk.len());
            self.exchange(chunk, &mut outcomes, |_, _| {})?;
            rest = later;
        }
        Ok(outcomes)
    }

    /// Dumps: every message that `parse` understands, by type and payload. An interrupted dump is started over.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after 30 tries (1 ms to 100 ms apart), or the kernel's refusal.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for attempt in 0..DUMP_TRIES {
            let mut rows = Vec::new();
            let complete = self.dump_once(request, |kind, payload| rows.extend(parse(kind, payload)))?;
            if complete {
                return Ok(rows);
            }
            self.requests.was_interrupted();
            std::thread::sleep(Duration::from_millis(u64::from(attempt + 1).min(10) * 10));
        }
        Err(Error::Interrupted)
    }

    /// Waits for notifications and hands each to `each`. Blocks until at least one datagram arrived.
    ///
    /// # Errors
    /// [`Error::Receive`]; with ENOBUFS some were lost and the caller must read everything anew.
    pub fn notifications(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<(), Error> {
        let length = self.receive()?;
        let datagram = self.buffer.get(..length).unwrap_or_default();
        for message in Messages(datagram) {
            each(&message);
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        requests: &[Request],
        outcomes: &mut Vec<Result<(), Error>>,
        mut answer: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let first = self.sequence;
        let mut bytes = Vec::new();
        for request in requests {
            request.write(&mut bytes, self.sequence, flag::ACK);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.send(&bytes)?;
        let mut answered = 0;
        while answered < requests.len() {
            let length = self.receive()?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in Messages(datagram) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if index >= requests.len() {
                    continue; // left over from an exchange that was given up
                }
                match message.kind {
                    NLMSG_ERROR => {
                        outcomes.push(acknowledgement(&message));
                        answered += 1;
                    }
                    NLMSG_DONE => {}
                    kind => answer(kind, message.payload),
                }
            }
        }
        Ok(())
    }

    fn dump_once(&mut self, request: &Request, mut each: impl FnMut(u16, &[u8])) -> Result<bool, Error> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        request.write(&mut bytes, sequence, flag::DUMP);
        self.requests.read();
        self.send(&bytes)?;
        let mut complete = true;
        loop {
            let length = self.receive()?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in Messages(datagram) {
                if message.sequence != sequence {
                    continue;
                }
                complete &= message.flags & flag::DUMP_INTERRUPTED == 0;
                match message.kind {
                    NLMSG_DONE => {
                        let code = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code < 0 {
                            Err(Error::Refused { errno: -code, said: None })
                        } else {
                            Ok(complete)
                        };
                    }
                    NLMSG_ERROR => return acknowledgement(&message).map(|()| complete),
                    kind => each(kind, message.payload),
                }
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(complete);
                }
            }
        }
    }

    #[allow(unsafe_code)] // send(2) on a netlink socket: std has no type for it
    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: pointer and length are those of a live slice. An unconnected netlink socket sends to the kernel.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(Error::Send(io::Error::last_os_error())) } else { Ok(()) }
    }

    #[allow(unsafe_code)] // recv(2), as above
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            // SAFETY: the kernel writes at most `len` bytes into the buffer we own. MSG_TRUNC makes it tell the true size.
            let received = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC,
                )
            };
            match usize::try_from(received) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(Error::Malformed("a datagram larger than the receive buffer"));
                }
                Ok(length) => return Ok(length),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(Error::Receive(error));
                    }
                }
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// `NLMSG_ERROR`: errno, then the request's header, then attributes if the kernel has something to say.
fn acknowledgement(message: &Message<'_>) -> Result<(), Error> {
    let code = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return Ok(());
    }
    let mut said = None;
    if message.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = message.payload.get(4..).and_then(|header| header.first_chunk::<4>());
        let echoed = match echoed {
            Some(length) if message.flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*length) as usize,
            _ => HEADER,
        };
        let attributes = Attributes::after(message.payload, 4 + echoed);
        said = attributes.get(NLMSGERR_ATTR_MSG).and_then(|text| text.str()).map(str::to_owned);
    }
    Err(Error::Refused { errno: code.saturating_neg(), said })
}

/// Messages of a datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let field = |at: usize| self.0.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
        let half = |at: usize| self.0.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes));
        let length = field(0)? as usize;
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: field(8)?,
            port: field(12)?,
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

#[allow(unsafe_code)] // setsockopt(2) for netlink and forced buffer sizes: not in std
fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option value is a live c_int of the length given.
    let set =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! A peer made of bytes: says exactly what a test wants, and hears what a router answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lab::node::Namespace;

use crate::setup::PATIENCE;

/// Message types (RFC 4271 §4.1).
pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

/// A connection to a router's BGP port.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// What comes from the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message: type and body.
    Message(u8, Vec<u8>),
    /// The connection is closed.
    End,
    /// Nothing within the time given.
    Silence,
}

impl Raw {
    /// Connects from inside `namespace`, as soon as the router listens and takes the connection.
    pub(crate) fn connect(namespace: &Namespace, to: IpAddr) -> Self {
        let dial = move || {
            let end = Instant::now() + PATIENCE;
            loop {
                match TcpStream::connect_timeout(&SocketAddr::new(to, 179), Duration::from_secs(2)) {
                    Ok(stream) => return stream,
                    Err(error) if Instant::now() > end => panic!("{to}: {error}"),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        };
        Self { stream: namespace.run(dial).expect("the namespace") }
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Sends bytes as they are; a router that has closed the connection does not hear them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a message with a good header.
    pub(crate) fn send(&mut self, kind: u8, body: &[u8]) {
        self.bytes(&message(kind, body));
    }

    /// The next message, within `limit`.
    pub(crate) fn hear(&mut self, limit: Duration) -> Heard {
        let mut header = [0; 19];
        match self.fill(&mut header, limit) {
            None => Heard::Silence,
            Some(false) => Heard::End,
            Some(true) => {
                let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
                let mut body = vec![0; length - 19];
                let whole = self.fill(&mut body, PATIENCE) == Some(true);
                if whole { Heard::Message(header[18], body) } else { Heard::End }
            }
        }
    }

    /// Fills `buffer`: true when full, false at the end of the stream, none when `limit` is over before its first byte.
    fn fill(&mut self, buffer: &mut [u8], limit: Duration) -> Option<bool> {
        let mut at = 0;
        let end = Instant::now() + limit;
        while at < buffer.len() {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            match self.stream.read(&mut buffer[at..]) {
                Ok(0) => return Some(false),
                Ok(length) => at += length,
                // A signal, as of a child of another test that has ended, says nothing about the stream (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if at == 0 {
                        return None;
                    }
                    assert!(Instant::now() < end + PATIENCE, "half a message");
                }
                Err(_) => return Some(false),
            }
        }
        Some(true)
    }
}

/// A message with a good header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// Body of an OPEN with capabilities: both families, four-octet AS.
pub(crate) fn open(version: u8, asn: u16, hold: u16, id: [u8; 4]) -> Vec<u8> {
    let wide = u32::from(asn).to_be_bytes();
    let capabilities = [&[1, 4, 0, 1, 0, 1][..], &[1, 4, 0, 2, 0, 1], &[65, 4], &wide].concat();
    let length = u8::try_from(capabilities.len()).unwrap();
    let head = [&[version][..], &asn.to_be_bytes(), &hold.to_be_bytes(), &id].concat();
    [&head[..], &[length + 2, 2, length], &capabilities].concat()
}

/// Body of an UPDATE without withdrawn routes.
pub(crate) fn update(attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = u16::try_from(attributes.len()).unwrap();
    [&[0, 0][..], &length.to_be_bytes(), &attributes, nlri].concat()
}

/// A path attribute with these flags, of less than 256 bytes.
pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, u8::try_from(value.len()).unwrap()][..], value].concat()
}

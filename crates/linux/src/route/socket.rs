//! The rtnetlink socket: dumps filtered by the kernel, and a count of messages nobody here could read.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::netlink::{Error, Request, Requests, Socket};

/// Messages of the kernel that did not follow the format known here. They are left out, never guessed at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undecoded {
    /// How many since the socket was opened.
    pub count: u64,
    /// What was missing in the last.
    pub last: Option<&'static str>,
}

/// An rtnetlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
    undecoded: Undecoded,
}

impl Rtnetlink {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Open`], or [`Error::Receive`] on kernels before 4.20, which cannot filter dumps.
    pub fn open() -> Result<Rtnetlink, Error> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        socket.filter_dumps()?;
        Ok(Rtnetlink { socket, undecoded: Undecoded::default() })
    }

    /// Port id of the socket.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Counts what is sent from now on here.
    pub fn count_in(&mut self, requests: Arc<Requests>) {
        self.socket.count_in(requests);
    }

    /// Messages that were left out of dumps.
    pub fn undecoded(&self) -> &Undecoded {
        &self.undecoded
    }

    /// The underlying socket, for subscriptions and single requests.
    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Dumps what `parse` wants: `Ok(None)` is not of interest, `Err` is counted and left out.
    pub(super) fn dump<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(&[u8]) -> Result<Option<T>, &'static str>,
    ) -> Result<Vec<T>, Error> {
        let parsed = self.socket.dump(request, |_, payload| parse(payload).transpose())?;
        let mut rows = Vec::with_capacity(parsed.len());
        for row in parsed {
            match row {
                Ok(row) => rows.push(row),
                Err(missing) => self.leave_out(missing),
            }
        }
        Ok(rows)
    }

    pub(super) fn leave_out(&mut self, missing: &'static str) {
        self.undecoded.count += 1;
        self.undecoded.last = Some(missing);
    }
}

impl AsRawFd for Rtnetlink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

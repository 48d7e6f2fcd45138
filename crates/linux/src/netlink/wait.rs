//! Waiting for notifications that can be called off.

use std::io;
use std::os::fd::RawFd;

/// Blocks until there is something to read (true) or the handle is gone (false).
#[allow(unsafe_code)] // poll(2) over two descriptors is not in std
pub(crate) fn wait(listening: RawFd, closed: RawFd) -> bool {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [entry(listening), entry(closed)];
    loop {
        // SAFETY: the array lives through the call and its length is given.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        let [socket, handle] = &fds;
        if handle.revents != 0 {
            return false;
        }
        if ready > 0 && socket.revents != 0 {
            return true;
        }
        if ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

//! A socket filter that drops route notifications of others before they are queued, so that a router daemon moving a
//! million routes costs this process nothing (classic BPF, `include/uapi/linux/filter.h`).
//!
//! Dropped are additions that replace nothing, and changes in tables that are not watched. Everything else passes and
//! is judged by the listener.

use std::io;
use std::os::fd::RawFd;

use crate::netlink::flag;

use super::RouteScope;
use super::kernel::{message, route as number};

// Offsets into a notification: `struct nlmsghdr`, then `struct rtmsg`.
const KIND: u32 = 4;
const FLAGS: u32 = 6;
const TABLE: u32 = 20;
const PROTOCOL: u32 = 21;

const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

/// Attaches the filter to a notification socket.
#[allow(unsafe_code)] // SO_ATTACH_FILTER takes a pointer to the program; no crate in use wraps it
pub(super) fn attach(fd: RawFd, scope: &RouteScope) -> io::Result<()> {
    let mut program = program(scope);
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let option = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `length` instructions from a vector that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&option).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program(scope: &RouteScope) -> Vec<libc::sock_filter> {
    // A replacement (IPv4 says so in the flags) may have replaced one of ours, whatever its own protocol.
    let mut added = vec![load_half(FLAGS), when_any_bit(host_half(flag::REPLACE), 1, 0), give(DROP)];
    added.extend([load_byte(TABLE)]);
    for table in watched_tables(scope).chain([number::TABLE_MAIN as u8]) {
        added.extend([when_equal(u32::from(table), 0, 1), give(PASS)]);
    }
    added.push(give(DROP));

    let mut removed = vec![load_byte(PROTOCOL), when_equal(u32::from(scope.protocol), 0, 1), give(PASS)];
    removed.push(load_byte(TABLE));
    for table in watched_tables(scope) {
        removed.extend([when_equal(u32::from(table), 0, 1), give(PASS)]);
    }
    removed.push(give(DROP));

    let mut program = vec![load_half(KIND), when_equal(host_half(message::NEW_ROUTE), 0, added.len() as u8)];
    if usize::from(u8::MAX) < added.len() {
        return vec![give(PASS)]; // more tables than a jump is wide: the listener sorts out the rest
    }
    program.extend(added);
    program.extend([when_equal(host_half(message::DELETE_ROUTE), 1, 0), give(PASS)]);
    program.extend(removed);
    program
}

/// Values of the header's table byte: tables above 255 share one.
fn watched_tables(scope: &RouteScope) -> impl Iterator<Item = u8> {
    let own = scope.tables.iter().map(|table| u8::try_from(*table).unwrap_or(number::TABLE_COMPAT));
    own.chain([number::TABLE_LOCAL as u8])
}

/// BPF loads halves in network order; netlink headers are in host order.
fn host_half(value: u16) -> u32 {
    u32::from(value.to_be())
}

fn load_half(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, offset)
}

fn load_byte(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset)
}

fn when_equal(value: u32, skip_if: u8, skip_else: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip_if, skip_else, value)
}

fn when_any_bit(bits: u32, skip_if: u8, skip_else: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, skip_if, skip_else, bits)
}

fn give(bytes: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

fn instruction(code: u32, skip_if: u8, skip_else: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: skip_if, jf: skip_else, k }
}

//! Transactions of nfnetlink: all requests of one datagram, or none (`nfnetlink_rcv_batch`).
//!
//! The kernel goes on after a refused request, so that one answer tells all that is wrong, and then takes everything
//! back. Only the last request asks for an acknowledgement: one for each would overrun the receive buffer, and the
//! closing marker is acknowledged by no kernel before 6.10.

use super::{BUFFER, Error, HEADER, MessageBuilder, Messages, NLMSG_ERROR, Request, Socket};
use super::{acknowledgement, flag, set_option};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NFNL_BATCH_GENID`
const GENERATION: u16 = 1;
/// Largest transaction, in bytes. A million set elements is about 30 MiB.
const LARGEST: usize = 256 * 1024 * 1024;

impl Socket {
    /// Commits requests of one nfnetlink subsystem together. What is returned are the refused requests, by place; if
    /// there are any, nothing was changed. With `generation` the kernel refuses unless nobody else has changed
    /// anything since that number was read.
    ///
    /// # Errors
    /// When the socket fails, or the kernel refuses the whole: ERESTART for an old generation.
    pub fn transaction(
        &mut self,
        subsystem: u8,
        generation: Option<u32>,
        requests: &[Request],
    ) -> Result<Vec<(usize, Error)>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let begin = self.sequence;
        let bytes = self.assemble(subsystem, generation, requests)?;
        self.make_room(bytes.len())?;
        self.requests.wrote(requests.len());
        self.send(&bytes)?;
        let mut refused = Vec::new();
        loop {
            let length = self.receive()?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in Messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                // 0 is the opening marker, answered only when the whole is refused.
                let place = message.sequence.wrapping_sub(begin) as usize;
                if place > requests.len() {
                    continue; // left over from an exchange that was given up
                }
                let answer = acknowledgement(&message);
                let Some(place) = place.checked_sub(1) else { return answer.map(|()| refused) };
                refused.extend(answer.err().map(|error| (place, error)));
                if place + 1 == requests.len() {
                    return Ok(refused);
                }
            }
        }
    }

    fn assemble(
        &mut self,
        subsystem: u8,
        generation: Option<u32>,
        requests: &[Request],
    ) -> Result<Vec<u8>, Error> {
        // `struct nfgenmsg`: the last field is the subsystem, in network byte order.
        let mut opening = MessageBuilder::new(&[libc::AF_UNSPEC as u8, 0, 0, subsystem]);
        if let Some(generation) = generation {
            opening.put_be32(GENERATION, generation);
        }
        let opening = Request::new(BEGIN, 0, opening)?;
        let closing = Request::from_bytes(END, 0, vec![libc::AF_UNSPEC as u8, 0, 0, subsystem]);
        let size: usize = requests.iter().map(|request| HEADER + request.payload.len() + 3).sum();
        let mut bytes = Vec::with_capacity(size + 3 * HEADER);
        let all = [&opening].into_iter().chain(requests).chain([&closing]);
        for (place, request) in all.enumerate() {
            let last = if place == requests.len() { flag::ACK } else { 0 };
            request.write(&mut bytes, self.sequence, last);
            self.sequence = self.sequence.wrapping_add(1);
        }
        Ok(bytes)
    }

    /// Makes the send buffer hold a datagram of this size; it never shrinks again, but is only a limit.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.room {
            return Ok(());
        }
        let room = bytes.next_multiple_of(BUFFER as usize).min(LARGEST);
        let size = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).map_err(Error::Send)?;
        self.room = room;
        Ok(())
    }
}

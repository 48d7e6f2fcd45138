//! Connection tracking: forgetting flows whose real server is gone, and marking flows that policy cuts.
//!
//! Decided here: how flows are found (a dump the kernel filters) and deleted (one filtered request where the kernel
//! can, else one request for each flow); [`marks`] lists flows for a verdict and sets bits of their mark. Not here:
//! whose flows go, and when.
//!
//! The kernel's filter takes IPv6 addresses the wrong way round (seen on 6.1 and 6.18: equal addresses do not match,
//! all others do), so an IPv6 filter only names protocol and port, and IPv6 flows are always deleted one by one.

pub mod marks;
mod wire;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::netlink::attribute::NESTED;
use crate::netlink::{self, Attributes, MessageBuilder, Request, Requests, Socket};
use crate::row::{Family, Protocol};
pub use marks::Flow;
pub use wire::Ends;
use wire::{HEADER, filter, flow, header, message, tuple, zone};

/// Flows of zone 0 that clients opened to one address, protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flows {
    /// What clients sent to: a virtual address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port clients sent to.
    pub port: u16,
    /// Only those answered from here: the real server, of the destination's family. `None` is every flow.
    pub reply_source: Option<(IpAddr, u16)>,
}

impl Flows {
    fn has(&self, sent: &Ends, answered: &Ends) -> bool {
        sent.protocol == self.protocol.number()
            && sent.destination == (self.destination, self.port)
            && self.reply_source.is_none_or(|source| answered.source == source)
    }
}

/// Where UDP is served from now on: flows that were opened there before have gone elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Every port of these addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// These ports.
    pub ports: BTreeSet<(IpAddr, u16)>,
}

impl Served {
    fn has(&self, (ip, port): (IpAddr, u16)) -> bool {
        self.addresses.contains(&ip) || self.ports.contains(&(ip, port))
    }

    fn concerns(&self, family: Family) -> bool {
        let mut ips = self.addresses.iter().chain(self.ports.iter().map(|(ip, _)| ip));
        ips.any(|ip| Family::of(ip) == family)
    }
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netfilter socket.
    #[error("connection tracking: {0}")]
    Open(netlink::Error),
    /// Flows could not be listed.
    #[error("listing tracked flows: {0}")]
    List(netlink::Error),
    /// Flows could not be deleted.
    #[error("deleting tracked flows: {0}")]
    Delete(netlink::Error),
    /// Marks of flows could not be changed.
    #[error("marking tracked flows: {0}")]
    Mark(netlink::Error),
    /// Destination and reply source are of different families; such a flow cannot be.
    #[error("a flow has one address family")]
    MixedFamilies,
}

/// The flow table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    /// Whether the kernel may take a filtered delete; Linux 6.1 answers EINVAL, 6.18 takes it.
    filtered_delete: bool,
}

/// A flow to delete: its original tuple and id as the kernel sent them, so that a new flow between the same ends
/// is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    original: Vec<u8>,
    id: Option<u32>,
}

impl Conntrack {
    /// Opens the flow table of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Open`] when the kernel has no netfilter.
    pub fn open() -> Result<Conntrack, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(Error::Open)?;
        Ok(Conntrack { socket, filtered_delete: true })
    }

    /// Counts what is sent from now on here.
    pub fn count_in(&mut self, requests: Arc<Requests>) {
        self.socket.count_in(requests);
    }

    /// Deletes every flow of `flows` and says how many there were. The next packet between the same ends is a new
    /// flow. The kernel walks its whole table once (a few ms for 20,000 flows); only matching flows are copied.
    ///
    /// # Errors
    /// The first failure; a flow that is gone before it is deleted is none.
    pub fn delete(&mut self, flows: &Flows) -> Result<usize, Error> {
        if flows.reply_source.is_some_and(|(ip, _)| Family::of(&ip) != Family::of(&flows.destination)) {
            return Err(Error::MixedFamilies);
        }
        let mut payload = header(Family::of(&flows.destination), 0);
        put_filter(&mut payload, flows);
        let found = self.list(payload, |sent, answered| flows.has(sent, answered)).map_err(Error::List)?;
        if found.is_empty() {
            return Ok(0);
        }
        if self.filtered_delete && flows.destination.is_ipv4() {
            match self.delete_filtered(flows) {
                Ok(()) => return Ok(found.len()),
                Err(netlink::Error::Refused { .. }) => self.filtered_delete = false,
                Err(error) => return Err(Error::Delete(error)),
            }
        }
        self.delete_each(Family::of(&flows.destination), &found).map_err(Error::Delete)
    }

    /// Deletes UDP flows of zone 0 that were opened to where it is served now and are answered from there: nobody has
    /// translated their destination, so they began before, and IPVS would send their packets on but never recognise the
    /// answers. One walk of the kernel through its table for each family; UDP flows alone are copied.
    ///
    /// # Errors
    /// The first failure; a flow that is gone before it is deleted is none.
    pub fn delete_unserved(&mut self, served: &Served) -> Result<usize, Error> {
        let mut deleted = 0;
        for family in Family::ALL.into_iter().filter(|family| served.concerns(*family)) {
            let mut payload = header(family, 0);
            put_protocol_filter(&mut payload, Protocol::Udp);
            let unserved = |sent: &Ends, answered: &Ends| {
                sent.protocol == Protocol::Udp.number()
                    && served.has(sent.destination)
                    && answered.source == sent.destination
            };
            let found = self.list(payload, unserved).map_err(Error::List)?;
            deleted += self.delete_each(family, &found).map_err(Error::Delete)?;
        }
        Ok(deleted)
    }

    fn list(
        &mut self,
        filter: MessageBuilder,
        wanted: impl Fn(&Ends, &Ends) -> bool,
    ) -> Result<Vec<Found>, netlink::Error> {
        let request = Request::new(message::GET, 0, filter)?;
        self.socket.dump(&request, |kind, payload| {
            (kind == message::NEW).then(|| parse_matching(payload, &wanted)).flatten()
        })
    }

    /// Version 1 in the header makes the kernel look at the family. The partial original tuple is always there, so
    /// that a kernel without filtered deletes answers EINVAL rather than flush everything.
    fn delete_filtered(&mut self, flows: &Flows) -> Result<(), netlink::Error> {
        let mut payload = header(Family::of(&flows.destination), 1);
        put_filter(&mut payload, flows);
        self.socket.request(Request::new(message::DELETE, 0, payload)?)
    }

    fn delete_each(&mut self, family: Family, found: &[Found]) -> Result<usize, netlink::Error> {
        let request = |flow: &Found| {
            let mut payload = header(family, 0);
            payload.put(flow::ORIGINAL | NESTED, &flow.original);
            if let Some(id) = flow.id {
                payload.put_be32(flow::ID, id);
            }
            Request::new(message::DELETE, 0, payload)
        };
        let requests: Vec<Request> = found.iter().map(request).collect::<Result<_, _>>()?;
        let mut deleted = 0;
        for outcome in self.socket.batch(&requests)? {
            match outcome {
                Ok(()) => deleted += 1,
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

/// The tuples wanted, and which of their fields count. Kernels before 5.8 ignore the filter and send everything.
fn put_filter(payload: &mut MessageBuilder, flows: &Flows) {
    let number = flows.protocol.number();
    let (source, destination) = match flows.destination {
        IpAddr::V4(_) => (tuple::V4_SOURCE, tuple::V4_DESTINATION),
        IpAddr::V6(_) => (tuple::V6_SOURCE, tuple::V6_DESTINATION),
    };
    payload.nest(flow::ORIGINAL, |original| {
        original.nest(tuple::IP, |ip| {
            ip.put_ip(destination, flows.destination);
        });
        original.nest(tuple::PROTO, |proto| {
            proto.put_u8(tuple::PROTO_NUMBER, number).put_be16(tuple::DESTINATION_PORT, flows.port);
        });
    });
    // See the module's head for IPv6.
    let addresses = if flows.destination.is_ipv4() { filter::IP_SOURCE | filter::IP_DESTINATION } else { 0 };
    let original_flags = addresses & filter::IP_DESTINATION | filter::PROTO_NUMBER | filter::DESTINATION_PORT;
    let mut reply_flags = 0;
    if let Some((ip_source, port)) = flows.reply_source {
        reply_flags = addresses & filter::IP_SOURCE | filter::PROTO_NUMBER | filter::SOURCE_PORT;
        payload.nest(flow::REPLY, |reply| {
            reply.nest(tuple::IP, |ip| {
                ip.put_ip(source, ip_source);
            });
            reply.nest(tuple::PROTO, |proto| {
                proto.put_u8(tuple::PROTO_NUMBER, number).put_be16(tuple::SOURCE_PORT, port);
            });
        });
    }
    payload.put_be16(flow::ZONE, 0);
    payload.nest(flow::FILTER, |flags| {
        flags.put_u32(filter::ORIGINAL_FLAGS, original_flags).put_u32(filter::REPLY_FLAGS, reply_flags);
    });
}

/// Asks for the flows of a protocol.
fn put_protocol_filter(payload: &mut MessageBuilder, protocol: Protocol) {
    payload.nest(flow::ORIGINAL, |original| {
        original.nest(tuple::PROTO, |proto| {
            proto.put_u8(tuple::PROTO_NUMBER, protocol.number());
        });
    });
    payload.nest(flow::FILTER, |flags| {
        flags.put_u32(filter::ORIGINAL_FLAGS, filter::PROTO_NUMBER).put_u32(filter::REPLY_FLAGS, 0);
    });
}

/// A flow of a dump, if it is wanted: the kernel's filter is not taken on trust, and older kernels do not filter by zone.
fn parse_matching(payload: &[u8], wanted: impl Fn(&Ends, &Ends) -> bool) -> Option<Found> {
    let fields = Attributes::after(payload, HEADER);
    let original = fields.get(flow::ORIGINAL)?;
    let reply = fields.get(flow::REPLY)?;
    let zone = zone(fields.get(flow::ZONE))?;
    let (sent, answered) = (Ends::parse(original.nested())?, Ends::parse(reply.nested())?);
    (zone == 0 && wanted(&sent, &answered)).then(|| Found {
        original: original.payload.to_vec(),
        id: fields.get(flow::ID).and_then(|id| id.be32()),
    })
}

#[cfg(test)]
mod tests;

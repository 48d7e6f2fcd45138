//! Flows as a policy judges them, and bits of their mark.
//!
//! A flow that policy no longer allows is not deleted: the next packet of whoever still sends would make it anew, in
//! the direction that is allowed. Instead a bit of its mark is set, and the first rule of the policy chains refuses
//! flows with that bit. Decided here: how flows are found, and that only the bits asked for change. Not here: which
//! flows, and which bit.

use std::collections::HashSet;
use std::net::IpAddr;

use super::wire::{Ends, HEADER, filter, flow, header, message, tuple, zone};
use super::{Conntrack, Error};
use crate::netlink::attribute::NESTED;
use crate::netlink::{self, Attributes, Request};
use crate::row::Family;

/// Addresses up to this many are asked for one by one where the kernel can filter: each costs two walks of its table,
/// a dump of everything about as much as five of them.
const FILTERED_ADDRESSES: usize = 2;

/// A tracked flow of zone 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As its first packet was sent: to a virtual address, if it goes through one.
    pub original: Ends,
    /// As it is answered: its source is the server that really has the flow, its destination the client as that
    /// server sees it.
    pub reply: Ends,
    /// `ct mark`
    pub mark: u32,
    /// The original tuple as the kernel sent it.
    tuple: Vec<u8>,
}

impl Conntrack {
    /// Flows in which one of `addresses` is the client or the server that has it; both families may be mixed. O(flows
    /// tracked) in the kernel, O(flows found) here; for more than two addresses, or IPv6 (see the head of
    /// [`super`]), every flow of the family is copied and looked at.
    ///
    /// # Errors
    /// [`Error::List`]
    pub fn touching(&mut self, addresses: &[IpAddr]) -> Result<Vec<Flow>, Error> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let wanted: HashSet<IpAddr> =
                addresses.iter().copied().filter(|ip| Family::of(ip) == family).collect();
            let touches = |flow: &Flow| {
                wanted.contains(&flow.original.source.0) || wanted.contains(&flow.reply.source.0)
            };
            if wanted.is_empty() {
                continue;
            }
            if family == Family::V6 || wanted.len() > FILTERED_ADDRESSES {
                found.extend(self.dump(header(family, 0), touches)?);
                continue;
            }
            for ip in &wanted {
                found.extend(self.dump(of_source(*ip, flow::ORIGINAL), touches)?);
                // A flow has one client and one server; one whose client is wanted as well was found by it.
                found.extend(self.dump(of_source(*ip, flow::REPLY), |flow| {
                    touches(flow) && !wanted.contains(&flow.original.source.0)
                })?);
            }
        }
        Ok(found)
    }

    /// Flows of a family whose mark has all bits of `bits`. O(flows tracked) in the kernel, O(flows found) here.
    ///
    /// # Errors
    /// [`Error::List`]
    pub fn marked(&mut self, family: Family, bits: u32) -> Result<Vec<Flow>, Error> {
        let mut payload = header(family, 0);
        payload.put_be32(flow::MARK, bits).put_be32(flow::MARK_MASK, bits);
        self.dump(payload, |flow| flow.mark & bits == bits)
    }

    /// Sets the bits of `mask` in the mark of each flow to those of `value`, and leaves the other bits alone. Says how
    /// many flows there still were. O(flows given).
    ///
    /// # Errors
    /// [`Error::Mark`] with the first failure; a flow that has ended is none.
    pub fn set_mark<'a>(
        &mut self,
        flows: impl IntoIterator<Item = &'a Flow>,
        value: u32,
        mask: u32,
    ) -> Result<usize, Error> {
        let request = |flow: &Flow| {
            let mut payload = header(Family::of(&flow.original.source.0), 0);
            payload.put(flow::ORIGINAL | NESTED, &flow.tuple);
            payload.put_be32(flow::MARK, value & mask).put_be32(flow::MARK_MASK, mask);
            // Without NLM_F_CREATE a flow that has ended stays ended.
            Request::new(message::NEW, 0, payload)
        };
        let requests =
            flows.into_iter().map(request).collect::<Result<Vec<Request>, _>>().map_err(Error::Mark)?;
        let mut marked = 0;
        for outcome in self.socket.batch(&requests).map_err(Error::Mark)? {
            match outcome {
                Ok(()) => marked += 1,
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(Error::Mark(error)),
            }
        }
        Ok(marked)
    }

    fn dump(
        &mut self,
        payload: netlink::MessageBuilder,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<Vec<Flow>, Error> {
        let request = Request::new(message::GET, 0, payload).map_err(Error::List)?;
        self.socket
            .dump(&request, |kind, payload| {
                (kind == message::NEW).then(|| parse(payload)).flatten().filter(&wanted)
            })
            .map_err(Error::List)
    }
}

/// Asks for flows that `ip` sends in one direction; kernels before 5.8 send everything.
fn of_source(ip: IpAddr, direction: u16) -> netlink::MessageBuilder {
    let family = Family::of(&ip);
    let source = match family {
        Family::V4 => tuple::V4_SOURCE,
        Family::V6 => tuple::V6_SOURCE,
    };
    let mut payload = header(family, 0);
    payload.nest(direction, |ends| {
        ends.nest(tuple::IP, |address| {
            address.put_ip(source, ip);
        });
    });
    let flags = |wanted| if direction == wanted { filter::IP_SOURCE } else { 0 };
    payload.nest(flow::FILTER, |nest| {
        nest.put_u32(filter::ORIGINAL_FLAGS, flags(flow::ORIGINAL));
        nest.put_u32(filter::REPLY_FLAGS, flags(flow::REPLY));
    });
    payload
}

fn parse(payload: &[u8]) -> Option<Flow> {
    let fields = Attributes::after(payload, HEADER);
    let original = fields.get(flow::ORIGINAL)?;
    let flow = Flow {
        original: Ends::parse(original.nested())?,
        reply: Ends::parse(fields.get(flow::REPLY)?.nested())?,
        mark: fields.get(flow::MARK).map_or(Some(0), |mark| mark.be32())?,
        tuple: original.payload.to_vec(),
    };
    (zone(fields.get(flow::ZONE)) == Some(0)).then_some(flow)
}

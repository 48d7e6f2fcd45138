//! What others do to links, addresses, routes and rules, as it happens.
//!
//! Decided here: which rows a notification touches. What to do about it is the caller's: a row that is not desired any
//! more, or is as desired, needs nothing.
//!
//! The kernel names the socket that caused a change for IPv4 addresses, routes of both families and rules. It names none
//! (port 0) for IPv6 addresses, for most changes of links (which ones differs between kernels), and for what it does
//! itself as a consequence. Changes by our own sockets are left out; those with port 0 are passed on, ours among them.
//!
//! The kernel does not say everything: IPv4 routes that go because their link goes down, is removed or loses its last
//! IPv4 address, or because their preferred source address is removed, go in silence. After [`Event::LinkGone`], [`Event::LinkChanged`] to down and
//! [`Event::AddressGone`] of an address that routes prefer, the caller should read anew.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::thread;

use ipnet::IpNet;

use crate::netlink::socket::Message;
use crate::netlink::{Error, OwnPorts, flag, wait};
use crate::row::{Key, Name, PolicyRuleKey};

use super::kernel::{group, message, route as number};
use super::link::{by_index, links};
use super::socket::Rtnetlink;
use super::{RouteScope, address, fib, filter, is_host, link, policy_rule, route_key};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An address went away.
    AddressGone {
        /// From this link.
        link: Name,
        /// Address with prefix length.
        net: IpNet,
    },
    /// An address came, or its flags or lifetime changed.
    AddressNew {
        /// On this link.
        link: Name,
        /// Address with prefix length.
        net: IpNet,
    },
    /// A link went away, with everything on it.
    LinkGone {
        /// Its name.
        name: Name,
    },
    /// A link came or changed.
    LinkChanged {
        /// Its name.
        name: Name,
        /// Whether it is up now.
        up: bool,
        /// The bridge it is a port of now.
        master: Option<Name>,
    },
    /// A route that could be ours went away.
    RouteGone {
        /// Its key.
        key: Key,
    },
    /// A route was written over another (IPv4 only; IPv6 reports no difference to an addition).
    RouteReplaced {
        /// Its key.
        key: Key,
    },
    /// A rule that could be ours went away.
    RuleGone {
        /// Its key.
        rule: PolicyRuleKey,
    },
    /// Notifications were lost: read everything anew.
    Lost,
}

/// What happened and who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub event: Event,
    /// Port of the socket that caused it, 0 if the kernel does not say.
    pub port: u32,
}

impl Event {
    /// Rows that are not as they were: gone, unless something else says they are there.
    pub fn touched(&self) -> Vec<Key> {
        match self {
            Event::AddressGone { link, net } => {
                let mut keys = vec![Key::Address { link: link.clone(), net: *net }];
                if is_host(net) {
                    // When it comes back, the kernel puts its own route before or behind ours.
                    keys.push(route_key(number::TABLE_LOCAL, *net, Some(link)));
                }
                keys
            }
            Event::LinkGone { name } | Event::LinkChanged { name, .. } => {
                vec![Key::Link(name.clone()), Key::BridgePortHairpin(name.clone())]
            }
            Event::RouteGone { key } | Event::RouteReplaced { key } => vec![key.clone()],
            Event::RuleGone { rule } => vec![Key::PolicyRule(rule.clone())],
            Event::AddressNew { link, net } => vec![Key::Address { link: link.clone(), net: *net }],
            Event::Lost => Vec::new(),
        }
    }
}

/// Handle to the listening thread; dropping it ends the thread.
#[derive(Debug)]
pub struct Monitor {
    _open: PipeWriter,
}

impl Monitor {
    /// Starts listening in the calling thread's network namespace. When this returns, nothing that happens later is
    /// missed. `each` runs on the thread and must not block for long.
    ///
    /// # Errors
    /// When a socket cannot be opened or a thread not started.
    pub fn spawn(
        scope: RouteScope,
        own: OwnPorts,
        each: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Monitor, Error> {
        let listening = Rtnetlink::open()?;
        filter::attach(listening.as_raw_fd(), &scope).map_err(Error::Receive)?;
        let (closed, open) = io::pipe().map_err(Error::Receive)?;
        let asking = Rtnetlink::open()?;
        let mut listener = Listener { scope, own, names: HashMap::new(), listening, asking, each };
        for group in GROUPS {
            listener.listening.socket().subscribe(group)?;
        }
        listener.learn_names()?;
        thread::Builder::new()
            .name("route-monitor".to_owned())
            .spawn(move || listener.run(&closed))
            .map_err(Error::Receive)?;
        Ok(Monitor { _open: open })
    }
}

const GROUPS: [i32; 7] = [
    group::LINK,
    group::V4_ADDRESS,
    group::V6_ADDRESS,
    group::V4_ROUTE,
    group::V6_ROUTE,
    group::V4_RULE,
    group::V6_RULE,
];

/// The listening thread's state.
struct Listener<F> {
    scope: RouteScope,
    own: OwnPorts,
    /// Names of links by index; of those gone too, until an index is used again.
    names: HashMap<u32, Name>,
    listening: Rtnetlink,
    asking: Rtnetlink,
    each: F,
}

impl<F: FnMut(Notice)> Listener<F> {
    fn learn_names(&mut self) -> Result<(), Error> {
        self.names = links(&mut self.asking)?.into_iter().map(|link| (link.index, link.name)).collect();
        Ok(())
    }

    /// Listens until the other end of `closed` is dropped.
    fn run(mut self, closed: &PipeReader) {
        while wait(self.listening.as_raw_fd(), closed.as_raw_fd()) {
            let mut notices = Vec::new();
            let Listener { scope, own, names, listening, asking, .. } = &mut self;
            let mut unreadable = None;
            let outcome = listening.socket().notifications(|message| {
                if own.contains(message.port) {
                    learn(names, message);
                    return;
                }
                match read(message, scope, names, asking) {
                    Ok(Some(event)) => notices.push(Notice { event, port: message.port }),
                    Ok(None) => {}
                    Err(missing) => unreadable = Some(missing),
                }
            });
            if outcome.is_err() || unreadable.is_some() {
                // Whatever was lost, or could not be read, may have been about anything. Should even the names not be
                // there to ask for, each is asked for when it is needed.
                let _ = self.learn_names();
                notices.push(Notice { event: Event::Lost, port: 0 });
            }
            for notice in notices {
                (self.each)(notice);
            }
        }
    }
}

/// Keeps the names right across our own changes.
fn learn(names: &mut HashMap<u32, Name>, message: &Message<'_>) {
    if message.kind == message::NEW_LINK
        && let Ok(link) = link::parse(message.payload)
    {
        names.insert(link.index, link.name);
    }
}

/// What a notification says, if it is about something that could be ours. O(1).
fn read(
    message: &Message<'_>,
    scope: &RouteScope,
    names: &mut HashMap<u32, Name>,
    asking: &mut Rtnetlink,
) -> Result<Option<Event>, &'static str> {
    Ok(match message.kind {
        message::NEW_LINK | message::DELETE_LINK => Some(read_link(message, names, asking)?),
        message::NEW_ADDRESS | message::DELETE_ADDRESS => {
            let Some(found) = address::parse(message.payload)? else {
                return Ok(None);
            };
            let gone = message.kind == message::DELETE_ADDRESS;
            name_of(found.index, names, asking).map(|link| match gone {
                true => Event::AddressGone { link, net: found.net },
                false => Event::AddressNew { link, net: found.net },
            })
        }
        message::DELETE_ROUTE => {
            read_route(message, scope, names, asking)?.map(|key| Event::RouteGone { key })
        }
        message::NEW_ROUTE if message.flags & flag::REPLACE != 0 => {
            read_route(message, scope, names, asking)?.map(|key| Event::RouteReplaced { key })
        }
        message::DELETE_RULE => {
            policy_rule::parse(message.payload, scope)?.map(|rule| Event::RuleGone { rule })
        }
        _ => None,
    })
}

fn read_link(
    message: &Message<'_>,
    names: &mut HashMap<u32, Name>,
    asking: &mut Rtnetlink,
) -> Result<Event, &'static str> {
    let found = link::parse(message.payload)?;
    // A bridge reports its ports under a family of its own; there a deletion means the port left the bridge.
    let of_bridge = message.payload.first() == Some(&super::kernel::link::FAMILY_BRIDGE);
    names.insert(found.index, found.name.clone());
    if message.kind == message::DELETE_LINK {
        if !of_bridge {
            return Ok(Event::LinkGone { name: found.name });
        }
        return Ok(Event::LinkChanged { name: found.name, up: found.up, master: None });
    }
    let master = found.master.and_then(|index| name_of(index, names, asking));
    Ok(Event::LinkChanged { name: found.name, up: found.up, master })
}

fn read_route(
    message: &Message<'_>,
    scope: &RouteScope,
    names: &mut HashMap<u32, Name>,
    asking: &mut Rtnetlink,
) -> Result<Option<Key>, &'static str> {
    let Some(found) = fib::parse(message.payload)? else {
        return Ok(None);
    };
    let replaced = message.kind == message::NEW_ROUTE;
    let in_scope = match found.table {
        number::TABLE_LOCAL => is_host(&found.destination),
        number::TABLE_MAIN if replaced => true,
        table => scope.tables.contains(&table) || (found.route.protocol == scope.protocol),
    };
    if !in_scope {
        return Ok(None);
    }
    let link = found.out_link.and_then(|index| name_of(index, names, asking));
    if found.table == number::TABLE_LOCAL
        && !link.as_ref().is_some_and(|link| scope.address_links.contains(link))
    {
        return Ok(None);
    }
    Ok(Some(route_key(found.table, found.destination, link.as_ref())))
}

/// Name of a link, asked for where no notification told it.
fn name_of(index: u32, names: &mut HashMap<u32, Name>, asking: &mut Rtnetlink) -> Option<Name> {
    if let Some(name) = names.get(&index) {
        return Some(name.clone());
    }
    let name = by_index(asking, index).ok()??.name;
    names.insert(index, name.clone());
    Some(name)
}

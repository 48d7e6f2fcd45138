//! What others do to our tables, as it happens.
//!
//! Decided here: which lane should read anew. The kernel tells every change of nf_tables with the socket that made it;
//! those of our own sockets, and those of other tables, are left out. O(1) for each message. The tables of iptables' nft
//! flavour are followed in [`crate::iptables::monitor`].

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::thread;

use super::Names;
use super::wire::{HEADER, SUBSYSTEM, chain, message, rule};
use crate::netlink::attribute::Attributes;
use crate::netlink::socket::Message;
use crate::netlink::{Error, OwnPorts, Socket, wait};
use crate::row::Family;

/// `NFNLGRP_NFTABLES`
const GROUP: libc::c_int = 7;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`
const TABLE: u16 = 1;

/// What may not be as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Sets or their members.
    pub sets: bool,
    /// Chains, rules or verdict maps.
    pub rules: bool,
}

/// Handle to the listening thread; dropping it ends the thread.
#[derive(Debug)]
pub struct Monitor {
    _open: PipeWriter,
}

impl Monitor {
    /// Starts listening in the calling thread's network namespace. When this returns, nothing that happens later is
    /// missed; what came together is told together. `each` runs on the thread and must not block for long.
    ///
    /// # Errors
    /// When a socket cannot be opened or a thread not started.
    pub fn spawn(
        names: Names,
        own: OwnPorts,
        each: impl FnMut(Touched) + Send + 'static,
    ) -> Result<Monitor, Error> {
        let judge = move |told: &Message<'_>| match own.contains(told.port) {
            true => Touched::default(),
            false => touched_by(told, &names),
        };
        Monitor::follow(judge, each)
    }

    /// The same with any judgement of each message.
    pub(crate) fn follow(
        mut judge: impl FnMut(&Message<'_>) -> Touched + Send + 'static,
        mut each: impl FnMut(Touched) + Send + 'static,
    ) -> Result<Monitor, Error> {
        let mut listening = Socket::open(libc::NETLINK_NETFILTER)?;
        listening.subscribe(GROUP)?;
        let (closed, open) = io::pipe().map_err(Error::Receive)?;
        let run = move || listen(&mut listening, &closed, &mut judge, &mut each);
        thread::Builder::new().name("nft-monitor".to_owned()).spawn(run).map_err(Error::Receive)?;
        Ok(Monitor { _open: open })
    }
}

fn listen(
    listening: &mut Socket,
    closed: &PipeReader,
    judge: &mut dyn FnMut(&Message<'_>) -> Touched,
    each: &mut dyn FnMut(Touched),
) {
    while wait(listening.as_raw_fd(), closed.as_raw_fd()) {
        let mut touched = Touched::default();
        let heard = listening.notifications(|message| {
            let more = judge(message);
            touched = Touched { sets: touched.sets || more.sets, rules: touched.rules || more.rules };
        });
        if heard.is_err() {
            // Notifications were lost: they may have been about anything.
            touched = Touched { sets: true, rules: true };
        }
        if touched != Touched::default() {
            each(touched);
        }
    }
}

/// The family of the table that a message is about, if it is one of ours.
fn family_of(told: &Message<'_>) -> Option<Family> {
    match told.payload.first().copied().map(libc::c_int::from) {
        Some(libc::AF_INET) => Some(Family::V4),
        Some(libc::AF_INET6) => Some(Family::V6),
        _ => None,
    }
}

/// Table and chain of a change of a chain or of a rule, in either family of ours.
pub(crate) fn chain_of<'a>(told: &'a Message<'_>) -> Option<(&'a str, &'a str)> {
    family_of(told)?;
    let (table, name) = match told.kind {
        message::NEW_CHAIN | message::DELETE_CHAIN => (chain::TABLE, chain::NAME),
        message::NEW_RULE | message::DELETE_RULE => (rule::TABLE, rule::CHAIN),
        _ => return None,
    };
    let attributes = Attributes::after(told.payload, HEADER);
    let text = |kind| attributes.get(kind).and_then(|attribute| attribute.str());
    Some((text(table)?, text(name)?))
}

/// What a change of a table of ours concerns. Sets and verdict maps are told by their names, which are not known here.
fn touched_by(told: &Message<'_>, names: &Names) -> Touched {
    let Some(family) = family_of(told) else { return Touched::default() };
    let table = Attributes::after(told.payload, HEADER).get(TABLE);
    let ours = table.and_then(|table| table.str()) == Some(&**names.table(family));
    match told.kind {
        kind if !ours || kind >> 8 != u16::from(SUBSYSTEM) => Touched::default(),
        message::NEW_CHAIN | message::DELETE_CHAIN | message::NEW_RULE | message::DELETE_RULE => {
            Touched { sets: false, rules: true }
        }
        _ => Touched { sets: true, rules: true },
    }
}

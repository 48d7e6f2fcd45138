//! nftables, spoken natively: the second firewall backend.
//!
//! Sets, rules and verdict maps in one table of ours for each family, over nf_tables netlink; no program is started.
//! [`SetsLane`] and [`RulesLane`] take the rows that ipset and iptables take in the other backend, so no plan asks which
//! one is there, and verdict maps besides. A stage is one transaction: packets see all of it or nothing. Other tables
//! are looked at only to say who else drops packets ([`obstacles`]).
//!
//! Sources: `include/uapi/linux/netfilter/nf_tables.h`, `net/netfilter/nf_tables_api.c`, libnftnl.

mod cover;
mod expression;
mod kernel;
pub mod monitor;
mod names;
pub mod obstacles;
mod parse;
mod predecessor;
mod render;
mod rules;
mod sets;
mod shape;
mod transaction;
mod userdata;
mod wire;

use std::sync::Arc;

use crate::netlink::{Error, OwnPorts, Request, Requests, Socket};
use crate::row::{ChainKey, Family, FilterTable, Name};
use crate::rule::Rule;

pub use names::Names;
pub use predecessor::step_aside;
pub use rules::RulesLane;
pub use sets::SetsLane;
use transaction::{Outcomes, Transaction};

/// Whether nftables can say a rule of a chain, and would read it back as it is.
///
/// # Errors
/// Says what it cannot, or what it would read back.
pub fn check(rule: &Rule, chain: &ChainKey, service_ports: &Name) -> Result<(), String> {
    let (family, table) = (chain.family, chain.table);
    let context = render::Context { family, table, service_ports: service_ports.clone() };
    rules::written(rule, &context).map(drop)
}

/// Asks the kernel for nf_tables.
///
/// # Errors
/// When it has none, or does not let us at it.
pub fn try_kernel() -> Result<(), Error> {
    kernel::current_generation(Link::default().open()?).map(drop)
}

/// Names of the chains in the tables that iptables-nft writes to, of both families. O(chains).
///
/// # Errors
/// When nf_tables cannot be asked.
pub fn chains_of_iptables() -> Result<Vec<String>, Error> {
    let mut link = Link::default();
    let mut names = Vec::new();
    for family in Family::ALL {
        for table in FilterTable::ALL {
            let chains = kernel::chains(link.open()?, family, table.as_str())?;
            names.extend(chains.into_iter().map(|chain| chain.name));
        }
    }
    Ok(names)
}

/// Whether a table of ours is there, of either family.
///
/// # Errors
/// When nf_tables cannot be asked; a kernel without it has no table.
pub fn is_in_use(names: &Names) -> Result<bool, Error> {
    let mut link = Link::default();
    for family in Family::ALL {
        match kernel::has_table(link.open()?, family, names.table(family)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // Neither nf_tables nor, so, a table.
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Removes our tables with everything in them: first the chains by which packets come, then the rest. In one transaction
/// a packet that is in our rules by then would meet them with empty maps, and be refused.
///
/// # Errors
/// The first failure; a table that is not there is none.
pub fn remove(names: &Names) -> Result<(), Error> {
    let mut link = Link::default();
    let mut there = Vec::new();
    for family in Family::ALL {
        if kernel::has_table(link.open()?, family, names.table(family)).unwrap_or(false) {
            there.push((family, names.table(family)));
        }
    }
    for (family, table) in &there {
        let chains = kernel::chains(link.open()?, *family, table)?;
        let hooked = chains.iter().filter(|chain| chain.has_hook);
        let requests: Vec<_> = hooked
            .flat_map(|chain| {
                let (empty, delete) = (kernel::empty_chain, kernel::delete_chain);
                [empty(*family, table, &chain.name), delete(*family, table, &chain.name)]
            })
            .collect::<Result<_, _>>()?;
        in_one(link.open()?, &requests)?;
    }
    for (family, table) in there {
        in_one(link.open()?, &[kernel::delete_table(family, table)?])?;
    }
    Ok(())
}

/// Everything or nothing; the last thing refused says why.
fn in_one(socket: &mut Socket, requests: &[Request]) -> Result<(), Error> {
    if requests.is_empty() {
        return Ok(());
    }
    let refused = socket.transaction(wire::SUBSYSTEM, None, requests)?.pop();
    refused.map_or(Ok(()), |(_, error)| Err(error))
}

/// The socket, opened at first use.
#[derive(Debug, Default)]
struct Link {
    socket: Option<Socket>,
    requests: Arc<Requests>,
    ports: OwnPorts,
}

impl Link {
    fn open(&mut self) -> Result<&mut Socket, Error> {
        match self.socket {
            Some(ref mut socket) => Ok(socket),
            None => {
                let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
                socket.count_in(Arc::clone(&self.requests));
                self.ports.add(socket.port());
                Ok(self.socket.insert(socket))
            }
        }
    }

    fn commit(&mut self, transaction: Transaction, outcomes: &mut Outcomes) {
        if transaction.is_empty() {
            return;
        }
        match self.open() {
            Ok(socket) => transaction.commit(socket, outcomes),
            Err(error) => {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
                    *outcome = Some(Err(transaction::refusal("opening netfilter netlink", &error)));
                }
            }
        }
    }
}

/// Removes a table in which nothing is left; if somebody changes anything meanwhile, it stays. O(chains of the family).
fn sweep(link: &mut Link, family: Family, table: &str) {
    let removed = || -> Result<(), Error> {
        let socket = link.open()?;
        let Some(generation) = kernel::current_generation(socket)? else { return Ok(()) };
        let empty = kernel::chains(socket, family, table)?.is_empty()
            && kernel::sets(socket, family, table)?.is_empty();
        if empty {
            let requests = [kernel::delete_table(family, table)?];
            socket.transaction(wire::SUBSYSTEM, Some(generation), &requests)?;
        }
        Ok(())
    };
    // An empty table does nothing; the next sweep, or `--cleanup-config`, takes it.
    let mut removed = removed;
    drop(removed());
}

//! What a Go kube-router's nftables backend leaves in the tables that we use, too.
//!
//! It hooks the chains that with us are reached by a jump, and a chain cannot lose its hook. Replacing it and writing the jump
//! are two changes of different rows; between them nothing would be enforced. So the old chains are given other names
//! before anything is written: they stay in force, with all they jump to, until they are removed like any leftover, which
//! is when all of ours is there. Until then a packet has to please both.

use super::kernel;
use super::names::{Names, hook, key_of};
use super::{Link, in_one};
use crate::netlink::Error;
use crate::row::Family;

/// Renames chains of these tables that have a hook and a name that with us means a chain without one: `prefix` and the
/// chain's handle. Says how many. O(chains).
///
/// # Errors
/// The first failure; what could not be renamed is as it was.
pub fn step_aside(names: &Names, prefix: &str) -> Result<usize, Error> {
    let mut link = Link::default();
    let mut renamed = 0;
    for family in Family::ALL {
        let table = names.table(family);
        let chains = kernel::chains(link.open()?, family, table)?;
        let in_the_way = chains.iter().filter(|chain| {
            chain.has_hook && hook(&key_of(family, &chain.name)).is_none() && !chain.name.starts_with(prefix)
        });
        let requests: Vec<_> = in_the_way
            .map(|chain| {
                kernel::rename_chain(family, table, chain.handle, &format!("{prefix}{}", chain.handle))
            })
            .collect::<Result<_, _>>()?;
        in_one(link.open()?, &requests)?;
        renamed += requests.len();
    }
    Ok(renamed)
}

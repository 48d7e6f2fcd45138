//! Who else drops packets.
//!
//! Every table has its say: what ours accepts, another may still drop, and an accept of ours cannot prevent it, as one
//! before the rules of others can with iptables. Looked for: chains of other tables on the paths of pods that drop by
//! policy, or by a rule without a condition. What drops by a condition may well be meant.

use std::fmt;

use super::expression::{Expression, Verdict};
use super::wire::{HEADER, chain, message, rule};
use super::{Link, Names};
use crate::netlink::attribute::Attributes;
use crate::netlink::{Error, MessageBuilder, Request, Socket};

/// Families whose chains see the packets of pods: `ip`, `ip6`, and both in one.
const FAMILIES: [(u8, &str); 3] =
    [(libc::AF_INET as u8, "ip"), (libc::AF_INET6 as u8, "ip6"), (libc::NFPROTO_INET as u8, "inet")];
/// `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`
const HOOKS: [u32; 2] = [1, 2];
/// `NF_DROP`
const DROP: u32 = 0;

/// A chain that drops what we accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// As `nft` says it.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Whether its policy drops, rather than a rule in it.
    pub by_policy: bool,
}

impl Obstacle {
    /// What is wrong.
    pub fn what(&self) -> String {
        let Obstacle { family, table, chain, by_policy } = self;
        let how = if *by_policy { "by its policy" } else { "by a rule without a condition" };
        format!(
            "chain {chain} of table {family} {table} drops {how} what it does not accept itself, even if kube-router \
             accepts it"
        )
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        let Obstacle { family, table, chain, by_policy } = self;
        let mut remedy = "accept traffic of pods and services there".to_owned();
        if *by_policy {
            remedy += &format!(", or: nft chain {family} {table} {chain} '{{ policy accept; }}'");
        }
        remedy
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.remedy())
    }
}

/// All of them. O(chains and rules in nf_tables).
///
/// # Errors
/// When nf_tables cannot be asked.
pub fn find(names: &Names) -> Result<Vec<Obstacle>, Error> {
    let mut link = Link::default();
    let socket = link.open()?;
    let mut found = Vec::new();
    for (number, family) in FAMILIES {
        let ours = |table: &str| table == &*names.table_v4 || table == &*names.table_v6;
        let chains = dump(socket, number, message::GET_CHAIN, message::NEW_CHAIN, |fields| {
            let hook = fields.get(chain::HOOK)?.nested().get(chain::HOOK_NUMBER)?.be32()?;
            let filters = fields.get(chain::TYPE)?.str()? == "filter";
            let table = fields.get(chain::TABLE)?.str()?;
            let concerns_us = HOOKS.contains(&hook) && filters && !ours(table);
            let drops = fields.get(chain::POLICY).and_then(|policy| policy.be32()) == Some(DROP);
            concerns_us.then_some((table.to_owned(), fields.get(chain::NAME)?.str()?.to_owned(), drops))
        })?;
        let dropping = dump(socket, number, message::GET_RULE, message::NEW_RULE, |fields| {
            drops_everything(fields).then_some(())?;
            Some((fields.get(rule::TABLE)?.str()?.to_owned(), fields.get(rule::CHAIN)?.str()?.to_owned()))
        })?;
        for (table, chain, by_policy) in chains {
            if by_policy || dropping.contains(&(table.clone(), chain.clone())) {
                found.push(Obstacle { family, table, chain, by_policy });
            }
        }
    }
    Ok(found)
}

/// Whether a rule has no condition and ends in a drop.
fn drops_everything(fields: Attributes<'_>) -> bool {
    let list = fields.get(rule::EXPRESSIONS).map(|list| list.nested());
    let mut rest =
        list.into_iter().flatten().map(Expression::decode).filter(|one| *one != Some(Expression::Counter));
    let verdict = rest.next().flatten();
    let drops = matches!(verdict, Some(Expression::Verdict(Verdict::Drop) | Expression::Reject { .. }));
    drops && rest.next().is_none()
}

fn dump<T>(
    socket: &mut Socket,
    family: u8,
    get: u16,
    answer: u16,
    parse: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let request = Request::new(get, 0, MessageBuilder::new(&[family, 0, 0, 0]))?;
    socket.dump(&request, |kind, payload| {
        (kind == answer).then(|| parse(Attributes::after(payload, HEADER))).flatten()
    })
}

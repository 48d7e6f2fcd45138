//! What is asked of nf_tables: messages for objects, and dumps.
//!
//! Nothing is decided here; a dump is taken as it is. What is in a table that does not exist is nothing.

use std::rc::Rc;

use super::expression::{Expression, Verdict};
use super::names::Hook;
use super::shape::{End, Keys, Shape};
use super::transaction::{SetAddress, header};
use super::wire::{HEADER, chain, data, element, generation, message, rule, set, table};
use crate::netlink::attribute::Attributes;
use crate::netlink::{Error, MessageBuilder, Request, Socket, flag};
use crate::row::Family;

/// A chain in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundChain {
    pub(super) name: String,
    /// The kernel's number of it in its table.
    pub(super) handle: u64,
    /// Whether packets come by it themselves.
    pub(super) has_hook: bool,
}

/// A rule in the kernel: its chain, its expressions in order (`None` where one is not ours), and what is kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundRule {
    pub(super) chain: String,
    pub(super) expressions: Option<Vec<Expression>>,
    pub(super) userdata: Vec<u8>,
    /// What its expressions are called, for a rule that is not understood.
    pub(super) outline: String,
}

/// A set or map in the kernel; `shape` is `None` for a kind that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundSet {
    pub(super) name: String,
    pub(super) shape: Option<Shape>,
}

/// An element in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundElement {
    pub(super) key: Vec<u8>,
    pub(super) key_end: Option<Vec<u8>>,
    /// Whether it ends an interval.
    pub(super) ends: bool,
    pub(super) verdict: Option<Verdict>,
}

pub(super) fn new_table(family: Family, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(table::NAME, name);
    Request::new(message::NEW_TABLE, flag::CREATE, message)
}

pub(super) fn delete_table(family: Family, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(table::NAME, name);
    Request::new(message::DELETE_TABLE, 0, message)
}

/// Creates a chain, with a hook or without, if it is not there.
pub(super) fn new_chain(
    family: Family,
    table: &str,
    name: &str,
    hook: Option<Hook>,
) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(chain::TABLE, table).put_str(chain::NAME, name);
    if let Some(hook) = hook {
        message.nest(chain::HOOK, |nest| {
            nest.put_be32(chain::HOOK_NUMBER, hook.number);
            nest.put_be32(chain::HOOK_PRIORITY, hook.priority as u32);
        });
        message.put_str(chain::TYPE, hook.kind);
    }
    Request::new(message::NEW_CHAIN, flag::CREATE, message)
}

/// Gives a chain another name; whatever refers to it goes on to.
pub(super) fn rename_chain(family: Family, table: &str, handle: u64, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(chain::TABLE, table);
    message.put_be64(chain::HANDLE, handle);
    message.put_str(chain::NAME, name);
    Request::new(message::NEW_CHAIN, 0, message)
}

pub(super) fn delete_chain(family: Family, table: &str, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(chain::TABLE, table).put_str(chain::NAME, name);
    Request::new(message::DELETE_CHAIN, 0, message)
}

/// Removes every rule of a chain.
pub(super) fn empty_chain(family: Family, table: &str, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(rule::TABLE, table).put_str(rule::CHAIN, name);
    Request::new(message::DELETE_RULE, 0, message)
}

/// Appends a rule to a chain.
pub(super) fn new_rule(
    family: Family,
    table: &str,
    chain: &str,
    expressions: &[Expression],
    userdata: &[u8],
) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(rule::TABLE, table).put_str(rule::CHAIN, chain);
    message.nest(rule::EXPRESSIONS, |list| expressions.iter().for_each(|one| one.encode(list)));
    if !userdata.is_empty() {
        message.put(rule::USERDATA, userdata);
    }
    Request::new(message::NEW_RULE, flag::CREATE | flag::APPEND, message)
}

/// Creates a set or map if it is not there; `id` differs for each of a transaction.
pub(super) fn new_set(
    family: Family,
    table: &str,
    name: &str,
    shape: Shape,
    id: u32,
) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(set::TABLE, table).put_str(set::NAME, name).put_be32(set::ID, id);
    shape.describe(family, &mut message);
    Request::new(message::NEW_SET, flag::CREATE, message)
}

pub(super) fn delete_set(family: Family, table: &str, name: &str) -> Result<Request, Error> {
    let mut message = header(family);
    message.put_str(set::TABLE, table).put_str(set::NAME, name);
    Request::new(message::DELETE_SET, 0, message)
}

/// An element as it stands in a list of them: one, or two for an interval.
pub(super) fn element(keys: &Keys, verdict: Option<&Verdict>) -> Vec<u8> {
    let mut list = MessageBuilder::new(&[]);
    let value = |to: &mut MessageBuilder, kind, key: &[u8]| {
        to.nest(kind, |nest| {
            nest.put(data::VALUE, key);
        });
    };
    list.nest(1, |one| {
        value(one, element::KEY, &keys.start);
        if let Some(verdict) = verdict {
            one.nest(element::DATA, |nest| verdict.encode(nest));
        }
        if let Some(End::Last(last)) = &keys.end {
            value(one, element::KEY_END, last);
        }
    });
    if let Some(End::Behind(end)) = &keys.end {
        list.nest(1, |one| {
            value(one, element::KEY, end);
            one.put_be32(element::FLAGS, element::FLAG_INTERVAL_END);
        });
    }
    // Nothing here is near 64 KiB.
    list.finish().unwrap_or_default()
}

/// Chains of a table. O(chains of the family).
pub(super) fn chains(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<FoundChain>, Error> {
    dump(socket, message::GET_CHAIN, message::NEW_CHAIN, header(family), |fields| {
        (fields.get(chain::TABLE)?.str()? == table).then_some(())?;
        Some(FoundChain {
            name: fields.get(chain::NAME)?.str()?.to_owned(),
            handle: fields.get(chain::HANDLE)?.be64()?,
            has_hook: fields.get(chain::HOOK).is_some(),
        })
    })
}

/// Rules of a table, those of one chain in its order. O(rules of the table).
pub(super) fn rules(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<FoundRule>, Error> {
    let mut request = header(family);
    request.put_str(rule::TABLE, table);
    dump(socket, message::GET_RULE, message::NEW_RULE, request, |fields| {
        // Older kernels do not filter.
        (fields.get(rule::TABLE)?.str()? == table).then_some(())?;
        let list = fields.get(rule::EXPRESSIONS).map(|list| list.nested());
        let named =
            |one: crate::netlink::attribute::Attribute<'_>| one.nested().get(1)?.str().map(str::to_owned);
        let names: Vec<String> = list.into_iter().flatten().filter_map(named).collect();
        Some(FoundRule {
            chain: fields.get(rule::CHAIN)?.str()?.to_owned(),
            expressions: list.into_iter().flatten().map(Expression::decode).collect(),
            userdata: fields.get(rule::USERDATA).map(|data| data.payload.to_vec()).unwrap_or_default(),
            outline: names.join(" "),
        })
    })
}

/// Named sets and maps of a table. O(sets of the table).
pub(super) fn sets(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<FoundSet>, Error> {
    let mut request = header(family);
    request.put_str(set::TABLE, table);
    dump(socket, message::GET_SET, message::NEW_SET, request, |fields| {
        (fields.get(set::TABLE)?.str()? == table).then_some(())?;
        let flags = fields.get(set::FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
        (flags & set::FLAG_ANONYMOUS == 0).then_some(())?;
        let name = fields.get(set::NAME)?.str()?.to_owned();
        Some(FoundSet { name, shape: Shape::of(family, fields) })
    })
}

/// Elements of a set, in no order. O(elements).
pub(super) fn elements(socket: &mut Socket, set: &SetAddress) -> Result<Vec<FoundElement>, Error> {
    let mut request = header(set.family);
    request.put_str(element::LIST_TABLE, &set.table).put_str(element::LIST_SET, &set.name);
    let lists = dump(socket, message::GET_ELEMENT, message::NEW_ELEMENT, request, |fields| {
        let list = fields.get(element::LIST_ELEMENTS)?.nested();
        Some(list.filter_map(|one| found_element(one.nested())).collect::<Vec<_>>())
    })?;
    Ok(lists.into_iter().flatten().collect())
}

fn found_element(fields: Attributes<'_>) -> Option<FoundElement> {
    let value = |kind| Some(fields.get(kind)?.nested().get(data::VALUE)?.payload.to_vec());
    let flags = fields.get(element::FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
    Some(FoundElement {
        key: value(element::KEY)?,
        key_end: value(element::KEY_END),
        ends: flags & element::FLAG_INTERVAL_END != 0,
        verdict: fields.get(element::DATA).and_then(Verdict::decode),
    })
}

/// Whether a table is there. O(1).
pub(super) fn has_table(socket: &mut Socket, family: Family, name: &str) -> Result<bool, Error> {
    let mut message = header(family);
    message.put_str(table::NAME, name);
    match socket.ask(Request::new(message::GET_TABLE, 0, message)?) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The number of changes so far, by anybody in this network namespace.
pub(super) fn current_generation(socket: &mut Socket) -> Result<Option<u32>, Error> {
    let message = MessageBuilder::new(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
    let answers = socket.ask(Request::new(message::GET_GENERATION, 0, message)?)?;
    let number = |answer: &Vec<u8>| Attributes::after(answer, HEADER).get(generation::ID)?.be32();
    Ok(answers.iter().find_map(number))
}

/// The address of a set in a table.
pub(super) fn set_address(family: Family, table: &str, name: &str) -> SetAddress {
    SetAddress { family, table: Rc::from(table), name: Rc::from(name) }
}

fn dump<T>(
    socket: &mut Socket,
    get: u16,
    answer: u16,
    payload: MessageBuilder,
    parse: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let request = Request::new(get, 0, payload)?;
    let rows = socket.dump(&request, |kind, payload| {
        (kind == answer).then(|| parse(Attributes::after(payload, HEADER))).flatten()
    });
    match rows {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        rows => rows,
    }
}

//! Policy routing rules, between rows and messages.
//!
//! Normal form: the priority of a rule whose table is not among those with priorities of ours reads back as `None`,
//! since the kernel chose it. A rule that selects by anything but source prefix and mark is not expressible and never
//! ours.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{Attributes, Error, MessageBuilder, Request, flag};
use crate::row::{Family, PolicyRuleKey};

use super::RouteScope;
use super::kernel::{message, rule as number};
use super::socket::Rtnetlink;

/// Rules of one family that look up tables of `scope`, in order of priority. O(rules).
pub(super) fn dump(
    kernel: &mut Rtnetlink,
    of: Family,
    scope: &RouteScope,
) -> Result<Vec<PolicyRuleKey>, Error> {
    let wanted = of.number();
    let request = MessageBuilder::new(&[wanted, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let request = Request::new(message::GET_RULE, 0, request)?;
    kernel.dump(&request, |payload| match payload.first() {
        Some(family) if *family == wanted => parse(payload, scope),
        _ => Ok(None),
    })
}

/// Adds a rule; EEXIST if there is one like it.
pub(super) fn add(rule: &PolicyRuleKey) -> Result<Request, Error> {
    Request::new(message::NEW_RULE, flag::CREATE | flag::EXCL, body(rule))
}

/// Removes the first rule like it.
pub(super) fn delete(rule: &PolicyRuleKey) -> Result<Request, Error> {
    Request::new(message::DELETE_RULE, 0, body(rule))
}

/// Reads `RTM_NEWRULE` or `RTM_DELRULE`; `None` for rules that are not ours.
pub(super) fn parse(payload: &[u8], scope: &RouteScope) -> Result<Option<PolicyRuleKey>, &'static str> {
    let Some([family, to_length, from_length, tos, table, _, _, action, flags @ ..]) =
        payload.first_chunk::<{ number::HEADER }>()
    else {
        return Err("rule without a whole header");
    };
    let (family, any) = match i32::from(*family) {
        libc::AF_INET => (Family::V4, IpAddr::from([0; 4])),
        libc::AF_INET6 => (Family::V6, IpAddr::from([0; 16])),
        _ => return Ok(None),
    };
    let mut rule =
        PolicyRuleKey { family, priority: Some(0), from: None, mark: None, table: u32::from(*table) };
    let mut source = any;
    // FIB_RULE_INVERT and whatever selects beyond our two conditions.
    const INVERTED: u32 = 2;
    let mut foreign = *action != number::TO_TABLE
        || *to_length != 0
        || *tos != 0
        || u32::from_ne_bytes(*flags) & INVERTED != 0;
    for attribute in Attributes::after(payload, number::HEADER) {
        match attribute.kind {
            number::TABLE => rule.table = attribute.u32().unwrap_or(rule.table),
            number::PRIORITY => rule.priority = attribute.u32(),
            number::SOURCE => source = attribute.ip().ok_or("rule with an unreadable source")?,
            number::MARK => rule.mark = attribute.u32().filter(|mark| *mark != 0),
            number::MARK_MASK => foreign |= !matches!(attribute.u32(), Some(0 | u32::MAX)),
            number::SUPPRESS_PREFIX_LENGTH => foreign |= attribute.u32() != Some(u32::MAX),
            number::PAD | number::PROTOCOL => {}
            _ => foreign = true,
        }
    }
    if *from_length != 0 {
        rule.from =
            Some(IpNet::new(source, *from_length).map_err(|_| "rule with an impossible prefix length")?);
    }
    if foreign || !scope.tables.contains(&rule.table) {
        return Ok(None);
    }
    if !scope.tables_with_priority.contains(&rule.table) {
        rule.priority = None;
    }
    Ok(Some(rule))
}

fn body(rule: &PolicyRuleKey) -> MessageBuilder {
    let short = u8::try_from(rule.table).unwrap_or(0);
    let length = rule.from.map_or(0, |from| from.prefix_len());
    let header = [rule.family.number(), 0, length, 0, short, 0, 0, number::TO_TABLE, 0, 0, 0, 0];
    let mut request = MessageBuilder::new(&header);
    request.put_u32(number::TABLE, rule.table);
    if let Some(from) = rule.from {
        request.put_ip(number::SOURCE, from.network());
    }
    if let Some(mark) = rule.mark {
        request.put_u32(number::MARK, mark).put_u32(number::MARK_MASK, u32::MAX);
    }
    if let Some(priority) = rule.priority {
        request.put_u32(number::PRIORITY, priority);
    }
    request
}

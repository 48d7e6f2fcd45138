//! What ipset's own error codes mean (`include/uapi/linux/netfilter/ipset/ip_set.h`, `ip_set_hash.h`).

use crate::lane::Refusal;
use crate::netlink;

/// `IPSET_ERR_BUSY`: something, most often a rule, refers to the set.
pub const BUSY: i32 = 4100;
/// `IPSET_ERR_TYPE_MISMATCH`
pub const TYPE_MISMATCH: i32 = 4102;
/// `IPSET_ERR_HASH_FULL`
pub const HASH_FULL: i32 = 4352;

/// What a code above 4096 means; `None` for plain errnos and for codes newer than this table.
pub fn text(errno: i32) -> Option<&'static str> {
    Some(match errno {
        4097 => "the kernel does not understand the request (ipset protocol error)",
        4098 => "the kernel has no such set type (is the ip_set_hash_* module there?)",
        4099 => "the kernel's limit of sets is reached (ip_set module option max_sets)",
        4100 => "the set is in use by a rule or another set",
        4101 => "a set of the second name exists",
        4102 => "the sets are of different types",
        4103 => "it already exists",
        4104 => "the prefix length is not allowed in this set type",
        4105 => "the netmask is not allowed",
        4106 => "the set is of the other address family",
        4107 => "the set was created without timeout support",
        4108 => "the set is referred to by another set",
        4109 => "an IPv4 address was expected",
        4110 => "an IPv6 address was expected",
        4111 => "the set was created without counters",
        4112 => "the set was created without comments",
        4113 => "the mark mask is not allowed",
        4114 => "the set was created without skbinfo",
        4352 => "the set is full (maxelem)",
        4353 => "an element cannot be represented",
        4354 => "the protocol is not allowed in this set type",
        4355 => "a protocol is missing",
        4356 => "a range is not supported",
        4357 => "the range is not allowed",
        _ => return None,
    })
}

/// A refusal that says what was tried and what the kernel answered.
pub fn refusal(doing: &str, error: &netlink::Error) -> Refusal {
    match error.errno() {
        Some(errno) => match text(errno) {
            Some(said) => Refusal { reason: format!("{doing}: {said}"), errno: Some(errno) },
            None => Refusal::errno(doing, errno),
        },
        None => Refusal::new(format!("{doing}: {error}")),
    }
}

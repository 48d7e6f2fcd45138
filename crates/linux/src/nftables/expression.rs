//! Expressions: the instructions of a rule, as this program uses them, to and from netlink.
//!
//! A rule loads something into a register, compares it, and so on; the first comparison that fails ends the rule. Only
//! the forms written here are read; a rule with any other expression, or another form of these, is not understood as
//! a whole. Nothing is decided here.

use crate::netlink::attribute::{Attribute, MessageBuilder};
use crate::row::{Family, Name};

use super::wire::{data, rule};

/// Registers are 16 slots of four bytes; a value of n bytes takes n / 4 of them, rounded up.
pub(super) type Slot = u32;

/// `NFT_REG32_00`: how slots are written.
const FIRST_SLOT: u32 = 8;
/// `NFT_REG_1`: how the kernel shows a slot that begins a 16-byte register.
const FIRST_REGISTER: u32 = 1;
const SLOTS: u32 = 16;
const SLOTS_OF_A_REGISTER: u32 = 4;
/// `NFT_REG_VERDICT`
const VERDICT_REGISTER: u32 = 0;

/// `NFT_FIB_RESULT_ADDRTYPE`
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`
pub(super) const FIB_SOURCE: u32 = 1;
pub(super) const FIB_DESTINATION: u32 = 2;
/// `NF_NAT_RANGE_MAP_IPS`, set by the kernel whenever there is an address.
const NAT_ADDRESS: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
const NAT_RANDOM_FULLY: u32 = 0x10;
/// `NFT_LOOKUP_F_INV`
const LOOKUP_INVERTED: u32 = 1;

/// `NFT_CMP_*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
}

/// What becomes of a packet (`NF_*`, `NFT_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(Name),
    /// As a jump, but what the chain does not decide goes on where the present chain was called.
    Goto(Name),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads `NFT_META_*`.
    Meta { key: u32, to: Slot },
    /// Sets `NFT_META_*`.
    SetMeta { key: u32, from: Slot },
    /// Loads bytes of the packet.
    Payload { base: u32, offset: u32, length: u32, to: Slot },
    /// Loads `NFT_CT_*`; of the original direction where the key has directions.
    Conntrack { key: u32, of_original: bool, to: Slot },
    /// Loads the type (`RTN_*`) of an address.
    AddressType { of: u32, to: Slot },
    /// Goes on if a register compares so to a value.
    Compare { slot: Slot, how: Comparison, value: Vec<u8> },
    /// Goes on if a register is in a range, ends included.
    Range { slot: Slot, from: Vec<u8>, to: Vec<u8> },
    /// `register = (register & mask) ^ xor`
    Bitwise { slot: Slot, mask: Vec<u8>, xor: Vec<u8> },
    /// Goes on if a set holds what is in the register.
    Lookup { set: Name, slot: Slot, not: bool },
    /// Does what a map has for what is in the register.
    VerdictMap { map: Name, slot: Slot },
    /// Loads a value.
    Value { to: Slot, value: Vec<u8> },
    /// Ends the rule.
    Verdict(Verdict),
    /// Counts; how much is not of interest here.
    Counter,
    /// Goes on at most so often, in packets for each `seconds`.
    Limit { packets: u64, seconds: u64, burst: u32 },
    /// Hands the packet to an nflog group.
    Log { group: u16, prefix: Option<Name> },
    /// Refuses with an ICMP message: `NFT_REJECT_*` and code.
    Reject { kind: u32, code: u8 },
    /// Source NAT to the address in a register.
    SourceNat { family: Family, address: Slot, random_fully: bool },
    /// Source NAT to the address of the outgoing link.
    Masquerade { random_fully: bool },
}

impl Expression {
    /// Appends this to the list of a rule's expressions.
    pub(super) fn encode(&self, list: &mut MessageBuilder) {
        list.nest(rule::LIST_ELEMENT, |one| {
            one.put_str(1, self.name());
            one.nest(2, |fields| self.fields(fields));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Meta { .. } | Expression::SetMeta { .. } => "meta",
            Expression::Payload { .. } => "payload",
            Expression::Conntrack { .. } => "ct",
            Expression::AddressType { .. } => "fib",
            Expression::Compare { .. } => "cmp",
            Expression::Range { .. } => "range",
            Expression::Bitwise { .. } => "bitwise",
            Expression::Lookup { .. } | Expression::VerdictMap { .. } => "lookup",
            Expression::Value { .. } | Expression::Verdict(_) => "immediate",
            Expression::Counter => "counter",
            Expression::Limit { .. } => "limit",
            Expression::Log { .. } => "log",
            Expression::Reject { .. } => "reject",
            Expression::SourceNat { .. } => "nat",
            Expression::Masquerade { .. } => "masq",
        }
    }

    fn fields(&self, to: &mut MessageBuilder) {
        match self {
            Expression::Meta { key, to: slot } => {
                to.put_be32(1, register(*slot)).put_be32(2, *key);
            }
            Expression::SetMeta { key, from } => {
                to.put_be32(2, *key).put_be32(3, register(*from));
            }
            Expression::Payload { base, offset, length, to: slot } => {
                to.put_be32(1, register(*slot)).put_be32(2, *base);
                to.put_be32(3, *offset).put_be32(4, *length);
            }
            Expression::Conntrack { key, of_original, to: slot } => {
                to.put_be32(1, register(*slot)).put_be32(2, *key);
                if *of_original {
                    to.put_u8(3, 0); // IP_CT_DIR_ORIGINAL
                }
            }
            Expression::AddressType { of, to: slot } => {
                to.put_be32(1, register(*slot)).put_be32(2, FIB_ADDRESS_TYPE).put_be32(3, *of);
            }
            Expression::Compare { slot, how, value } => {
                to.put_be32(1, register(*slot)).put_be32(2, how.number());
                put_value(to, 3, value);
            }
            Expression::Range { slot, from, to: last } => {
                to.put_be32(1, register(*slot)).put_be32(2, 0);
                put_value(to, 3, from);
                put_value(to, 4, last);
            }
            Expression::Bitwise { slot, mask, xor } => {
                to.put_be32(1, register(*slot)).put_be32(2, register(*slot));
                to.put_be32(3, u32::try_from(mask.len()).unwrap_or(0));
                put_value(to, 4, mask);
                put_value(to, 5, xor);
            }
            Expression::Lookup { set, slot, not } => {
                to.put_str(1, set).put_be32(2, register(*slot));
                to.put_be32(5, if *not { LOOKUP_INVERTED } else { 0 });
            }
            Expression::VerdictMap { map, slot } => {
                to.put_str(1, map).put_be32(2, register(*slot)).put_be32(3, VERDICT_REGISTER);
            }
            Expression::Value { to: slot, value } => {
                to.put_be32(1, register(*slot));
                put_value(to, 2, value);
            }
            Expression::Verdict(verdict) => {
                to.put_be32(1, VERDICT_REGISTER);
                to.nest(2, |nest| verdict.encode(nest));
            }
            Expression::Counter => {
                to.put_be64(1, 0).put_be64(2, 0);
            }
            Expression::Limit { packets, seconds, burst } => {
                to.put_be64(1, *packets).put_be64(2, *seconds).put_be32(3, *burst);
            }
            Expression::Log { group, prefix } => {
                to.put_be16(1, *group);
                if let Some(prefix) = prefix {
                    to.put_str(2, prefix);
                }
            }
            Expression::Reject { kind, code } => {
                to.put_be32(1, *kind).put_u8(2, *code);
            }
            Expression::SourceNat { family, address, random_fully } => {
                let family = match family {
                    Family::V4 => libc::AF_INET,
                    Family::V6 => libc::AF_INET6,
                };
                to.put_be32(1, 0).put_be32(2, family as u32).put_be32(3, register(*address));
                if *random_fully {
                    to.put_be32(7, NAT_RANDOM_FULLY);
                }
            }
            Expression::Masquerade { random_fully } => {
                if *random_fully {
                    to.put_be32(1, NAT_RANDOM_FULLY);
                }
            }
        }
    }

    /// One element of a rule's list; `None` is anything not written by this module.
    pub(super) fn decode(one: Attribute<'_>) -> Option<Expression> {
        let name = one.nested().get(1)?.str()?;
        let fields = one.nested().get(2).map(|fields| fields.nested());
        let Some(fields) = fields else {
            return (name == "masq").then_some(Expression::Masquerade { random_fully: false });
        };
        let number = |kind| fields.get(kind)?.be32();
        let value = |kind| Some(fields.get(kind)?.nested().get(data::VALUE)?.payload.to_vec());
        let at = |kind| slot(number(kind)?);
        Some(match name {
            "meta" => match number(3) {
                None => Expression::Meta { key: number(2)?, to: at(1)? },
                Some(from) => Expression::SetMeta { key: number(2)?, from: slot(from)? },
            },
            "payload" => Expression::Payload {
                base: number(2)?,
                offset: number(3)?,
                length: number(4)?,
                to: fields.get(5).is_none().then(|| at(1))??,
            },
            "ct" => Expression::Conntrack {
                key: number(2)?,
                of_original: match fields.get(3) {
                    Some(direction) => direction.u8().filter(|direction| *direction == 0).map(|_| true)?,
                    None => false,
                },
                to: at(1)?,
            },
            "fib" if number(2)? == FIB_ADDRESS_TYPE => Expression::AddressType { of: number(3)?, to: at(1)? },
            "cmp" => Expression::Compare {
                slot: at(1)?,
                how: Comparison::from_number(number(2)?)?,
                value: value(3)?,
            },
            "range" if number(2)? == 0 => Expression::Range { slot: at(1)?, from: value(3)?, to: value(4)? },
            "bitwise" if number(6).unwrap_or(0) == 0 && number(1) == number(2) => {
                Expression::Bitwise { slot: at(1)?, mask: value(4)?, xor: value(5)? }
            }
            "lookup" => {
                let (named, slot, flags) = (fields.get(1)?.str()?.into(), at(2)?, number(5).unwrap_or(0));
                match (number(3), flags) {
                    (None, 0 | LOOKUP_INVERTED) => {
                        Expression::Lookup { set: named, slot, not: flags == LOOKUP_INVERTED }
                    }
                    (Some(VERDICT_REGISTER), 0) => Expression::VerdictMap { map: named, slot },
                    _ => return None,
                }
            }
            "immediate" => match (number(1)?, fields.get(2)?) {
                (VERDICT_REGISTER, verdict) => Expression::Verdict(Verdict::decode(verdict)?),
                (to, _) => Expression::Value { to: slot(to)?, value: value(2)? },
            },
            "counter" => Expression::Counter,
            "limit" if number(4).unwrap_or(0) == 0 && number(5).unwrap_or(0) == 0 => Expression::Limit {
                packets: fields.get(1)?.be64()?,
                seconds: fields.get(2)?.be64()?,
                burst: number(3)?,
            },
            "log" => Expression::Log {
                group: fields.get(1)?.be16()?,
                prefix: match fields.get(2) {
                    Some(prefix) => Some(prefix.str()?.into()),
                    None => None,
                },
            },
            "reject" => Expression::Reject { kind: number(1)?, code: fields.get(2)?.u8()? },
            "nat" if number(1)? == 0 && number(3) == number(4).or(number(3)) && number(5).is_none() => {
                let flags = number(7).unwrap_or(0);
                Expression::SourceNat {
                    family: match number(2)? as i32 {
                        libc::AF_INET => Family::V4,
                        libc::AF_INET6 => Family::V6,
                        _ => return None,
                    },
                    address: at(3)?,
                    random_fully: random_fully(flags & !NAT_ADDRESS)?,
                }
            }
            "masq" if number(2).is_none() => {
                Expression::Masquerade { random_fully: random_fully(number(1).unwrap_or(0))? }
            }
            _ => return None,
        })
    }
}

fn random_fully(flags: u32) -> Option<bool> {
    match flags {
        0 => Some(false),
        NAT_RANDOM_FULLY => Some(true),
        _ => None,
    }
}

impl Comparison {
    fn number(self) -> u32 {
        match self {
            Comparison::Equal => 0,
            Comparison::NotEqual => 1,
            Comparison::AtMost => 3,
            Comparison::AtLeast => 5,
        }
    }

    fn from_number(number: u32) -> Option<Comparison> {
        use Comparison::{AtLeast, AtMost, Equal, NotEqual};
        [Equal, NotEqual, AtMost, AtLeast].into_iter().find(|how| how.number() == number)
    }
}

impl Verdict {
    /// `NFTA_DATA_VERDICT`
    pub(super) fn encode(&self, to: &mut MessageBuilder) {
        let code: i32 = match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => -3,
            Verdict::Goto(_) => -4,
            Verdict::Return => -5,
        };
        to.nest(data::VERDICT, |verdict| {
            verdict.put_be32(data::VERDICT_CODE, code as u32);
            if let Verdict::Jump(chain) | Verdict::Goto(chain) = self {
                verdict.put_str(data::VERDICT_CHAIN, chain);
            }
        });
    }

    pub(super) fn decode(from: Attribute<'_>) -> Option<Verdict> {
        let verdict = from.nested().get(data::VERDICT)?.nested();
        let chain = || Some(verdict.get(data::VERDICT_CHAIN)?.str()?.into());
        Some(match verdict.get(data::VERDICT_CODE)?.be32()? as i32 {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -3 => Verdict::Jump(chain()?),
            -4 => Verdict::Goto(chain()?),
            -5 => Verdict::Return,
            _ => return None,
        })
    }
}

fn put_value(to: &mut MessageBuilder, kind: u16, value: &[u8]) {
    to.nest(kind, |nest| {
        nest.put(data::VALUE, value);
    });
}

fn register(slot: Slot) -> u32 {
    FIRST_SLOT + slot
}

/// The kernel shows slots that begin a register of 16 bytes by the register's number.
fn slot(register: u32) -> Option<Slot> {
    if (FIRST_REGISTER..FIRST_REGISTER + SLOTS / SLOTS_OF_A_REGISTER).contains(&register) {
        return Some((register - FIRST_REGISTER) * SLOTS_OF_A_REGISTER);
    }
    register.checked_sub(FIRST_SLOT).filter(|slot| *slot < SLOTS)
}

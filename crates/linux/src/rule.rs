//! Packet filter rules in one backend-neutral form.
//!
//! Decided here: what a rule can say. Not here: how it is written down; `iptables` renders and parses it, an
//! nftables rendering may do the same. A rule that one of our readers does not understand is kept as
//! [`Rule::Unknown`] with its text, so that it compares unequal to anything we would write.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::row::{Name, Protocol};

/// One rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A rule in our own terms.
    Known(Box<KnownRule>),
    /// Text as `iptables-save` prints it behind `-A CHAIN `.
    Unknown(Name),
}

/// Matches in the order they are written, then what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnownRule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// Comment (`-m comment --comment`), at most 255 bytes; `Some("")` is written and is what Go kube-router
    /// leaves on its masquerade rules.
    pub comment: Option<Name>,
    /// What happens to the packet.
    pub action: Action,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// `-s`, negated if `not`.
    Source {
        /// Prefix, host bits zero.
        net: IpNet,
        /// `!`
        not: bool,
    },
    /// `-d`
    Destination {
        /// Prefix, host bits zero.
        net: IpNet,
        /// `!`
        not: bool,
    },
    /// `-i`
    InLink(Name),
    /// `-o`
    OutLink(Name),
    /// `-p`
    Protocol(Protocol),
    /// `--dport` (needs a protocol match before it); inclusive range.
    DestinationPort(u16, u16),
    /// `-m multiport --dports first:last`, which tools print differently from `--dport`.
    DestinationPorts(u16, u16),
    /// `-p icmp --icmp-type`, `-p ipv6-icmp --icmpv6-type`: type number of the chain's family.
    IcmpType(u8),
    /// `-m set --match-set NAME dirs`
    Set {
        /// Set name without family prefix.
        name: Name,
        /// A direction for each dimension.
        directions: Vec<Direction>,
        /// `!`
        not: bool,
    },
    /// `-m mark --mark value/mask`
    Mark {
        /// Value.
        value: u32,
        /// Mask.
        mask: u32,
        /// `!`
        not: bool,
    },
    /// `-m connmark --mark value/mask`: the mark of the packet's tracked flow; an untracked packet has none and never
    /// matches, negated or not.
    ConnectionMark {
        /// Value.
        value: u32,
        /// Mask.
        mask: u32,
        /// `!`
        not: bool,
    },
    /// `-m conntrack --ctstate`
    ConntrackState(Vec<ConntrackState>),
    /// `-m addrtype --src-type/--dst-type LOCAL`
    LocalAddress {
        /// Of source or destination.
        direction: Direction,
        /// `!`
        not: bool,
    },
    /// `-m ipvs`: the connection goes through a virtual server.
    Ipvs(IpvsMatch),
    /// `-m physdev --physdev-is-bridged`
    Bridged,
    /// `-m limit --limit N/minute --limit-burst B`
    Limit {
        /// Packets a minute.
        per_minute: u32,
        /// Burst.
        burst: u32,
    },
}

/// Conditions on the IPVS connection of a packet (`xt_ipvs`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpvsMatch {
    /// `--ipvs`: belongs to an IPVS connection at all.
    pub ipvs: bool,
    /// `--vproto`
    pub protocol: Option<Protocol>,
    /// `--vaddr`
    pub address: Option<IpNet>,
    /// `--vport`
    pub port: Option<u16>,
    /// `--vdir ORIGINAL`
    pub original_direction: bool,
    /// `--vmethod MASQ`
    pub masquerade: bool,
}

/// Direction of an address or set dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Direction {
    Source,
    Destination,
}

/// Connection tracking states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum ConntrackState {
    Invalid,
    New,
    Related,
    Established,
}

/// What a matching rule does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `-j ACCEPT`
    Accept,
    /// `-j DROP`
    Drop,
    /// `-j RETURN`
    Return,
    /// `-j REJECT --reject-with icmp-port-unreachable` (icmp6- for IPv6), which is also the default.
    Reject,
    /// `-j CHAIN`
    Jump(Name),
    /// `ip saddr vmap @MAP`: goes to the chain the map has for one of the packet's addresses; without an entry the next
    /// rule is looked at. When that chain returns, so does the one this rule is in. nftables only.
    VerdictMap {
        /// Name of the map.
        map: Name,
        /// Which address is looked up.
        of: Direction,
    },
    /// `-j MARK --set-xmark value/mask`
    Mark {
        /// Bits to set.
        value: u32,
        /// Bits to clear first.
        mask: u32,
    },
    /// `-j SNAT --to-source ADDR [--random-fully]`
    SourceNat {
        /// New source.
        to: IpAddr,
        /// `--random-fully`
        random_fully: bool,
    },
    /// `-j MASQUERADE [--random-fully]`
    Masquerade {
        /// `--random-fully`
        random_fully: bool,
    },
    /// `-j NFLOG --nflog-group N`
    Log {
        /// nflog group.
        group: u16,
        /// Prefix, at most 63 bytes.
        prefix: Option<Name>,
    },
}

impl Match {
    /// Place in a rule's text: addresses, links and protocol come first, in this order; `physdev` and `ipvs` stand
    /// before the comment; the others behind it, in the order they were given.
    fn rank(&self) -> u8 {
        match self {
            Match::Source { .. } => 0,
            Match::Destination { .. } => 1,
            Match::InLink(_) => 2,
            Match::OutLink(_) => 3,
            Match::Protocol(_) => 4,
            Match::Bridged | Match::Ipvs(_) => 5,
            _ => 6,
        }
    }

    /// Whether it is an address match that every address fulfils, which the kernel does not keep.
    pub fn is_always_true(&self) -> bool {
        matches!(
            self,
            Match::Source { net, not: false } | Match::Destination { net, not: false } if net.prefix_len() == 0
        )
    }
}

impl Rule {
    /// A rule without a comment, its matches in the order every iptables prints them: what it reads back as is
    /// what was written.
    pub fn new(matches: impl Into<Vec<Match>>, action: Action) -> Rule {
        let mut matches = matches.into();
        matches.retain(|condition| !condition.is_always_true());
        matches.sort_by_key(Match::rank);
        for condition in &mut matches {
            match condition {
                Match::Ipvs(ipvs) => ipvs.ipvs = true, // every other condition of this match implies it
                Match::ConntrackState(states) => {
                    states.sort();
                    states.dedup();
                }
                _ => {}
            }
        }
        Rule::Known(Box::new(KnownRule { matches, comment: None, action }))
    }

    /// The same rule with a comment.
    pub fn comment(self, text: &str) -> Rule {
        match self {
            Rule::Known(mut rule) => {
                rule.comment = Some(Name::from(text));
                Rule::Known(rule)
            }
            unknown => unknown,
        }
    }

    /// Names of the sets this rule looks into.
    pub fn sets(&self) -> impl Iterator<Item = &Name> {
        let matches = match self {
            Rule::Known(rule) => rule.matches.as_slice(),
            Rule::Unknown(_) => &[],
        };
        matches.iter().filter_map(|condition| match condition {
            Match::Set { name, .. } => Some(name),
            _ => None,
        })
    }

    /// Name of the verdict map this rule looks into.
    pub fn verdict_map(&self) -> Option<&Name> {
        match self {
            Rule::Known(rule) => match &rule.action {
                Action::VerdictMap { map, .. } => Some(map),
                _ => None,
            },
            Rule::Unknown(_) => None,
        }
    }

    /// The chain this rule jumps to.
    pub fn jump_target(&self) -> Option<&Name> {
        match self {
            Rule::Known(rule) => match &rule.action {
                Action::Jump(chain) => Some(chain),
                _ => None,
            },
            Rule::Unknown(_) => None,
        }
    }
}

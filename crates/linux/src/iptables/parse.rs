//! Text of `iptables-save` to rule.
//!
//! Decided here: what each option means. Anything not understood, down to one option, makes the whole rule
//! [`Rule::Unknown`]; nothing is guessed. A comment is accepted at any place among the matches, because other
//! programs put it elsewhere and it changes nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use super::render::{LIMIT_BURST, LIMIT_UNITS};
use crate::ipset::V6_PREFIX;
use crate::row::{Family, Name, Protocol};
use crate::rule::{Action, ConntrackState, Direction, IpvsMatch, KnownRule, Match, Rule};

/// The rule of the text behind `-A CHAIN `. O(length).
pub fn parse(text: &str, family: Family) -> Rule {
    known(text, family).map_or_else(|| Rule::Unknown(Name::from(text)), |rule| Rule::Known(Box::new(rule)))
}

/// The chain or target behind `-j` or `-g`, of any rule at all.
pub fn target(text: &str) -> Option<String> {
    let words = words(text)?;
    let at = words.iter().position(|word| !word.quoted && (word.text == "-j" || word.text == "-g"))?;
    words.get(at + 1).map(|word| word.text.clone())
}

#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

/// Splits at blanks; double quotes group, a backslash takes the next character as it is.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut inside = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' if !inside => words.extend(current.take()),
            '"' => {
                inside = !inside;
                current.get_or_insert_with(|| Word { text: String::new(), quoted: true }).quoted = true;
            }
            c => {
                let word = current.get_or_insert_with(|| Word { text: String::new(), quoted: false });
                word.text.push(if c == '\\' { characters.next()? } else { c });
            }
        }
    }
    words.extend(current);
    (!inside).then_some(words)
}

/// A cursor over the words of one rule.
struct Words<'a> {
    rest: &'a [Word],
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.first().filter(|word| !word.quoted).map(|word| word.text.as_str())
    }

    fn value(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(&word.text)
    }

    /// Takes the next word if it is `option`.
    fn take(&mut self, option: &str) -> bool {
        let found = self.peek() == Some(option);
        if found {
            self.value();
        }
        found
    }

    /// Value of `option` if that is what comes next; `None` inside when its value is missing.
    fn option(&mut self, option: &str) -> Option<Option<&'a str>> {
        self.take(option).then(|| self.value())
    }
}

fn known(text: &str, family: Family) -> Option<KnownRule> {
    let words = words(text)?;
    let mut words = Words { rest: &words };
    let mut rule = KnownRule { matches: Vec::new(), comment: None, action: Action::Accept };
    let mut icmp = false;
    while let Some(word) = words.value() {
        let not = word == "!";
        let word = if not { words.value()? } else { word };
        match word {
            "-s" => rule.matches.push(Match::Source { net: network(words.value()?)?, not }),
            "-d" => rule.matches.push(Match::Destination { net: network(words.value()?)?, not }),
            _ if not => return None,
            "-i" => rule.matches.push(Match::InLink(words.value()?.into())),
            "-o" => rule.matches.push(Match::OutLink(words.value()?.into())),
            "-p" => match (words.value()?, family) {
                ("tcp", _) => rule.matches.push(Match::Protocol(Protocol::Tcp)),
                ("udp", _) => rule.matches.push(Match::Protocol(Protocol::Udp)),
                ("sctp", _) => rule.matches.push(Match::Protocol(Protocol::Sctp)),
                ("icmp", Family::V4) | ("ipv6-icmp", Family::V6) => icmp = true,
                _ => return None,
            },
            "-m" => match words.value()? {
                "comment" if rule.comment.is_none() => {
                    rule.comment = Some(words.option("--comment")??.into());
                }
                module => rule.matches.push(extension(module, &mut words, &rule.matches, family)?),
            },
            "-j" => {
                rule.action = action(&mut words, family)?;
                let typed = rule.matches.iter().filter(|one| matches!(one, Match::IcmpType(_))).count();
                let complete = words.rest.is_empty() && typed == usize::from(icmp);
                return complete.then_some(rule);
            }
            _ => return None,
        }
    }
    None
}

fn network(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok()?;
    (net.trunc() == net).then_some(net)
}

fn extension(module: &str, words: &mut Words<'_>, before: &[Match], family: Family) -> Option<Match> {
    let not = words.take("!");
    Some(match module {
        "set" => {
            let name = words.option("--match-set")??;
            let name = match family {
                Family::V4 => name,
                Family::V6 => name.strip_prefix(V6_PREFIX)?,
            };
            let directions = words.value()?.split(',').map(direction).collect::<Option<Vec<_>>>()?;
            Match::Set { name: name.into(), directions, not }
        }
        "mark" => {
            let (value, mask) = marked(words.option("--mark")??, Some(u32::MAX))?;
            Match::Mark { value, mask, not }
        }
        "connmark" => {
            let (value, mask) = marked(words.option("--mark")??, Some(u32::MAX))?;
            Match::ConnectionMark { value, mask, not }
        }
        "addrtype" => {
            let source = words.take("--src-type");
            if !source && !words.take("--dst-type") || words.value()? != "LOCAL" {
                return None;
            }
            Match::LocalAddress {
                direction: if source { Direction::Source } else { Direction::Destination },
                not,
            }
        }
        _ if not => return None,
        "tcp" | "udp" | "sctp" => {
            let same = |one: &Match| matches!(one, Match::Protocol(protocol) if protocol.as_str() == module);
            let (first, last) = ports(words.option("--dport")??)?;
            before.iter().any(same).then_some(Match::DestinationPort(first, last))?
        }
        "multiport" => {
            let (first, last) = ports(words.option("--dports")??)?;
            Match::DestinationPorts(first, last)
        }
        "icmp" if family == Family::V4 => Match::IcmpType(words.option("--icmp-type")??.parse().ok()?),
        "icmp6" if family == Family::V6 => Match::IcmpType(words.option("--icmpv6-type")??.parse().ok()?),
        "conntrack" => {
            let states = words.option("--ctstate")??.split(',').map(state).collect::<Option<_>>()?;
            Match::ConntrackState(states)
        }
        "ipvs" => Match::Ipvs(ipvs(words)?),
        "physdev" => words.take("--physdev-is-bridged").then_some(Match::Bridged)?,
        "limit" => {
            let per_minute = per_minute(words.option("--limit")??)?;
            let burst = match words.option("--limit-burst") {
                Some(burst) => burst?.parse().ok()?,
                None => LIMIT_BURST,
            };
            Match::Limit { per_minute, burst }
        }
        _ => return None,
    })
}

fn ipvs(words: &mut Words<'_>) -> Option<IpvsMatch> {
    // Every one of these conditions holds only for packets of an IPVS connection.
    let mut ipvs = IpvsMatch { ipvs: true, ..IpvsMatch::default() };
    while let Some(option) = words.peek().filter(|option| option.starts_with("--")) {
        words.value();
        match option {
            "--ipvs" => {}
            "--vproto" => ipvs.protocol = Some(Protocol::from_number(words.value()?.parse().ok()?)?),
            "--vaddr" => ipvs.address = Some(address_or_network(words.value()?)?),
            "--vport" => ipvs.port = Some(words.value()?.parse().ok()?),
            "--vdir" if words.value()? == "ORIGINAL" => ipvs.original_direction = true,
            "--vmethod" if words.value()? == "MASQ" => ipvs.masquerade = true,
            _ => return None,
        }
    }
    Some(ipvs)
}

fn address_or_network(text: &str) -> Option<IpNet> {
    network(text).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn action(words: &mut Words<'_>, family: Family) -> Option<Action> {
    Some(match words.value()? {
        "ACCEPT" => Action::Accept,
        "DROP" => Action::Drop,
        "RETURN" => Action::Return,
        "REJECT" => match (words.option("--reject-with")??, family) {
            ("icmp-port-unreachable", Family::V4) | ("icmp6-port-unreachable", Family::V6) => Action::Reject,
            _ => return None,
        },
        "MARK" => {
            let (value, mask) = marked(words.option("--set-xmark")??, None)?;
            Action::Mark { value, mask }
        }
        "SNAT" => {
            let to = words.option("--to-source")??.parse().ok()?;
            Action::SourceNat { to, random_fully: words.take("--random-fully") }
        }
        "MASQUERADE" => Action::Masquerade { random_fully: words.take("--random-fully") },
        "NFLOG" => {
            let prefix = match words.option("--nflog-prefix") {
                Some(prefix) => Some(prefix?.into()),
                None => None,
            };
            let group = match words.option("--nflog-group") {
                Some(group) => group?.parse().ok()?,
                None => 0,
            };
            Action::Log { group, prefix }
        }
        // A target of options is an extension this module does not know; the caller sees what is left over.
        chain => Action::Jump(chain.into()),
    })
}

fn direction(text: &str) -> Option<Direction> {
    match text {
        "src" => Some(Direction::Source),
        "dst" => Some(Direction::Destination),
        _ => None,
    }
}

fn state(text: &str) -> Option<ConntrackState> {
    use ConntrackState::{Established, Invalid, New, Related};
    [Invalid, New, Related, Established].into_iter().find(|state| super::render::state_name(*state) == text)
}

fn ports(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

fn marked(text: &str, default_mask: Option<u32>) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((hexadecimal(value)?, hexadecimal(mask)?)),
        None => Some((hexadecimal(text)?, default_mask?)),
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Packets a minute, if the rate is a whole number of them.
fn per_minute(text: &str) -> Option<u32> {
    let (count, unit) = text.split_once('/')?;
    let (_, scale) = LIMIT_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let period = scale.checked_div(count.parse().ok()?)?;
    let minute = LIMIT_UNITS.into_iter().find(|(name, _)| *name == "min")?.1;
    let count = minute.checked_div(period)?;
    (count > 0 && minute.checked_div(count)? == period).then_some(count)
}

//! Rule to text, exactly as `iptables-save` prints it.
//!
//! The order is iptables' own: addresses, links and protocol first, then matches as written. The comment stands
//! before the other matches but behind `physdev` and `ipvs`, where Go kube-router puts it, so that rules it left
//! behind are equal in text too. Sources: `iptables/iptables.c`, `extensions/libxt_*.c` of iptables 1.8.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::ipset::V6_PREFIX;
use crate::row::{Family, Protocol};
use crate::rule::{Action, ConntrackState, Direction, IpvsMatch, KnownRule, Match, Rule};

/// `XT_LIMIT_SCALE`: a rate is kept as ten-thousandths of a second between packets.
const LIMIT_SCALE: u32 = 10_000;
/// Units `--limit` is printed in, coarsest first.
pub(super) const LIMIT_UNITS: [(&str, u32); 4] = [
    ("day", LIMIT_SCALE * 86_400),
    ("hour", LIMIT_SCALE * 3_600),
    ("min", LIMIT_SCALE * 60),
    ("sec", LIMIT_SCALE),
];
/// `XT_LIMIT_BURST`, not printed.
pub(super) const LIMIT_BURST: u32 = 5;

/// The text behind `-A CHAIN `.
pub fn render(rule: &Rule, family: Family) -> String {
    match rule {
        Rule::Unknown(text) => text.to_string(),
        Rule::Known(rule) => known(rule, family),
    }
}

fn known(rule: &KnownRule, family: Family) -> String {
    let mut text = String::with_capacity(160);
    for condition in &rule.matches {
        header(&mut text, condition, family);
    }
    let before_comment = |condition: &&Match| matches!(condition, Match::Bridged | Match::Ipvs(_));
    let mut protocol = "tcp";
    for condition in &rule.matches {
        if let Match::Protocol(named) = condition {
            protocol = named.as_str();
        }
    }
    for condition in rule.matches.iter().filter(before_comment) {
        extension(&mut text, condition, protocol, family);
    }
    if let Some(comment) = &rule.comment {
        text.push_str(" -m comment --comment");
        quoted(&mut text, comment);
    }
    for condition in rule.matches.iter().filter(|condition| !before_comment(condition)) {
        extension(&mut text, condition, protocol, family);
    }
    action(&mut text, &rule.action, family);
    text.split_off(1.min(text.len()))
}

/// Writes to a string cannot fail.
macro_rules! put {
    ($text:expr, $($arg:tt)*) => {{ let _ = write!($text, $($arg)*); }};
}

fn header(text: &mut String, condition: &Match, family: Family) {
    match condition {
        always if always.is_always_true() => {}
        Match::Source { net, not } => network(text, "-s", net, *not),
        Match::Destination { net, not } => network(text, "-d", net, *not),
        Match::InLink(link) => put!(text, " -i {link}"),
        Match::OutLink(link) => put!(text, " -o {link}"),
        Match::Protocol(protocol) => put!(text, " -p {protocol}"),
        Match::IcmpType(_) => text.push_str(match family {
            Family::V4 => " -p icmp",
            Family::V6 => " -p ipv6-icmp",
        }),
        _ => {}
    }
}

fn extension(text: &mut String, condition: &Match, protocol: &str, family: Family) {
    match condition {
        Match::Source { .. } | Match::Destination { .. } | Match::Protocol(_) => {}
        Match::InLink(_) | Match::OutLink(_) => {}
        Match::DestinationPort(first, last) => {
            put!(text, " -m {protocol} --dport");
            ports(text, *first, *last);
        }
        Match::DestinationPorts(first, last) => {
            text.push_str(" -m multiport --dports");
            ports(text, *first, *last);
        }
        Match::IcmpType(kind) => match family {
            Family::V4 => put!(text, " -m icmp --icmp-type {kind}"),
            Family::V6 => put!(text, " -m icmp6 --icmpv6-type {kind}"),
        },
        Match::Set { name, directions, not } => {
            let prefix = if family == Family::V6 { V6_PREFIX } else { "" };
            let directions: Vec<&str> = directions
                .iter()
                .map(|direction| match direction {
                    Direction::Source => "src",
                    Direction::Destination => "dst",
                })
                .collect();
            put!(text, " -m set{} --match-set {prefix}{name} {}", negation(*not), directions.join(","));
        }
        Match::Mark { value, mask, not } => marked(text, "mark", *value, *mask, *not),
        Match::ConnectionMark { value, mask, not } => marked(text, "connmark", *value, *mask, *not),
        Match::ConntrackState(states) => {
            let ordered: BTreeSet<&ConntrackState> = states.iter().collect();
            let states: Vec<&str> = ordered.into_iter().map(|state| state_name(*state)).collect();
            put!(text, " -m conntrack --ctstate {}", states.join(","));
        }
        Match::LocalAddress { direction, not } => {
            let side = match direction {
                Direction::Source => "src",
                Direction::Destination => "dst",
            };
            put!(text, " -m addrtype{} --{side}-type LOCAL", negation(*not));
        }
        Match::Ipvs(ipvs) => ipvs_match(text, ipvs),
        Match::Bridged => text.push_str(" -m physdev --physdev-is-bridged"),
        Match::Limit { per_minute, burst } => {
            put!(text, " -m limit --limit {}", rate(*per_minute));
            if *burst != LIMIT_BURST {
                put!(text, " --limit-burst {burst}");
            }
        }
    }
}

fn marked(text: &mut String, module: &str, value: u32, mask: u32, not: bool) {
    put!(text, " -m {module}{} --mark {value:#x}", negation(not));
    if mask != u32::MAX {
        put!(text, "/{mask:#x}");
    }
}

fn ipvs_match(text: &mut String, ipvs: &IpvsMatch) {
    text.push_str(" -m ipvs");
    let IpvsMatch { ipvs: _, protocol, address, port, original_direction, masquerade } = ipvs;
    // libxt_ipvs prints --ipvs only when nothing else is asked; everything else implies it.
    let bare = protocol.is_none() && address.is_none() && port.is_none();
    if bare && !original_direction && !masquerade {
        text.push_str(" --ipvs");
    }
    if let Some(protocol) = protocol {
        put!(text, " --vproto {}", Protocol::number(*protocol));
    }
    if let Some(net) = address {
        put!(text, " --vaddr {}", address_text(net.addr()));
        if net.prefix_len() < net.max_prefix_len() {
            put!(text, "/{}", net.prefix_len());
        }
    }
    if let Some(port) = port {
        put!(text, " --vport {port}");
    }
    if *original_direction {
        text.push_str(" --vdir ORIGINAL");
    }
    if *masquerade {
        text.push_str(" --vmethod MASQ");
    }
}

fn action(text: &mut String, action: &Action, family: Family) {
    let fully = |random_fully: bool| if random_fully { " --random-fully" } else { "" };
    match action {
        Action::Accept => text.push_str(" -j ACCEPT"),
        Action::Drop => text.push_str(" -j DROP"),
        Action::Return => text.push_str(" -j RETURN"),
        Action::Reject => text.push_str(match family {
            Family::V4 => " -j REJECT --reject-with icmp-port-unreachable",
            Family::V6 => " -j REJECT --reject-with icmp6-port-unreachable",
        }),
        Action::Jump(chain) => put!(text, " -j {chain}"),
        // Nothing iptables reads, so `check` refuses the rule.
        Action::VerdictMap { map, .. } => put!(text, " -j VMAP --map {map}"),
        Action::Mark { value, mask } => put!(text, " -j MARK --set-xmark {value:#x}/{mask:#x}"),
        Action::SourceNat { to, random_fully } => {
            put!(text, " -j SNAT --to-source {}{}", address_text(*to), fully(*random_fully));
        }
        Action::Masquerade { random_fully } => put!(text, " -j MASQUERADE{}", fully(*random_fully)),
        Action::Log { group, prefix } => {
            text.push_str(" -j NFLOG");
            if let Some(prefix) = prefix {
                text.push_str(" --nflog-prefix");
                quoted(text, prefix);
            }
            if *group != 0 {
                put!(text, " --nflog-group {group}");
            }
        }
    }
}

fn network(text: &mut String, option: &str, net: &IpNet, not: bool) {
    put!(text, "{} {option} {}/{}", negation(not), address_text(net.addr()), net.prefix_len());
}

fn negation(not: bool) -> &'static str {
    if not { " !" } else { "" }
}

fn ports(text: &mut String, first: u16, last: u16) {
    put!(text, " {first}");
    if first != last {
        put!(text, ":{last}");
    }
}

pub(super) fn state_name(state: ConntrackState) -> &'static str {
    match state {
        ConntrackState::Invalid => "INVALID",
        ConntrackState::New => "NEW",
        ConntrackState::Related => "RELATED",
        ConntrackState::Established => "ESTABLISHED",
    }
}

/// As `inet_ntop` of the C library writes it: unlike Rust, it shows `::a.b.c.d` for addresses below 2^32.
pub(super) fn address_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) if is_v4_compatible(ip) => {
            let [.., a, b, c, d] = ip.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        ip => ip.to_string(),
    }
}

fn is_v4_compatible(ip: Ipv6Addr) -> bool {
    let number = u128::from(ip);
    number >= 0x1_0000 && number <= u128::from(u32::MAX)
}

/// `print_rate` of libxt_limit: the coarsest unit that loses least.
fn rate(per_minute: u32) -> String {
    let period = (LIMIT_SCALE * 60).checked_div(per_minute).unwrap_or(0).max(1);
    let mut chosen = LIMIT_UNITS.first().copied().unwrap_or(("day", 1));
    for unit in LIMIT_UNITS.into_iter().skip(1) {
        if period > unit.1 || unit.1 / period < unit.1 % period {
            break;
        }
        chosen = unit;
    }
    format!("{}/{}", chosen.1 / period, chosen.0)
}

/// `xtables_save_string`: bare when plain, else in double quotes with backslashes.
fn quoted(text: &mut String, value: &str) {
    text.push(' ');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !value.is_empty() && value.chars().all(plain) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

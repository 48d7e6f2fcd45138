//! What a Go kube-router keeps on a node for direct server return, told from the kernel alone: for the clean-up.
//!
//! Direct server return is not built here, and in operation nothing of it is touched. Decided here: what proves that
//! an object is kube-router's. A rule that marks packets does if the mark is the hash of the very address, protocol and
//! port it matches; a virtual server of that mark does through the rule. Routing rules and routes have upstream's numbers
//! and forms.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::row::{ChainKey, FilterTable, PolicyRuleKey, Position, Protocol, Route, RouteKind};
use linux::rule::{Action, Match, Rule};

use crate::fnv::fnv1a;
use crate::names;

/// Marks are tried so often after the first one was another service's. Upstream goes on for ever; with as many services
/// as a node has, more than two in a row do not happen, and each more makes a stranger's mark likelier to pass for ours.
const FURTHER_MARKS: u32 = 4;

/// Routing tables of direct server return, whose rules have upstream's priorities.
pub const TABLES: [u32; 2] = [names::route::TABLE_DSR, names::route::TABLE_EXTERNAL_IP];

/// Where a rule in a chain of the kernel's belongs if it is one of direct server return, as the lane of rules asks.
pub fn place(chain: &ChainKey, rule: &Rule) -> Option<Position> {
    (mark(chain, rule).is_some() || is_clamp(chain, rule)).then_some(Position::Anywhere)
}

/// The mark that a rule gives to packets for a service: `-d ADDRESS -p PROTOCOL --dport PORT -j MARK --set-mark N` in
/// `mangle`, where N is the one upstream computes of the three. `None` for any other rule.
pub fn mark(chain: &ChainKey, rule: &Rule) -> Option<u32> {
    let Rule::Known(rule) = rule else { return None };
    if chain.table != FilterTable::Mangle
        || !["PREROUTING", "OUTPUT"].contains(&&*chain.name)
        || rule.comment.is_some()
    {
        return None;
    }
    let [
        Match::Destination { net, not: false },
        Match::Protocol(protocol),
        Match::DestinationPort(first, last),
    ] = rule.matches.as_slice()
    else {
        return None;
    };
    let Action::Mark { value, mask: u32::MAX } = rule.action else { return None };
    let one = net.prefix_len() == net.max_prefix_len() && first == last;
    (one && marks(net.addr(), *protocol, *first).any(|mark| mark == value)).then_some(value)
}

/// Whether a policy routing rule sends marked packets to the table of direct server return, or all to that of answers.
pub fn is_rule(rule: &PolicyRuleKey) -> bool {
    match (rule.table, rule.priority, rule.mark) {
        (names::route::TABLE_DSR, Some(names::route::PRIORITY_DSR), Some(mark)) => {
            rule.from.is_none() && mark & !names::mark::DSR_MASK == 0
        }
        (names::route::TABLE_EXTERNAL_IP, Some(names::route::PRIORITY_EXTERNAL_IP), None) => {
            rule.from.is_none()
        }
        _ => false,
    }
}

/// Whether a route of one of [`TABLES`] is upstream's: everything is delivered here, or goes to the pods.
pub fn is_route(table: u32, destination: IpNet, route: &Route) -> bool {
    let link = route.link.as_deref();
    match table {
        names::route::TABLE_DSR => {
            route.kind == RouteKind::Local && destination.prefix_len() == 0 && link == Some("lo")
        }
        names::route::TABLE_EXTERNAL_IP => link == Some(names::link::BRIDGE),
        _ => false,
    }
}

/// The rule that makes clients send segments which fit into a pod's tunnel; it names the bridge.
fn is_clamp(chain: &ChainKey, rule: &Rule) -> bool {
    let Rule::Unknown(text) = rule else { return false };
    let from_pods = format!(" -i {} ", names::link::BRIDGE);
    chain.table == FilterTable::Mangle
        && *chain.name == *"PREROUTING"
        && text.starts_with("-s ")
        && [from_pods.as_str(), " --tcp-flags SYN,RST SYN -j TCPMSS --set-mss "]
            .iter()
            .all(|part| text.contains(part))
}

/// The marks upstream may give to a service: FNV-1a of `ADDRESS-PROTOCOL-PORT`, cut to the bits of
/// [`names::mark::DSR_MASK`], then of the same with `-1`, `-2` and so on behind it.
fn marks(ip: IpAddr, protocol: Protocol, port: u16) -> impl Iterator<Item = u32> {
    let service = format!("{ip}-{protocol}-{port}");
    let first = hash(&service);
    let further = (1..=FURTHER_MARKS).map(move |turn| hash(&format!("{service}-{turn}")));
    std::iter::once(first).chain(further)
}

fn hash(text: &str) -> u32 {
    fnv1a(text.as_bytes()) & names::mark::DSR_MASK
}

#[cfg(test)]
mod tests {
    use linux::iptables::parse;
    use linux::row::Family;

    use super::*;

    fn chain(name: &str, family: Family) -> ChainKey {
        ChainKey { family, table: FilterTable::Mangle, name: name.into() }
    }

    /// Rules as `iptables-save` prints those of a Go kube-router, and of others.
    #[test]
    fn a_mark_proves_itself() {
        let of = |family, text: &str| mark(&chain("PREROUTING", family), &parse(text, family));
        let marked = |mark: u32| {
            format!("-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark {mark:#x}/0xffffffff")
        };
        assert_eq!(of(Family::V4, &marked(13766)), Some(13766));
        assert_eq!(of(Family::V4, &marked(hash("10.0.0.1-tcp-80-1"))), Some(hash("10.0.0.1-tcp-80-1")));
        assert_eq!(of(Family::V4, &marked(7)), None, "somebody's own mark");
        let other_port = marked(13766).replace("80", "81");
        assert_eq!(of(Family::V4, &other_port), None, "the mark of another port");
        let subnet = marked(13766).replace("/32", "/31").replace("10.0.0.1", "10.0.0.0");
        assert_eq!(of(Family::V4, &subnet), None);
        let masked = marked(13766).replace("0xffffffff", "0xffff");
        assert_eq!(of(Family::V4, &masked), None, "not how upstream sets it");
        let v6 = "-d 2001:db8::1/128 -p udp -m udp --dport 53 -j MARK --set-xmark 0x5d4/0xffffffff";
        assert_eq!(of(Family::V6, v6), Some(1492));
        let elsewhere = chain("POSTROUTING", Family::V4);
        assert_eq!(mark(&elsewhere, &parse(&marked(13766), Family::V4)), None);
    }

    #[test]
    fn segments_are_clamped_on_the_bridge_only() {
        let text = "-s 10.0.0.1/32 -i kube-bridge -p tcp -m tcp --sport 80 --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1440";
        let placed = |text: &str| place(&chain("PREROUTING", Family::V4), &parse(text, Family::V4));
        assert_eq!(placed(text), Some(Position::Anywhere));
        assert_eq!(placed(&text.replace("kube-bridge", "eth0")), None);
    }

    #[test]
    fn rules_and_routes_have_upstreams_numbers() {
        let rule = |table, priority, mark| PolicyRuleKey {
            family: Family::V4,
            priority: Some(priority),
            from: None,
            mark,
            table,
        };
        assert!(is_rule(&rule(78, 32_764, Some(13_766))) && is_rule(&rule(79, 32_765, None)));
        assert!(!is_rule(&rule(78, 32_764, Some(0x4000))), "no mark of direct server return");
        assert!(!is_rule(&rule(78, 100, Some(13_766))) && !is_rule(&rule(79, 32_766, None)));
        assert!(!is_rule(&rule(78, 32_764, None)) && !is_rule(&rule(77, 32_764, Some(1))));
    }
}

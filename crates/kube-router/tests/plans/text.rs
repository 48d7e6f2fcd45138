//! Rows as text for people: what lives in a row stands indented under it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use linux::iptables;
use linux::row::{
    ChainKey, Family, Key, LinkKind, Member, PolicyRuleKey, Position, Route, RouteKind, Row, Scope, SetKind,
    Tunnel, VirtualServer, VirtualServerKey,
};
use linux::rule::Rule;

/// One line for each row, in key order.
pub(crate) fn rows(rows: &BTreeMap<Key, Row>) -> String {
    let mut text = String::new();
    let mut set = None;
    for (key, row) in rows {
        match (key, row) {
            // Under their virtual server.
            (Key::RealServer(..), _) => continue,
            // Sets belong to the node; their members are shown under their name.
            (Key::Member(of, member), _) => {
                if set != Some(of) {
                    let _ = writeln!(text, "members of {} {}", of.name, family(of.family));
                }
                set = Some(of);
                let _ = writeln!(text, "  {}", self::member(member));
            }
            _ => {
                let _ = writeln!(text, "{}", line(key, row));
            }
        }
        if let Key::VirtualServer(server) = key {
            real_servers(&mut text, rows, server);
        }
        if let (Key::Chain(chain), Row::Chain(rules)) = (key, row) {
            for rule in rules.iter() {
                let _ = writeln!(text, "  {}", self::rule(chain, rule));
            }
        }
    }
    text
}

fn real_servers(text: &mut String, rows: &BTreeMap<Key, Row>, server: &VirtualServerKey) {
    for (key, row) in rows {
        if let (Key::RealServer(of, ip, port), Row::RealServer(real)) = (key, row)
            && of == server
        {
            let forwarding = format!("{:?}", real.forwarding).to_lowercase();
            let at = std::net::SocketAddr::new(*ip, *port);
            let _ = writeln!(text, "  real server {at} {forwarding} weight {}", real.weight);
        }
    }
}

fn line(key: &Key, row: &Row) -> String {
    match (key, row) {
        (Key::Sysctl(path), Row::Sysctl(value)) => format!("sysctl {path} = {value}"),
        (Key::Link(name), Row::Link(link)) => {
            let kind = match &link.kind {
                LinkKind::Dummy => "dummy",
                LinkKind::Bridge => "bridge",
                LinkKind::Tunnel(tunnel) => &self::tunnel(tunnel),
                LinkKind::Other(name) => name,
            };
            let mtu = link.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
            format!("link {name} {kind}{}{mtu}", if link.up { " up" } else { "" })
        }
        (Key::BridgePortHairpin(port), Row::BridgePortHairpin(on)) => {
            format!("bridge port {port} hairpin {}", if *on { "on" } else { "off" })
        }
        (Key::Address { link, net }, Row::Address { scope }) => {
            format!("address {net} dev {link} scope {}", self::scope(*scope))
        }
        (Key::Route { table, destination, .. }, Row::Route(route)) => {
            format!("route table {table} {}", self::route(&destination.to_string(), route))
        }
        (Key::PolicyRule(rule), Row::PolicyRule) => policy_rule(rule),
        (Key::FouPort(of, port), Row::FouPort) => format!("fou port {port} {}", family(*of)),
        (Key::CniConfig, Row::CniConfig(config)) => {
            let subnets: Vec<String> = config.subnets.iter().map(ToString::to_string).collect();
            let mtu = config.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
            format!("cni configuration {}{mtu}", subnets.join(" "))
        }
        (Key::CniPlugin(name), Row::CniPlugin) => format!("cni plugin {name}"),
        (Key::IpvsTimeouts, Row::IpvsTimeouts(timeouts)) => {
            format!("timeouts tcp {} tcpfin {} udp {}", timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
        }
        (
            Key::VirtualServer(VirtualServerKey::Address { ip, protocol, port }),
            Row::VirtualServer(server),
        ) => {
            let at = std::net::SocketAddr::new(*ip, *port);
            format!("virtual server {at}/{protocol} {}", virtual_server(server))
        }
        (Key::Set(set), Row::Set(header)) => {
            let kind = match header.kind {
                SetKind::HashIp => "hash:ip",
                SetKind::HashNet => "hash:net",
                SetKind::HashIpPort => "hash:ip,port",
                SetKind::HashIpPortIp => "hash:ip,port,ip",
                SetKind::HashNetPort => "hash:net,port",
            };
            format!("set {} {} {kind} maxelem {}", set.name, family(set.family), header.max_members)
        }
        (Key::Chain(chain), Row::Chain(_)) => {
            format!("chain {} {} {}", family(chain.family), chain.table.as_str(), chain.name)
        }
        (Key::ForeignRule(chain, rule), Row::ForeignRule(position)) => {
            let place = match position {
                Position::First(rank) => format!("first {rank}"),
                Position::Last => "last".to_owned(),
                Position::Anywhere => "anywhere".to_owned(),
            };
            let table = chain.table.as_str();
            format!("rule {} {table} {place} in {}", family(chain.family), self::rule(chain, rule))
        }
        (Key::VerdictMap(map), Row::VerdictMap) => format!("verdict map {} {}", map.name, family(map.family)),
        (Key::Verdict(map, ip), Row::Verdict(chain)) => format!("verdict {} {ip} -> {chain}", map.name),
        (key, row) => panic!("a row of another kind than its key: {key:?} {row:?}"),
    }
}

fn virtual_server(server: &VirtualServer) -> String {
    let mut text = server.scheduler.as_str().to_owned();
    for (bit, name) in [(0x08, "flag-1"), (0x10, "flag-2"), (0x20, "flag-3")] {
        if server.scheduler_flags & bit != 0 {
            let _ = write!(text, " {name}");
        }
    }
    if let Some(seconds) = server.persistence {
        let _ = write!(text, " persistent {seconds}s");
    }
    text
}

fn tunnel(tunnel: &Tunnel) -> String {
    let encapsulation = tunnel.udp_port.map_or("plain".to_owned(), |port| format!("in UDP to port {port}"));
    format!("tunnel from {} to {} {encapsulation}", tunnel.local, tunnel.remote)
}

fn policy_rule(rule: &PolicyRuleKey) -> String {
    let mut text = format!("policy rule {}", family(rule.family));
    if let Some(priority) = rule.priority {
        let _ = write!(text, " priority {priority}");
    }
    if let Some(from) = rule.from {
        let _ = write!(text, " from {from}");
    }
    if let Some(mark) = rule.mark {
        let _ = write!(text, " fwmark {mark:#x}");
    }
    text + &format!(" lookup {}", rule.table)
}

fn route(destination: &str, route: &Route) -> String {
    let kind = match route.kind {
        RouteKind::Unicast => "unicast".to_owned(),
        RouteKind::Local => "local".to_owned(),
        RouteKind::Other(number) => format!("type {number}"),
    };
    let mut text = format!("{kind} {destination}");
    if let Some(link) = &route.link {
        let _ = write!(text, " dev {link}");
    }
    if let Some(via) = route.via {
        let _ = write!(text, " via {via}");
    }
    if let Some(source) = route.source {
        let _ = write!(text, " src {source}");
    }
    let _ = write!(text, " scope {} proto {}", scope(route.scope), route.protocol);
    text
}

/// As `iptables-save` would print it, which it must read back as the same rule.
fn rule(chain: &ChainKey, rule: &Rule) -> String {
    if let Some(map) = rule.verdict_map() {
        // iptables has none.
        return format!("-A {} by its address in @{map}", chain.name);
    }
    iptables::check(rule, chain.family).unwrap();
    format!("-A {} {}", chain.name, iptables::render(rule, chain.family))
}

fn member(member: &Member) -> String {
    match member {
        Member::Ip(ip) => ip.to_string(),
        Member::Net(net) => net.to_string(),
        Member::IpPort(ip, protocol, port) => format!("{ip},{protocol}:{port}"),
        Member::IpPortIp(ip, protocol, port, other) => format!("{ip},{protocol}:{port},{other}"),
        Member::NetPort(net, protocol, port) => format!("{net},{protocol}:{port}"),
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Universe => "global",
        Scope::Link => "link",
        Scope::Host => "host",
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

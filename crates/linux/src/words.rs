//! Keys in words, as an operator would name the object: for logs, `status` and refusals.

use std::fmt;
use std::net::SocketAddr;

use crate::row::{ChainKey, Family, Key, Member, SetKey, VirtualServerKey};
use crate::rule::{Action, Rule};

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VirtualServerKey::Address { ip, protocol, port } => {
                write!(f, "{}/{protocol}", SocketAddr::new(*ip, *port))
            }
            VirtualServerKey::Mark { family, mark } => write!(f, "mark {mark} ({family})"),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Ip(ip) => write!(f, "{ip}"),
            Member::Net(net) => write!(f, "{net}"),
            Member::IpPort(ip, protocol, port) => write!(f, "{ip},{protocol}:{port}"),
            Member::IpPortIp(ip, protocol, port, second) => write!(f, "{ip},{protocol}:{port},{second}"),
            Member::NetPort(net, protocol, port) => write!(f, "{net},{protocol}:{port}"),
        }
    }
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.family)
    }
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} ({})", self.name, self.table.as_str(), self.family)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Sysctl(path) => write!(f, "sysctl {path}"),
            Key::Link(name) => write!(f, "link {name}"),
            Key::BridgePortHairpin(name) => write!(f, "hairpin mode of {name}"),
            Key::Address { link, net } => write!(f, "address {net} on {link}"),
            Key::Route { table, destination, link } => {
                write!(f, "route to {destination} in table {table}")?;
                link.as_ref().map_or(Ok(()), |link| write!(f, " on {link}"))
            }
            Key::PolicyRule(rule) => {
                f.write_str("rule")?;
                rule.from.map_or(Ok(()), |from| write!(f, " from {from}"))?;
                rule.mark.map_or(Ok(()), |mark| write!(f, " fwmark {mark}"))?;
                write!(f, " lookup {} ({})", rule.table, rule.family)
            }
            Key::FouPort(family, port) => write!(f, "FoU port {port} ({family})"),
            Key::CniConfig => f.write_str("CNI configuration"),
            Key::CniPlugin(kind) => write!(f, "CNI plugin {kind}"),
            Key::IpvsTimeouts => f.write_str("IPVS timeouts"),
            Key::VirtualServer(server) => write!(f, "virtual server {server}"),
            Key::RealServer(server, ip, port) => {
                write!(f, "real server {} of {server}", SocketAddr::new(*ip, *port))
            }
            Key::Set(set) => write!(f, "set {set}"),
            Key::Member(set, member) => write!(f, "member {member} of set {set}"),
            Key::VerdictMap(map) => write!(f, "map {map}"),
            Key::Verdict(map, ip) => write!(f, "element {ip} of map {map}"),
            Key::Chain(chain) => write!(f, "chain {chain}"),
            Key::ForeignRule(chain, rule) => write!(f, "{} in chain {chain}", rule_in_words(rule)),
        }
    }
}

/// What tells a rule from its neighbours: its comment, or where it leads.
fn rule_in_words(rule: &Rule) -> String {
    let Rule::Known(known) = rule else { return "a rule of another form".to_owned() };
    match (&known.comment, &known.action) {
        (Some(comment), _) if !comment.is_empty() => format!("rule \"{comment}\""),
        (_, Action::Jump(target)) => format!("jump to {target}"),
        (_, Action::VerdictMap { map, .. }) => format!("jump by map {map}"),
        (_, Action::SourceNat { to, .. }) => format!("source NAT to {to}"),
        (_, Action::Masquerade { .. }) => "masquerading".to_owned(),
        (_, Action::Accept) => "rule that accepts".to_owned(),
        (_, Action::Drop) => "rule that drops".to_owned(),
        (_, Action::Return) => "rule that returns".to_owned(),
        (_, Action::Reject) => "rule that rejects".to_owned(),
        (_, Action::Mark { .. }) => "rule that marks".to_owned(),
        (_, Action::Log { group, .. }) => format!("rule that logs to group {group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Protocol;

    #[test]
    fn objects_are_named_as_tools_name_them() {
        let server =
            VirtualServerKey::Address { ip: "fd00::1".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
        let key = Key::RealServer(server, "fd00::2".parse().unwrap(), 8080);
        assert_eq!(key.to_string(), "real server [fd00::2]:8080 of [fd00::1]:80/tcp");
        let set = SetKey { family: Family::V4, name: "kube-router-svip".into() };
        let key = Key::Member(set.into(), Member::Ip("10.0.0.1".parse().unwrap()));
        assert_eq!(key.to_string(), "member 10.0.0.1 of set kube-router-svip (IPv4)");
    }
}

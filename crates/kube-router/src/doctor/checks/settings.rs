//! Kernel settings of the node as a whole: forwarding, bridged packets, what the service proxy needs, room for connections.
//!
//! Decided here: what becomes of a setting that has another value than it should. The agent keeps those of its controllers,
//! so that such a one is no problem before it starts if it can be written; behind a read-only /proc/sys, or while the
//! agent runs all the same, it is.

use crate::doctor::{Check, Facts, Level};
use crate::network_services::base;

const FORWARD_V4: &str = "net/ipv4/ip_forward";
pub(super) const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
pub(super) const NO_IPV6: &str = "net/ipv6/conf/all/disable_ipv6";
const BRIDGED_V4: &str = "net/bridge/bridge-nf-call-iptables";
const BRIDGED_V6: &str = "net/bridge/bridge-nf-call-ip6tables";
const FLOWS: &str = "net/netfilter/nf_conntrack_count";
const MOST_FLOWS: &str = "net/netfilter/nf_conntrack_max";
/// Ports below this are for those with CAP_NET_BIND_SERVICE.
pub(super) const FREE_PORTS: &str = "net/ipv4/ip_unprivileged_port_start";

/// Settings that are looked at, but for those of links ([`super::paths`]).
pub(in crate::doctor) fn paths() -> impl Iterator<Item = &'static str> {
    let of_all = [FORWARD_V4, FORWARD_V6, NO_IPV6, BRIDGED_V4, BRIDGED_V6, FLOWS, MOST_FLOWS, FREE_PORTS];
    of_all.into_iter().chain(base::settings().map(|(path, _)| path))
}

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = forwarding(facts);
    checks.extend(bridged(facts));
    checks.extend(proxy(facts));
    checks.extend(flows(facts));
    checks
}

/// The value, if this kernel has the setting.
pub(super) fn value<'a>(facts: &'a Facts, path: &str) -> Option<&'a str> {
    facts.settings.get(path)?.as_deref()
}

/// Whether the agent, which keeps this setting, will write it when it starts.
pub(super) fn is_left_to_agent(facts: &Facts, path: &str) -> bool {
    !facts.runs.runs_already && facts.writable.contains(path)
}

/// As `sysctl` names it.
pub(super) fn dotted(path: &str) -> String {
    path.replace('/', ".")
}

fn forwarding(facts: &Facts) -> Vec<Check> {
    let on = |path: &str| value(facts, path) == Some("1");
    let mut checks = Vec::new();
    let mut check = |path: &str, what: &str| {
        let setting = dotted(path);
        checks.push(if on(path) {
            Check::fine("forwarding", format!("{what} packets are forwarded"))
        } else if facts.runs.controllers.routes && is_left_to_agent(facts, path) {
            Check::fine("forwarding", format!("{setting} is not 1 yet; kube-router sets it (--run-router)"))
        } else {
            Check::problem(
                "forwarding",
                format!("{what} packets are not forwarded ({setting} is not 1): pods reach nothing beyond this node"),
                format!("sysctl -w {setting}=1, and the same line in /etc/sysctl.d"),
            )
        });
    };
    check(FORWARD_V4, "IPv4");
    if facts.runs.ipv6 && !on(NO_IPV6) {
        check(FORWARD_V6, "IPv6");
    }
    checks
}

/// Whether packets between pods on one bridge pass rules. Both packet filters depend on it.
fn bridged(facts: &Facts) -> Option<Check> {
    if !facts.runs.controllers.network_policy {
        return None;
    }
    if facts.settings.get(BRIDGED_V4)?.is_none() {
        return Some(Check::warning(
            "bridged packets",
            "packets between pods on one bridge do not pass network policy (br_netfilter is not loaded)",
            "modprobe br_netfilter; nothing to do where pods are not on a bridge",
        ));
    }
    let paths = [(BRIDGED_V4, true), (BRIDGED_V6, facts.runs.ipv6)];
    let off = paths.iter().filter(|(path, wanted)| *wanted && value(facts, path) == Some("0"));
    let off: Vec<&str> = off.map(|(path, _)| *path).collect();
    if off.is_empty() {
        return Some(Check::fine("bridged packets", "pass network policy"));
    }
    let names = off.iter().map(|path| dotted(path)).collect::<Vec<_>>().join(", ");
    Some(if off.iter().all(|path| is_left_to_agent(facts, path)) {
        Check::fine("bridged packets", format!("{names}: 0 yet; kube-router sets it"))
    } else {
        let wanted: Vec<(&str, &str)> = off.iter().map(|path| (*path, "1")).collect();
        Check::problem(
            "bridged packets",
            format!("{names}: 0, so packets between pods of this node do not pass network policy"),
            by_hand(&wanted),
        )
    })
}

/// What IPVS needs. A setting that this kernel does not have is named by the checks of modules and of IPVS.
fn proxy(facts: &Facts) -> Option<Check> {
    if !facts.runs.controllers.service_proxy {
        return None;
    }
    let known = base::settings().filter_map(|(path, to)| Some((path, to, value(facts, path)?)));
    let known: Vec<(&str, &str, &str)> = known.collect();
    let wrong = known.iter().filter(|(path, to, is)| to != is && !is_left_to_agent(facts, path));
    let wrong: Vec<(&str, &str, &str)> = wrong.copied().collect();
    if wrong.is_empty() {
        let found = if known.iter().all(|(_, to, is)| to == is) {
            "are as the service proxy needs them"
        } else {
            "kube-router sets what the service proxy needs"
        };
        return (!known.is_empty()).then(|| Check::fine("settings", found));
    }
    let found: Vec<String> =
        wrong.iter().map(|(path, to, is)| format!("{} is {is}, not {to}", dotted(path))).collect();
    let wanted: Vec<(&str, &str)> = wrong.iter().map(|(path, to, _)| (*path, *to)).collect();
    Some(Check::problem(
        "settings",
        format!("{}: connections through services suffer", found.join(", ")),
        by_hand(&wanted),
    ))
}

/// The remedy for settings that the agent keeps but cannot write.
fn by_hand(wanted: &[(&str, &str)]) -> String {
    let assignments: Vec<String> = wanted.iter().map(|(path, to)| format!("{}={to}", dotted(path))).collect();
    format!(
        "sysctl -w {}, and the same in /etc/sysctl.d; or let kube-router write below /proc/sys: in a pod, mount the host's \
         /proc/sys/net at /host/proc/sys/net",
        assignments.join(" ")
    )
}

fn flows(facts: &Facts) -> Option<Check> {
    let number = |path: &str| value(facts, path)?.parse::<u64>().ok();
    let (count, most) = (number(FLOWS)?, number(MOST_FLOWS)?);
    let found = format!("{count} of at most {most} connections are tracked");
    let level = if count.saturating_mul(10) >= most.saturating_mul(9) { Level::Problem } else { Level::Fine };
    let fix = "sysctl -w net.netfilter.nf_conntrack_max=… (four times as many), and the same line in /etc/sysctl.d: \
               when the table is full, new connections are dropped";
    Some(Check::new("connections", level, found, (level != Level::Fine).then(|| fix.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Controllers;

    fn facts(controllers: Controllers) -> Facts {
        let mut facts = Facts::default();
        facts.runs.controllers = controllers;
        facts
    }

    fn set(facts: &mut Facts, path: &str, to: &str) {
        facts.settings.insert(path.into(), Some(to.into()));
    }

    #[test]
    fn forwarding_is_asked_of_families_in_use() {
        let mut facts = facts(Controllers { service_proxy: true, ..Controllers::default() });
        assert_eq!(forwarding(&facts)[0].level, Level::Problem);
        facts.writable.insert(FORWARD_V4.into());
        assert_eq!(forwarding(&facts)[0].level, Level::Problem, "only pod routing sets it");
        facts.runs.controllers.routes = true;
        assert_eq!(forwarding(&facts)[0].level, Level::Fine);
        facts.runs.runs_already = true;
        assert_eq!(forwarding(&facts)[0].level, Level::Problem, "it could not");
        set(&mut facts, FORWARD_V4, "1");
        assert!(forwarding(&facts).iter().all(|check| check.level == Level::Fine));
        facts.runs.ipv6 = true;
        assert!(forwarding(&facts)[1].fix.as_ref().unwrap().contains("net.ipv6.conf.all.forwarding=1"));
    }

    #[test]
    fn bridged_packets_that_pass_by_policies_are_a_problem() {
        let mut facts = facts(Controllers { network_policy: true, ..Controllers::default() });
        assert_eq!(bridged(&facts), None);
        facts.settings.insert(BRIDGED_V4.into(), None);
        assert_eq!(bridged(&facts).unwrap().level, Level::Warning);
        set(&mut facts, BRIDGED_V4, "0");
        set(&mut facts, BRIDGED_V6, "0");
        let check = bridged(&facts).unwrap();
        assert_eq!(check.level, Level::Problem);
        assert!(check.fix.unwrap().starts_with("sysctl -w net.bridge.bridge-nf-call-iptables=1, "));
        facts.writable.insert(BRIDGED_V4.into());
        assert_eq!(bridged(&facts).unwrap().level, Level::Fine, "kube-router sets it");
        facts.runs.ipv6 = true;
        assert!(bridged(&facts).unwrap().found.contains("bridge-nf-call-ip6tables"), "but not this one");
        facts.runs.ipv6 = false;
        facts.runs.runs_already = true;
        assert_eq!(bridged(&facts).unwrap().level, Level::Problem, "it did not");
        set(&mut facts, BRIDGED_V4, "1");
        assert_eq!(bridged(&facts).unwrap().level, Level::Fine);
    }

    #[test]
    fn settings_of_the_proxy_matter_where_it_cannot_write_them() {
        let mut facts = facts(Controllers { service_proxy: true, ..Controllers::default() });
        assert_eq!(proxy(&facts), None, "without IPVS there are none");
        for (path, to) in base::settings() {
            set(&mut facts, path, to);
        }
        assert_eq!(proxy(&facts).unwrap().level, Level::Fine);
        set(&mut facts, "net/ipv4/vs/conntrack", "0");
        let check = proxy(&facts).unwrap();
        assert_eq!(check.level, Level::Problem);
        assert!(check.found.starts_with("net.ipv4.vs.conntrack is 0, not 1: "), "{}", check.found);
        assert!(check.fix.unwrap().starts_with("sysctl -w net.ipv4.vs.conntrack=1, "));
        facts.writable.insert("net/ipv4/vs/conntrack".into());
        assert_eq!(proxy(&facts).unwrap().level, Level::Fine);
        facts.runs.controllers.service_proxy = false;
        assert_eq!(proxy(&facts), None);
    }

    #[test]
    fn a_flow_table_that_fills_is_a_problem() {
        let mut facts = facts(Controllers::default());
        assert_eq!(flows(&facts), None);
        set(&mut facts, MOST_FLOWS, "1000");
        for (count, level) in [("899", Level::Fine), ("900", Level::Problem)] {
            set(&mut facts, FLOWS, count);
            assert_eq!(flows(&facts).unwrap().level, level);
        }
    }
}

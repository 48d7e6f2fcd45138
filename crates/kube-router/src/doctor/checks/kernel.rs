//! The kernel: modules, IPVS, settings.

use crate::doctor::{Check, Facts, Level, Presence, Wanted};

/// Modules that a controller needs, by what they are for.
const PROXY: [&str; 10] = [
    "ip_vs",
    "ip_vs_rr",
    "dummy",
    "nf_conntrack",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "xt_set",
    "xt_ipvs",
    "xt_addrtype",
];
const POLICY: [&str; 9] = [
    "nf_conntrack",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "xt_set",
    "xt_NFLOG",
    "nfnetlink_log",
    "xt_conntrack",
    "br_netfilter",
];
const ROUTES: [&str; 4] = ["bridge", "ip_set", "ip_set_hash_net", "xt_set"];
const TUNNELS: [&str; 1] = ["ipip"];
const FOU: [&str; 2] = ["fou", "ipip"];

/// All that may be needed.
pub(in crate::doctor) fn modules() -> impl Iterator<Item = &'static str> {
    let all = PROXY.iter().chain(&POLICY).chain(&ROUTES).chain(&TUNNELS).chain(&FOU);
    all.copied()
}

/// Settings that are looked at.
pub(in crate::doctor) const SETTINGS: [&str; 6] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
];

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![modules_there(facts)];
    checks.extend(ipvs(facts));
    checks.extend(forwarding(facts));
    checks.extend(bridged(facts));
    checks.extend(flows(facts));
    checks
}

fn wanted(runs: &Wanted) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut add = |when: bool, list: &[&'static str]| names.extend(list.iter().filter(|_| when));
    add(runs.controllers.service_proxy, &PROXY);
    add(runs.controllers.network_policy, &POLICY);
    add(runs.controllers.routes, &ROUTES);
    add(runs.tunnels, if runs.fou { &FOU } else { &TUNNELS });
    names.sort_unstable();
    names.dedup();
    names
}

fn modules_there(facts: &Facts) -> Check {
    let of = |presence| -> Vec<&str> {
        let names = wanted(&facts.runs).into_iter();
        names.filter(|name| facts.modules.get(name) == Some(&presence)).collect()
    };
    let (absent, loadable, untold) = (of(Presence::Absent), of(Presence::Loadable), of(Presence::Untold));
    if !absent.is_empty() {
        return Check::problem(
            "modules",
            format!("this kernel does not have {}", absent.join(", ")),
            "install the package with the kernel's modules (linux-modules-extra-… on Ubuntu), or a kernel that has them",
        );
    }
    if !loadable.is_empty() {
        let names = loadable.join(" ");
        return Check::warning(
            "modules",
            format!("not loaded: {}", loadable.join(", ")),
            format!("modprobe -a {names}; for every boot, name them in /etc/modules-load.d/kube-router.conf"),
        );
    }
    if !untold.is_empty() {
        let text =
            format!("there is no list of this kernel's modules here; not seen loaded: {}", untold.join(", "));
        return Check::unknown("modules", text);
    }
    Check::fine("modules", "all that are needed are there")
}

fn ipvs(facts: &Facts) -> Option<Check> {
    let answer = facts.ipvs.as_ref().filter(|_| facts.runs.controllers.service_proxy)?;
    Some(match answer {
        Ok(()) => Check::fine("ipvs", "the kernel answers for IPVS"),
        Err(reason) => Check::problem(
            "ipvs",
            format!("the kernel does not answer for IPVS: {reason}"),
            "modprobe ip_vs; where the kernel has none, run kube-router with --run-service-proxy=false beside another proxy",
        ),
    })
}

fn forwarding(facts: &Facts) -> Vec<Check> {
    let on = |path: &str| facts.settings.get(path).and_then(Option::as_deref) == Some("1");
    let mut checks = Vec::new();
    let mut check = |path: &str, what: &str| {
        checks.push(if on(path) {
            Check::fine("forwarding", format!("{what} packets are forwarded"))
        } else {
            let setting = path.replace('/', ".");
            Check::problem(
                "forwarding",
                format!("{what} packets are not forwarded ({setting} is not 1): pods reach nothing beyond this node"),
                format!("sysctl -w {setting}=1, and the same line in /etc/sysctl.d"),
            )
        });
    };
    check("net/ipv4/ip_forward", "IPv4");
    if facts.runs.ipv6 && !on("net/ipv6/conf/all/disable_ipv6") {
        check("net/ipv6/conf/all/forwarding", "IPv6");
    }
    checks
}

/// kube-router sets it itself where the module is there.
fn bridged(facts: &Facts) -> Option<Check> {
    if !facts.runs.controllers.network_policy {
        return None;
    }
    match facts.settings.get("net/bridge/bridge-nf-call-iptables")? {
        Some(_) => None,
        None => Some(Check::warning(
            "bridged packets",
            "packets between pods on one bridge do not pass network policy (br_netfilter is not loaded)",
            "modprobe br_netfilter; nothing to do where pods are not on a bridge",
        )),
    }
}

fn flows(facts: &Facts) -> Option<Check> {
    let number = |path: &str| facts.settings.get(path)?.as_ref()?.parse::<u64>().ok();
    let count = number("net/netfilter/nf_conntrack_count")?;
    let most = number("net/netfilter/nf_conntrack_max")?;
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

    fn facts(service_proxy: bool, network_policy: bool) -> Facts {
        let controllers = Controllers { service_proxy, network_policy, ..Controllers::default() };
        let mut facts = Facts { runs: Wanted { controllers, ..Wanted::default() }, ..Facts::default() };
        facts.modules = modules().map(|name| (name, Presence::There)).collect();
        facts
    }

    #[test]
    fn only_what_runs_needs_modules() {
        let mut policy = facts(false, true);
        policy.modules.insert("ip_vs", Presence::Absent);
        assert_eq!(modules_there(&policy).level, Level::Fine);
        let mut proxy = facts(true, false);
        proxy.modules.insert("ip_vs_rr", Presence::Loadable);
        let check = modules_there(&proxy);
        assert_eq!(check.level, Level::Warning);
        assert!(check.fix.unwrap().contains("modprobe -a ip_vs_rr;"));
        proxy.modules.insert("ip_vs", Presence::Absent);
        assert_eq!(modules_there(&proxy).found, "this kernel does not have ip_vs");
    }

    #[test]
    fn forwarding_is_asked_of_families_in_use() {
        let mut facts = facts(true, true);
        assert_eq!(forwarding(&facts)[0].level, Level::Problem);
        facts.settings.insert("net/ipv4/ip_forward", Some("1".into()));
        assert!(forwarding(&facts).iter().all(|check| check.level == Level::Fine));
        facts.runs.ipv6 = true;
        assert!(forwarding(&facts)[1].fix.as_ref().unwrap().contains("net.ipv6.conf.all.forwarding=1"));
    }

    #[test]
    fn a_flow_table_that_fills_is_a_problem() {
        let mut facts = facts(true, true);
        assert_eq!(flows(&facts), None);
        facts.settings.insert("net/netfilter/nf_conntrack_max", Some("1000".into()));
        for (count, level) in [("899", Level::Fine), ("900", Level::Problem)] {
            facts.settings.insert("net/netfilter/nf_conntrack_count", Some(count.into()));
            assert_eq!(flows(&facts).unwrap().level, level);
        }
    }
}

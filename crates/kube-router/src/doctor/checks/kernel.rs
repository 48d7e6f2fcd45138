//! The kernel: modules and IPVS.
//!
//! Decided here: which modules a controller needs with the packet filter it writes to. Listed is what kernels since 5.9
//! have under one name; `nft_counter`, for one, became a part of `nf_tables` meanwhile.

use crate::doctor::wanted::{PacketFilter, Wanted};
use crate::doctor::{Check, Facts, Presence};

/// Modules of one concern.
struct Modules {
    /// With either packet filter.
    always: &'static [&'static str],
    /// Sets, matches and targets of iptables.
    iptables: &'static [&'static str],
    /// Expressions of nftables, as `linux::nftables` writes them.
    nftables: &'static [&'static str],
    /// With nftables and IPv6.
    nftables_v6: &'static [&'static str],
}

const PROXY: Modules = Modules {
    always: &["ip_vs", "ip_vs_rr", "dummy", "nf_conntrack", "nf_conntrack_netlink"],
    iptables: &[
        "ip_set",
        "ip_set_hash_ip",
        "ip_set_hash_ipport",
        "ip_set_hash_ipportip",
        "xt_set",
        "xt_ipvs",
        "xt_addrtype",
        "xt_comment",
    ],
    nftables: &[
        "nf_tables",
        "nft_ct",
        "nft_fib",
        "nft_fib_ipv4",
        "nft_reject",
        "nft_reject_ipv4",
        "nft_nat",
        "nft_chain_nat",
    ],
    nftables_v6: &["nft_fib_ipv6", "nft_reject_ipv6"],
};
const POLICY: Modules = Modules {
    always: &["br_netfilter", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log"],
    iptables: &[
        "ip_set",
        "ip_set_hash_ip",
        "ip_set_hash_net",
        "ip_set_hash_ipport",
        "xt_set",
        "xt_addrtype",
        "xt_comment",
        "xt_conntrack",
        "xt_connmark",
        "xt_limit",
        "xt_mark",
        "xt_multiport",
        "xt_NFLOG",
    ],
    nftables: &[
        "nf_tables",
        "nft_ct",
        "nft_fib",
        "nft_fib_ipv4",
        "nft_limit",
        "nft_log",
        "nft_reject",
        "nft_reject_ipv4",
    ],
    nftables_v6: &["nft_fib_ipv6", "nft_reject_ipv6"],
};
const ROUTES: Modules = Modules {
    always: &["bridge", "br_netfilter"],
    iptables: &["ip_set", "ip_set_hash_ip", "ip_set_hash_net", "xt_set", "xt_comment"],
    nftables: &["nf_tables", "nft_masq", "nft_chain_nat"],
    nftables_v6: &[],
};
const TUNNELS: [&str; 1] = ["ipip"];
const TUNNELS_V6: [&str; 1] = ["ip6_tunnel"];
const FOU: [&str; 1] = ["fou"];
const FOU_V6: [&str; 1] = ["fou6"];

/// What the kernel loads by itself when a rule or set asks for it, whoever writes that: only a kernel without it is in the
/// way.
const ON_DEMAND: [&str; 5] = ["nft_", "nf_tables", "nf_conntrack_netlink", "xt_", "ip_set_hash_"];

/// All that may be needed.
pub(in crate::doctor) fn modules() -> impl Iterator<Item = &'static str> {
    let of_controllers = [PROXY, POLICY, ROUTES].into_iter().flat_map(|modules| {
        [modules.always, modules.iptables, modules.nftables, modules.nftables_v6].into_iter().flatten()
    });
    let of_tunnels = [TUNNELS, TUNNELS_V6, FOU, FOU_V6].into_iter().flatten();
    of_controllers.copied().chain(of_tunnels)
}

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![modules_there(facts)];
    checks.extend(ipvs(facts));
    checks
}

fn wanted(runs: &Wanted) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut add = |when: bool, list: &[&'static str]| names.extend(list.iter().filter(|_| when));
    let of_controllers = [
        (runs.controllers.service_proxy, PROXY),
        (runs.controllers.network_policy, POLICY),
        (runs.controllers.routes, ROUTES),
    ];
    let nftables = runs.filter == PacketFilter::Nftables;
    for (when, modules) in of_controllers {
        add(when, modules.always);
        add(when && !nftables, modules.iptables);
        add(when && nftables, modules.nftables);
        add(when && nftables && runs.ipv6, modules.nftables_v6);
    }
    add(runs.tunnels, &TUNNELS);
    add(runs.tunnels && runs.ipv6, &TUNNELS_V6);
    add(runs.tunnels && runs.fou, &FOU);
    add(runs.tunnels && runs.fou && runs.ipv6, &FOU_V6);
    names.sort_unstable();
    names.dedup();
    names
}

fn modules_there(facts: &Facts) -> Check {
    let of = |presence| -> Vec<&str> {
        let names = wanted(&facts.runs).into_iter();
        names.filter(|name| facts.modules.get(name) == Some(&presence)).collect()
    };
    let on_demand = |name: &&str| ON_DEMAND.iter().any(|start| name.starts_with(start));
    let (absent, untold) = (of(Presence::Absent), of(Presence::Untold));
    let mut loadable = of(Presence::Loadable);
    loadable.retain(|name| !on_demand(name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
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
    fn each_packet_filter_needs_its_own_modules() {
        let all =
            Controllers { service_proxy: true, network_policy: true, routes: true, load_balancer: false };
        let of = |filter, ipv6| wanted(&Wanted { controllers: all, filter, ipv6, ..Wanted::default() });
        let is_of_iptables = |name: &&&str| name.starts_with("xt_") || name.starts_with("ip_set");
        let is_of_nftables = |name: &&&str| name.starts_with("nf");
        for ipv6 in [false, true] {
            let iptables = of(PacketFilter::Iptables, ipv6);
            assert_eq!(
                iptables.iter().filter(|name| name.starts_with("nft_") || **name == "nf_tables").count(),
                0
            );
            for needed in
                ["ip_set_hash_ipportip", "nf_conntrack_netlink", "xt_comment", "ip_vs", "br_netfilter"]
            {
                assert!(iptables.contains(&needed), "{needed}");
            }
            let nftables = of(PacketFilter::Nftables, ipv6);
            assert_eq!(nftables.iter().find(is_of_iptables), None);
            let rest = nftables.iter().filter(|name| !is_of_nftables(name));
            assert_eq!(
                rest.copied().collect::<Vec<_>>(),
                ["br_netfilter", "bridge", "dummy", "ip_vs", "ip_vs_rr"]
            );
            for needed in
                ["nf_tables", "nft_ct", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_reject_ipv4"]
            {
                assert!(nftables.contains(&needed), "{needed}");
            }
            assert_eq!(nftables.contains(&"nft_reject_ipv6"), ipv6);
        }
    }

    #[test]
    fn tunnels_need_the_modules_of_their_families_and_kind() {
        let of = |ipv6, fou| wanted(&Wanted { tunnels: true, ipv6, fou, ..Wanted::default() });
        assert_eq!(of(false, false), ["ipip"]);
        assert_eq!(of(true, false), ["ip6_tunnel", "ipip"]);
        assert_eq!(of(false, true), ["fou", "ipip"]);
        assert_eq!(of(true, true), ["fou", "fou6", "ip6_tunnel", "ipip"]);
    }

    #[test]
    fn what_the_kernel_loads_by_itself_must_be_there_but_not_loaded() {
        let mut policy = facts(false, true);
        policy.runs.filter = PacketFilter::Nftables;
        policy.modules.insert("xt_set", Presence::Absent);
        policy.modules.insert("nft_limit", Presence::Loadable);
        assert_eq!(modules_there(&policy).level, Level::Fine);
        policy.modules.insert("nft_limit", Presence::Absent);
        assert_eq!(modules_there(&policy).found, "this kernel does not have nft_limit");
    }
}

//! Kernel settings of links that decide by which way packets may come: reverse path filters, IPv6 router advertisements.

use std::collections::BTreeMap;

use linux::row::Name;

use super::settings::{FORWARD_V6, NO_IPV6, dotted, is_left_to_agent, value};
use crate::doctor::{Check, Facts, Link};
use crate::names;

const ALL_LINKS: &str = "all";

fn filter_of(link: &str) -> String {
    format!("net/ipv4/conf/{link}/rp_filter")
}

fn advertisements_of(link: &str) -> String {
    format!("net/ipv6/conf/{link}/accept_ra")
}

fn is_filtered(name: &str, link: &Link) -> bool {
    link.is_uplink || name == names::link::BRIDGE
}

/// Settings that are looked at.
pub(in crate::doctor) fn of_links(links: &BTreeMap<Name, Link>) -> Vec<String> {
    let filtered = links.iter().filter(|(name, link)| is_filtered(name, link));
    let advertised = links.iter().filter(|(_, link)| link.is_advertised);
    let filters = filtered.map(|(name, _)| &**name).chain([ALL_LINKS]).map(filter_of);
    filters.chain(advertised.map(|(name, _)| advertisements_of(name))).collect()
}

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(reverse_paths(facts));
    checks.extend(advertisements(facts));
    checks
}

/// A strict filter drops what comes in by another link than answers leave by. The kernel takes the larger of the link's
/// value and that of all links: 1 is strict, 2 is not. The service proxy makes strict ones loose, pod routing does not.
fn reverse_paths(facts: &Facts) -> Option<Check> {
    let controllers = facts.runs.controllers;
    let number = |link: &str| value(facts, &filter_of(link))?.parse::<u8>().ok();
    let of_all = number(ALL_LINKS).unwrap_or(0);
    let is_strict = |name: &Name| number(name).unwrap_or(0).max(of_all) == 1;
    let strict = facts.links.iter().filter(|(name, link)| is_filtered(name, link) && is_strict(name));
    let fix = "sysctl -w net.ipv4.conf.all.rp_filter=2, and the same line in /etc/sysctl.d";
    if controllers.service_proxy {
        let is_made_loose = |name: &Name| {
            let has_it = if of_all == 1 { ALL_LINKS } else { name };
            is_left_to_agent(facts, &filter_of(has_it))
        };
        let strict: Vec<&str> =
            strict.filter(|(name, _)| !is_made_loose(name)).map(|(name, _)| &**name).collect();
        let found = format!(
            "strict on {}: what endpoints of services answer by another link is dropped",
            strict.join(", ")
        );
        return (!strict.is_empty()).then(|| Check::warning("rp_filter", found, fix));
    }
    let uplinks: Vec<&str> = strict.filter(|(_, link)| link.is_uplink).map(|(name, _)| &**name).collect();
    if !facts.runs.tunnels || uplinks.is_empty() {
        return None;
    }
    Some(Check::warning(
        "rp_filter",
        format!(
            "strict on {}: what pods of a node send without a tunnel is dropped if this node answers through one",
            uplinks.join(", ")
        ),
        format!("nothing to do if all nodes have the same --enable-overlay and --overlay-type; else {fix}"),
    ))
}

/// A link with `accept_ra` 1 takes no router advertisements while the node forwards, so that the routes they brought end:
/// the default route, maybe. Links they brought nothing to stay out of it: 2 on a link to pods would let a pod be the
/// node's router. Pod routing sets 2 itself when it switches forwarding on.
fn advertisements(facts: &Facts) -> Option<Check> {
    let forwards = value(facts, FORWARD_V6) == Some("1");
    if value(facts, NO_IPV6) == Some("1") || !(forwards || facts.runs.ipv6) {
        return None;
    }
    let advertised = facts.links.iter().filter(|(_, link)| link.is_advertised).map(|(name, _)| &**name);
    let refuse: Vec<&str> =
        advertised.filter(|link| value(facts, &advertisements_of(link)) == Some("1")).collect();
    let is_kept = |link: &&str| is_left_to_agent(facts, &advertisements_of(link));
    if refuse.is_empty() || !forwards && facts.runs.controllers.routes && refuse.iter().all(is_kept) {
        return None;
    }
    let assignments: Vec<String> =
        refuse.iter().map(|link| format!("{}=2", dotted(&advertisements_of(link)))).collect();
    let (links, fix) = (refuse.join(", "), assignments.join(" "));
    Some(if forwards {
        Check::problem(
            "router advertisements",
            format!("are not taken on {links} any more, since this node forwards: routes they brought end"),
            format!("sysctl -w {fix}, and the same in /etc/sysctl.d"),
        )
    } else {
        Check::warning(
            "router advertisements",
            format!("will not be taken on {links} any more once this node forwards: routes they brought end"),
            format!("before forwarding is switched on: sysctl -w {fix}, and the same in /etc/sysctl.d"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use crate::options::Controllers;

    fn facts(controllers: Controllers) -> Facts {
        let mut facts = Facts::default();
        facts.runs.controllers = controllers;
        let uplink = Link { is_uplink: true, is_advertised: true, ..Link::default() };
        facts.links.insert("eth0".into(), uplink);
        facts.links.insert("veth1".into(), Link::default());
        facts
    }

    fn set(facts: &mut Facts, path: &str, to: &str) {
        facts.settings.insert(path.into(), Some(to.into()));
    }

    #[test]
    fn what_is_looked_at_are_links_it_matters_on() {
        let mut paths = of_links(&facts(Controllers::default()).links);
        paths.sort();
        let expected =
            ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/eth0/rp_filter", "net/ipv6/conf/eth0/accept_ra"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn strict_filters_hurt_tunnels_that_one_node_alone_has() {
        let mut facts = facts(Controllers { routes: true, ..Controllers::default() });
        set(&mut facts, "net/ipv4/conf/veth1/rp_filter", "1");
        set(&mut facts, "net/ipv4/conf/eth0/rp_filter", "1");
        assert_eq!(reverse_paths(&facts), None, "no tunnels");
        facts.runs.tunnels = true;
        let check = reverse_paths(&facts).unwrap();
        assert_eq!(check.level, Level::Warning);
        assert!(check.found.starts_with("strict on eth0: "), "{}", check.found);
        for (of_all, of_link, is_strict) in
            [("2", "1", false), ("1", "0", true), ("0", "0", false), ("1", "2", false), ("0", "1", true)]
        {
            set(&mut facts, "net/ipv4/conf/all/rp_filter", of_all);
            set(&mut facts, "net/ipv4/conf/eth0/rp_filter", of_link);
            assert_eq!(reverse_paths(&facts).is_some(), is_strict, "{of_all} {of_link}");
        }
    }

    #[test]
    fn the_service_proxy_makes_strict_filters_loose_if_it_can() {
        let mut facts = facts(Controllers { service_proxy: true, ..Controllers::default() });
        set(&mut facts, "net/ipv4/conf/eth0/rp_filter", "1");
        assert!(reverse_paths(&facts).unwrap().found.contains("endpoints of services"));
        facts.writable.insert("net/ipv4/conf/eth0/rp_filter".into());
        assert_eq!(reverse_paths(&facts), None);
        facts.runs.runs_already = true;
        assert!(reverse_paths(&facts).is_some());
    }

    #[test]
    fn a_node_that_forwards_must_be_told_to_take_advertisements() {
        let mut facts = facts(Controllers { routes: true, ..Controllers::default() });
        set(&mut facts, "net/ipv6/conf/veth1/accept_ra", "1");
        set(&mut facts, "net/ipv6/conf/eth0/accept_ra", "1");
        assert_eq!(advertisements(&facts), None, "it neither forwards IPv6 nor will");
        facts.runs.ipv6 = true;
        let check = advertisements(&facts).unwrap();
        assert_eq!(check.level, Level::Warning);
        facts.writable.insert("net/ipv6/conf/eth0/accept_ra".into());
        assert_eq!(advertisements(&facts), None, "pod routing sets it with forwarding");
        facts.runs.controllers.routes = false;
        assert!(advertisements(&facts).is_some(), "nobody else does");
        facts.runs = Default::default();
        set(&mut facts, FORWARD_V6, "1");
        let check = advertisements(&facts).unwrap();
        assert_eq!(check.level, Level::Problem);
        assert_eq!(
            check.fix.unwrap(),
            "sysctl -w net.ipv6.conf.eth0.accept_ra=2, and the same in /etc/sysctl.d"
        );
        for taken in ["2", "0"] {
            set(&mut facts, "net/ipv6/conf/eth0/accept_ra", taken);
            assert_eq!(advertisements(&facts), None);
        }
    }
}

//! Rules: flavours of iptables, and what other programs left or keep there.

use crate::doctor::wanted::PacketFilter;
use crate::doctor::{Check, Facts, Iptables};
use crate::{names, preflight};

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![programs(facts)];
    checks.extend(mixed(facts));
    checks.push(kube_proxy(facts));
    checks.extend(docker(facts));
    checks.extend(obstacles(facts));
    checks
}

/// Chains of nft's own tables. Those of iptables, which are there, too, are not among them: with iptables ours come first,
/// and of a FORWARD that drops [`docker`] speaks.
fn obstacles(facts: &Facts) -> impl Iterator<Item = Check> {
    let nftables = facts.runs.filter == PacketFilter::Nftables;
    let others = facts.obstacles.iter().filter(move |obstacle| {
        let of_iptables = obstacle.family != "inet" && obstacle.table == "filter";
        !of_iptables || (nftables && obstacle.chain != "FORWARD")
    });
    others.map(|obstacle| Check::warning("nftables", obstacle.what(), obstacle.remedy()))
}

fn programs(facts: &Facts) -> Check {
    let nftables = facts.runs.filter == PacketFilter::Nftables;
    match &facts.iptables_default {
        Some(Ok(program)) if nftables => {
            Check::fine("iptables", format!("{program}; rules are written by nftables"))
        }
        Some(Ok(program)) => Check::fine("iptables", program.clone()),
        Some(Err(reason)) if !nftables => Check::problem(
            "iptables",
            format!("there is no usable iptables-restore: {reason}"),
            "install the package iptables (1.8 or newer), or let kube-router use nftables: --firewall-backend=auto",
        ),
        Some(Err(reason)) => {
            Check::fine("iptables", format!("not usable ({reason}); rules are written by nftables"))
        }
        None => Check::unknown("iptables", "was not looked for"),
    }
}

fn lines(iptables: &Iptables) -> impl Iterator<Item = &str> {
    iptables.dump.iter().flat_map(|dump| dump.lines())
}

fn has_chain(facts: &Facts, is_it: impl Fn(&str) -> bool) -> bool {
    let chains = facts.iptables.iter().flat_map(lines).filter_map(|line| line.strip_prefix(':'));
    chains.filter_map(|line| line.split(' ').next()).any(is_it)
}

/// Rules in both flavours: both are obeyed, and neither program shows the other's.
fn mixed(facts: &Facts) -> Option<Check> {
    let rules = |iptables: &Iptables| lines(iptables).filter(|line| line.starts_with("-A ")).count();
    let in_use: Vec<(&Iptables, usize)> = facts
        .iptables
        .iter()
        .map(|iptables| (iptables, rules(iptables)))
        .filter(|(_, rules)| *rules > 0)
        .collect();
    let unreadable = facts.iptables.iter().find_map(|iptables| iptables.dump.as_ref().err());
    if let Some(reason) = unreadable {
        return Some(Check::problem(
            "iptables",
            reason.clone(),
            "move rules of nft's own to a table of another name",
        ));
    }
    match in_use.as_slice() {
        [(one, many), (other, few)] => Some(Check::warning(
            "iptables",
            format!(
                "rules are in both flavours: {many} in {} ({}), {few} in {} ({}); the kernel obeys both, each program shows \
                 its own only",
                one.flavour, one.version, other.flavour, other.version
            ),
            "set one flavour for every program on the node (update-alternatives --set iptables …), in its containers too, \
             and remove the rules of the other",
        )),
        _ => None,
    }
}

fn kube_proxy(facts: &Facts) -> Check {
    let mut found = Vec::new();
    if has_chain(facts, preflight::is_chain_of_services) {
        found.push("iptables chains (KUBE-SERVICES and its like)");
    }
    if facts.links.keys().any(|name| **name == *preflight::LINK) {
        found.push("the link kube-ipvs0");
    }
    if facts.kube_proxy_table {
        found.push("the nftables tables kube-proxy");
    }
    if found.is_empty() {
        return Check::fine("kube-proxy", "nothing of kube-proxy is here");
    }
    let found = format!("kube-proxy runs or has left {}", found.join(", "));
    if !facts.runs.controllers.service_proxy {
        return Check::fine("kube-proxy", format!("{found}; it is the service proxy here"));
    }
    Check::problem(
        "kube-proxy",
        format!(
            "{found}: its rules come before IPVS, so kube-router's service proxy never sees those packets"
        ),
        "stop kube-proxy and remove what it left, for one by kube-proxy --cleanup; or run kube-router with \
         --run-service-proxy=false",
    )
}

/// Whether rules of others in iptables accept all that pods of kube-bridge send and receive.
fn pods_are_accepted(facts: &Facts) -> bool {
    let accepts = |direction: &str| {
        let accept = format!("{direction} {} -j ACCEPT", names::link::BRIDGE);
        let first = ["FORWARD", "DOCKER-USER"].map(|chain| format!("-A {chain} {accept}"));
        facts.iptables.iter().flat_map(lines).any(|line| first.iter().any(|rule| rule == line))
    };
    accepts("-i") && accepts("-o")
}

/// Docker sets the policy of FORWARD to DROP, which drops what no rule in iptables accepts. With nftables ours are not
/// there, and what they accept does not bind the chains of others.
fn docker(facts: &Facts) -> Option<Check> {
    let drops = facts.iptables.iter().flat_map(lines).any(|line| line.starts_with(":FORWARD DROP"));
    let is_dockers = has_chain(facts, |chain| chain.starts_with("DOCKER"));
    if !drops {
        return is_dockers
            .then(|| Check::fine("docker", "Docker's chains are here; FORWARD does not drop by default"));
    }
    let who = if is_dockers { "Docker sets" } else { "somebody sets" };
    let accept_all =
        "iptables -P FORWARD ACCEPT (for Docker: \"ip-forward-no-drop\": true in /etc/docker/daemon.json)";
    if facts.runs.controllers.routes {
        let found = format!("{who} the policy of FORWARD to DROP");
        let bridge = names::link::BRIDGE;
        return Some(if facts.runs.filter == PacketFilter::Iptables {
            Check::fine("docker", format!("{found}; pod routing accepts pods' packets before it"))
        } else if pods_are_accepted(facts) {
            Check::fine("docker", format!("{found}; rules there accept pods' packets"))
        } else {
            Check::problem(
                "docker",
                format!("{found}: pods' packets are dropped, for what nftables accepts iptables still drops"),
                format!(
                    "{accept_all}, or accept the pods' network there, with ip6tables likewise: iptables -I FORWARD -i {bridge} -j \
                     ACCEPT; iptables -I FORWARD -o {bridge} -j ACCEPT; or let kube-router write there, too: \
                     --firewall-backend=iptables"
                ),
            )
        });
    }
    Some(Check::warning(
        "docker",
        format!("{who} the policy of FORWARD to DROP: forwarded packets that no rule accepts are dropped"),
        format!("{accept_all}, or accept the pods' network in FORWARD"),
    ))
}

#[cfg(test)]
mod tests {
    use linux::nftables::obstacles::Obstacle;

    use super::*;
    use crate::doctor::Level;
    use crate::doctor::wanted::Wanted;
    use crate::options::Controllers;

    fn facts(dump: &str) -> Facts {
        let controllers = Controllers { service_proxy: true, ..Controllers::default() };
        let nft = Iptables { flavour: "nft", version: "1.8.9".into(), dump: Ok(dump.to_owned()) };
        Facts { runs: Wanted { controllers, ..Wanted::default() }, iptables: vec![nft], ..Facts::default() }
    }

    #[test]
    fn kube_proxys_chains_are_told_from_ours_and_the_kubelets() {
        let ours = ":KUBE-ROUTER-SERVICES - [0:0]\n:KUBE-NWPLCY-DEFAULT - [0:0]\n:KUBE-POD-FW-ABC - [0:0]\n";
        let kubelets = ":KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n";
        assert_eq!(kube_proxy(&facts(&format!("{ours}{kubelets}"))).level, Level::Fine);
        let mut left = facts(":KUBE-SVC-ABCDEFGHIJKLMNOP - [0:0]\n");
        assert_eq!(kube_proxy(&left).level, Level::Problem);
        left.runs.controllers.service_proxy = false;
        assert_eq!(kube_proxy(&left).level, Level::Fine, "another proxy is meant to be there");
        let mut tables = facts("");
        tables.kube_proxy_table = true;
        assert_eq!(kube_proxy(&tables).level, Level::Problem);
    }

    #[test]
    fn rules_in_both_flavours_are_named() {
        let mut both = facts("-A INPUT -j ACCEPT\n");
        assert_eq!(mixed(&both), None);
        both.iptables.push(Iptables {
            flavour: "legacy",
            version: "1.8.9".into(),
            dump: Ok(":INPUT ACCEPT [0:0]\n".into()),
        });
        assert_eq!(mixed(&both), None, "chains without rules do nothing");
        both.iptables[1].dump = Ok("-A INPUT -j DROP\n".into());
        assert!(mixed(&both).unwrap().found.contains("1 in nft (1.8.9), 1 in legacy"));
    }

    #[test]
    fn dockers_default_matters_where_nobody_accepts_pods() {
        let mut dropped = facts(":FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n");
        assert_eq!(docker(&dropped).unwrap().level, Level::Warning);
        dropped.runs.controllers.routes = true;
        assert_eq!(docker(&dropped).unwrap().level, Level::Fine);
        assert_eq!(docker(&facts(":FORWARD ACCEPT [0:0]\n")), None);
    }

    #[test]
    fn what_nftables_accepts_docker_still_drops() {
        let with = |rules: &str| {
            let mut facts = facts(&format!(":FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n{rules}"));
            facts.runs.controllers.routes = true;
            facts.runs.filter = PacketFilter::Nftables;
            docker(&facts).unwrap()
        };
        let check = with("");
        assert_eq!(check.level, Level::Problem);
        assert!(check.fix.unwrap().starts_with("iptables -P FORWARD ACCEPT"));
        let (inbound, outbound) =
            ("-A DOCKER-USER -o kube-bridge -j ACCEPT\n", "-A FORWARD -i kube-bridge -j ACCEPT\n");
        assert_eq!(with(inbound).level, Level::Problem, "one way only");
        assert_eq!(with(&format!("{inbound}{outbound}")).level, Level::Fine);
    }

    #[test]
    fn chains_of_others_that_drop_are_told_once() {
        let obstacle = |family, table: &str, chain: &str| Obstacle {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            by_policy: true,
        };
        let mut facts = facts("");
        facts.obstacles = vec![
            obstacle("ip", "filter", "FORWARD"),
            obstacle("ip6", "filter", "INPUT"),
            obstacle("inet", "filter", "forward"),
        ];
        let chains = |facts: &Facts| -> Vec<String> {
            obstacles(facts).map(|check| check.found.split(" drops").next().unwrap().to_owned()).collect()
        };
        assert_eq!(chains(&facts), ["chain forward of table inet filter"]);
        facts.runs.filter = PacketFilter::Nftables;
        assert_eq!(
            chains(&facts),
            ["chain INPUT of table ip6 filter", "chain forward of table inet filter"],
            "what ours accept does not bind them"
        );
    }

    #[test]
    fn iptables_must_work_where_it_is_written_to() {
        let mut facts = facts("");
        facts.iptables_default = Some(Err("not found".into()));
        assert_eq!(programs(&facts).level, Level::Problem);
        facts.runs.filter = PacketFilter::Nftables;
        assert_eq!(programs(&facts).level, Level::Fine);
        facts.iptables_default = Some(Ok("iptables-restore 1.8.9 (nft)".into()));
        assert_eq!(programs(&facts).found, "iptables-restore 1.8.9 (nft); rules are written by nftables");
    }
}

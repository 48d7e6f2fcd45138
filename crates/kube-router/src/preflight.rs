//! What another service proxy left on this node: looked for once, before the service proxy starts.
//!
//! Two proxies on one node fight over the same packets, and the loser is told nothing: kube-proxy's destination NAT
//! comes before IPVS, which then never sees them. Decided here, from the rules, links and tables of others: what is
//! kube-proxy's, and the commands that remove it. Nothing is removed, and nothing keeps the agent from starting.
//!
//! Sources: names in kube-proxy's `pkg/proxy/iptables`, `pkg/proxy/ipvs`, `pkg/proxy/nftables`.

use std::fmt;

use linux::iptables::save::chain_names;
use linux::iptables::tool::{Flavour, Programs, legacy_tables_exist};
use linux::nftables;
use linux::route::{Rtnetlink, links};
use linux::row::{Family, Name};

/// Chains of services: of its iptables mode, then of its IPVS mode, whose filters refuse what is sent to service
/// addresses of ours. Those of the kubelet are named `KUBE-`, too, but not like these.
const CHAINS: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// What chains of single services and endpoints begin with.
const CHAIN_PREFIXES: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-"];
/// Lines of a dump that are kube-proxy's, as `grep -E` says it: neither the kubelet's nor ours, so that the command may
/// run while they do. The README has a copy.
const LINES: &str = "KUBE-(SERVICES|NODEPORTS|NODE-PORT|EXTERNAL-SERVICES|LOAD-BALANCER|SOURCE-RANGES-FIREWALL|IPVS-|\
                     FORWARD|PROXY-|SVC-|SVL-|SEP-|EXT-|XLB-|FW-)";
/// The link that holds service addresses in its IPVS mode.
pub(crate) const LINK: &str = "kube-ipvs0";
/// Its table in nftables mode, of each family.
const TABLE: &str = "kube-proxy";

/// Something of kube-proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Chains of services.
    Rules {
        /// The program that shows them.
        save: String,
        /// The program that writes them.
        restore: String,
    },
    /// The link with service addresses, and virtual servers.
    Link,
    /// Its own nftables tables.
    Table,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = "stop kube-proxy on this node, then run";
        match self {
            Leftover::Rules { save, restore } => write!(
                f,
                "kube-proxy's rules are on this node and take packets before IPVS sees them: {before}: \
                 {save} | grep -vE '{LINES}' | {restore}"
            ),
            Leftover::Link => write!(
                f,
                "kube-proxy's link {LINK} with service addresses is on this node: {before}: ip link delete {LINK}"
            ),
            Leftover::Table => write!(
                f,
                "kube-proxy's nftables tables are on this node and take packets before IPVS sees them: {before}: \
                 nft delete table ip {TABLE}; nft delete table ip6 {TABLE}"
            ),
        }
    }
}

/// What of kube-proxy's is in this network namespace. Asked by netlink; programs are started only where there are rules of
/// theirs to look at. What cannot be asked (no nf_tables, no such program) holds nothing. O(links + chains).
pub fn leftovers() -> Vec<Leftover> {
    let mut found = Vec::new();
    let in_nft =
        nftables::chains_of_iptables().is_ok_and(|names| names.iter().any(|name| is_chain_of_services(name)));
    let in_legacy = Family::ALL.into_iter().any(legacy_tables_exist);
    for (flavour, look) in [(Flavour::Legacy, in_legacy), (Flavour::Nft, in_nft)] {
        // Older installations have one flavour, without its name.
        let programs = look.then(|| Programs::of(flavour).or_else(|_| Programs::detect()));
        found.extend(programs.and_then(Result::ok).into_iter().flat_map(|programs| rules(&programs)));
    }
    let links = Rtnetlink::open().and_then(|mut kernel| links(&mut kernel));
    if links.is_ok_and(|links| links.iter().any(|link| *link.name == *LINK)) {
        found.push(Leftover::Link);
    }
    if has_table() {
        found.push(Leftover::Table);
    }
    found
}

/// Whether a table of its nftables mode is here. Asked by netlink; what cannot be asked has none.
pub(crate) fn has_table() -> bool {
    let name = || Name::from(TABLE);
    let tables = nftables::Names { table_v4: name(), table_v6: name(), service_ports: name() };
    nftables::is_in_use(&tables).unwrap_or(false)
}

fn rules(programs: &Programs) -> Vec<Leftover> {
    let theirs = Family::ALL.into_iter().filter(|family| {
        programs.save(*family).is_ok_and(|dump| chain_names(&dump).any(is_chain_of_services))
    });
    let named = theirs.map(|family| Leftover::Rules {
        save: programs.program(family, "save"),
        restore: programs.program(family, "restore"),
    });
    named.collect()
}

/// Whether a chain of this name is kube-proxy's.
pub(crate) fn is_chain_of_services(name: &str) -> bool {
    CHAINS.contains(&name) || CHAIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn chains_of_services_are_told_from_those_of_the_kubelet_and_ours() {
        let of_others = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
                         :KUBE-KUBELET-CANARY - [0:0]\n:KUBE-ROUTER-HAIRPIN - [0:0]\nCOMMIT\n*filter\n\
                         :KUBE-FIREWALL - [0:0]\n:KUBE-ROUTER-SERVICES - [0:0]\n:KUBE-POD-FW-X - [0:0]\nCOMMIT\n";
        let theirs = |dump: &str| chain_names(dump).any(is_chain_of_services);
        assert!(!theirs(of_others));
        for chain in ["KUBE-SERVICES", "KUBE-SVC-ERIFXISQEP7F7OF4", "KUBE-SEP-A", "KUBE-IPVS-FILTER"] {
            assert!(theirs(&format!("{of_others}*nat\n:{chain} - [0:0]\nCOMMIT\n")), "{chain}");
        }
        for line in of_others.lines() {
            assert!(!is_removed(line), "{line}");
        }
    }

    /// What `grep -E` with [`LINES`] finds: a list of beginnings.
    fn is_removed(line: &str) -> bool {
        let beginnings = LINES.strip_prefix("KUBE-(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let mut beginnings =
            beginnings.split('|').inspect(|one| assert!(!one.contains(['(', '[', '.', '*'])));
        beginnings.any(|one| line.contains(&format!("KUBE-{one}")))
    }

    /// Names in kube-proxy's `pkg/proxy/iptables` and `pkg/proxy/ipvs`.
    #[test]
    fn the_remedy_takes_every_chain_of_theirs_and_the_jump_to_it() {
        let others = ["KUBE-FORWARD", "KUBE-PROXY-CANARY"];
        for chain in CHAINS.into_iter().chain(CHAIN_PREFIXES).chain(others) {
            for line in [format!(":{chain} - [0:0]"), format!("-A INPUT -j {chain}")] {
                assert!(is_removed(&line), "{line}");
            }
        }
        for ours in [names::chain::SERVICES, names::chain::FORWARD, names::chain::POD_PREFIX] {
            assert!(!is_removed(ours), "{ours}");
        }
    }

    #[test]
    fn pages_show_the_same_command() {
        for (page, start) in [("README.md", "theirs='"), ("docs/first-hour.md", "grep -vE '")] {
            let path = format!("{}/../../{page}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let mut shown: Vec<&str> = text.split(start).skip(1).collect();
            shown.retain(|rest| rest.starts_with("KUBE-"));
            assert!(!shown.is_empty(), "{page}");
            for rest in shown {
                assert_eq!(rest.split('\'').next(), Some(LINES), "{page}");
            }
        }
    }

    #[test]
    fn the_remedy_is_a_command() {
        let rules =
            Leftover::Rules { save: "ip6tables-nft-save".into(), restore: "ip6tables-nft-restore".into() };
        let text = rules.to_string();
        let command = format!("run: ip6tables-nft-save | grep -vE '{LINES}' | ip6tables-nft-restore");
        assert!(text.ends_with(&command), "{text}");
        assert!(Leftover::Link.to_string().ends_with("run: ip link delete kube-ipvs0"));
    }
}

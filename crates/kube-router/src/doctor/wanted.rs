//! What the agent will want of the node: options, as far as doctor judges by them, with what of the node decides what
//! they mean.
//!
//! Decided here: which packet filter the agent would take, as it does itself when it starts (`core::backend`), but without
//! touching anything.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::core::cni_files;
use crate::options::{Controllers, Encap, FirewallBackend, Options, Overlay};

/// What is to run.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Which controllers.
    pub controllers: Controllers,
    /// What rules are written to.
    pub filter: PacketFilter,
    /// IPv6 is switched on.
    pub ipv6: bool,
    /// Tunnels may be needed.
    pub tunnels: bool,
    /// They are wrapped in UDP.
    pub fou: bool,
    /// Where the CNI file may be, if it is to be kept: in one folder, the first that is there is used.
    pub cni: Vec<PathBuf>,
    /// The port BGP listens on, if it does.
    pub bgp_port: Option<u16>,
    /// An agent runs with just this: what it keeps and is not there, it could not write.
    pub runs_already: bool,
}

/// What rules are written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PacketFilter {
    /// The programs of iptables, and IP sets.
    #[default]
    Iptables,
    /// nf_tables alone, by netlink.
    Nftables,
}

/// What of the node decides what options mean.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Tables of ours are in nftables.
    pub ours_in_nftables: bool,
    /// The programs of iptables work.
    pub has_iptables: bool,
    /// The agent's variable for the CNI file, or this process's.
    pub cni_file: Option<OsString>,
    /// The options are those of the agent that runs.
    pub runs_already: bool,
}

impl Wanted {
    /// What these options ask for on a node where that was found.
    pub fn of(options: &Options, found: Found) -> Wanted {
        let routes = options.controllers.routes;
        let keeps_cni = routes && options.routes.cni;
        Wanted {
            controllers: options.controllers,
            filter: PacketFilter::of(options.firewall, found.ours_in_nftables, found.has_iptables),
            ipv6: options.families.ipv6,
            tunnels: routes && options.routes.overlay != Overlay::Off,
            fou: matches!(options.routes.encap, Encap::Fou(_)),
            cni: if keeps_cni { cni_files(found.cni_file) } else { Vec::new() },
            bgp_port: routes.then_some(options.bgp.port),
            runs_already: found.runs_already,
        }
    }
}

impl PacketFilter {
    /// Without a wish what holds our objects, else iptables if its programs are there, else nftables.
    fn of(wish: FirewallBackend, ours_in_nftables: bool, has_iptables: bool) -> PacketFilter {
        match wish {
            FirewallBackend::Iptables => PacketFilter::Iptables,
            FirewallBackend::Nftables => PacketFilter::Nftables,
            FirewallBackend::Auto if has_iptables && !ours_in_nftables => PacketFilter::Iptables,
            FirewallBackend::Auto => PacketFilter::Nftables,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn of(flags: &[&str], found: Found) -> Wanted {
        Wanted::of(&Options::from_flags(flags).unwrap(), found)
    }

    #[test]
    fn the_packet_filter_is_the_one_the_agent_would_take() {
        use PacketFilter::{Iptables, Nftables};
        for (flag, ours_in_nftables, has_iptables, expected) in [
            ("auto", false, true, Iptables),
            ("auto", true, true, Nftables),
            ("auto", false, false, Nftables),
            ("auto", true, false, Nftables),
            ("iptables", true, false, Iptables),
            ("nftables", false, true, Nftables),
        ] {
            let flag = format!("--firewall-backend={flag}");
            let found = Found { ours_in_nftables, has_iptables, ..Found::default() };
            let case = format!("{flag} {ours_in_nftables} {has_iptables}");
            assert_eq!(of(&[&flag], found).filter, expected, "{case}");
        }
    }

    #[test]
    fn what_belongs_to_pod_routing_is_wanted_with_it_only() {
        let without = of(&["--run-router=false"], Found::default());
        assert_eq!((without.cni, without.bgp_port, without.tunnels), (Vec::new(), None, false));
        let with = of(&["--run-router", "--bgp-port=1790"], Found::default());
        assert_eq!((with.bgp_port, with.tunnels), (Some(1790), true));
        assert_eq!(with.cni, names::CNI_FILES.map(PathBuf::from));
        let elsewhere = || Found { cni_file: Some("/etc/cni/multus/05.conf".into()), ..Found::default() };
        assert_eq!(of(&["--run-router"], elsewhere()).cni, [PathBuf::from("/etc/cni/multus/05.conf")]);
        assert!(of(&["--run-router", "--enable-cni=false"], elsewhere()).cni.is_empty());
    }
}

//! The flag of the packet filter, which every controller writes to.

use super::refusal::BadFlag;

/// What programs the packet filter, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Packet filter")]
pub(super) struct FirewallFlags {
    /// "iptables", "nftables", or "auto": what kube-router uses on this node already, else iptables where it is
    /// installed
    #[arg(long, default_value = "auto")]
    firewall_backend: String,
}

/// What programs the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallBackend {
    /// What kube-router uses on this node already; else iptables where it is installed, else nftables.
    Auto,
    /// The programs of iptables, and IP sets.
    Iptables,
    /// nftables alone, without any program.
    Nftables,
}

impl FirewallBackend {
    /// `policy` is what `--use-nftables-for-netpol` says: nftables, for everything.
    pub(super) fn read(flags: &FirewallFlags, policy: bool) -> Result<Self, BadFlag> {
        let backend = match flags.firewall_backend.as_str() {
            "auto" if policy => FirewallBackend::Nftables,
            "auto" => FirewallBackend::Auto,
            "nftables" => FirewallBackend::Nftables,
            "iptables" if policy => {
                return Err(BadFlag::new(
                    "firewall-backend",
                    "iptables",
                    "--use-nftables-for-netpol says nftables",
                ));
            }
            "iptables" => FirewallBackend::Iptables,
            other => {
                return Err(BadFlag::new("firewall-backend", other, "neither auto, iptables nor nftables"));
            }
        };
        Ok(backend)
    }
}

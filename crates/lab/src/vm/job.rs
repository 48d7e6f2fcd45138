//! What the host asks the guest to do, and what the guest answers: the whole protocol between the two.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One command to run in the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// A heading printed before the command, when there are several.
    pub title: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory; a path of the host, which is a path of the guest.
    pub cwd: PathBuf,
    /// Variables set besides those of [`Job::env`].
    pub env: Vec<(String, String)>,
}

/// Everything one boot does. Written as JSON next to the console log before the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Run one after the other; a failed one does not stop the next.
    pub steps: Vec<Step>,
    /// Environment of every step.
    pub env: Vec<(String, String)>,
    /// Modules loaded before the first step; one that this kernel does not have is reported and left out.
    pub modules: Vec<String>,
    /// Host folder with `lib/modules/VERSION` of the guest's kernel.
    pub modules_root: PathBuf,
    /// Folders that are given a fresh tmpfs, so that the guest cannot write the host's.
    pub scratch: Vec<PathBuf>,
    /// Host paths that stay visible although they lie in a scratch folder (the repository may live in /tmp).
    pub keep: Vec<PathBuf>,
    /// Steps run on an interactive console instead of the two output ports.
    pub interactive: bool,
    /// Rows and columns of the console.
    pub size: Option<(u16, u16)>,
}

/// The guest's last word, one line of JSON on the control port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Verdict {
    /// Exit status of every step that ran, in order, as a shell reports it.
    Done(Vec<i32>),
    /// The guest could not get to the point of running the steps.
    Broken(String),
}

/// Kernel modules the service proxy, the policies, the overlays and containers need. Loaded by name at the start because a test
/// that finds a module missing should say so, not find out through an odd errno.
pub const MODULES: &[&str] = &[
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_sh",
    "ip_vs_dh",
    "ip_vs_mh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "dummy",
    "veth",
    "bridge",
    "br_netfilter",
    "ipip",
    "ip6_tunnel",
    "fou",
    "fou6",
    "sctp",
    "nf_tables",
    "nf_conntrack_netlink",
    "nfnetlink_log",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "ip_set_hash_ipport",
    "ip_set_hash_netport",
    "ip_set_bitmap_port",
    "xt_set",
    "xt_ipvs",
    "xt_mark",
    "xt_comment",
    "xt_addrtype",
    "xt_conntrack",
    "xt_physdev",
    "xt_MASQUERADE",
    "xt_multiport",
    "xt_statistic",
    "xt_NFLOG",
    "xt_TCPMSS",
    "xt_tcpudp",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "ip6table_mangle",
    "nft_compat",
    "overlay",
];

//! What the service proxy needs of the node itself: the link for service addresses, kernel settings, sets and rules
//! that do not depend on any Service.

use linux::reconciler::Claim;
use linux::row::{Family, IpvsTimeouts, Key, Link, LinkKind, Name, Row};

use super::firewall;
use crate::names;
use crate::node::ThisNode;
use crate::options::Options;

/// Settings that IPVS with connection tracking and VIPs on a local link need, below /proc/sys.
const SETTINGS: [(&str, &str); 6] = [
    // Masquerading and policy need connection tracking of what IPVS forwards.
    ("net/ipv4/vs/conntrack", "1"),
    // A connection whose real server was removed ends instead of hanging.
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    // Session affinity does not outlive a real server of weight 0.
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    // A reused client port is scheduled like any other instead of costing a second (kernel 5.9 and later: safe).
    ("net/ipv4/vs/conn_reuse_mode", "0"),
    // VIPs are on a local link but are not to be answered for by ARP on others.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
];

/// All of them: paths, and the values they are to have.
pub fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.into_iter()
}

/// The rows. O(families).
pub fn claims(node: &ThisNode, options: &Options) -> Vec<Claim> {
    let dummy = Link { kind: LinkKind::Dummy, up: true, mtu: None };
    let mut claims = vec![Claim::new(Key::Link(names::link::DUMMY.into()), Row::Link(Box::new(dummy)))];
    claims.extend(SETTINGS.iter().map(|(path, value)| sysctl(path, value)));
    claims.extend(loose_reverse_path_filters(node));
    claims.extend(timeouts_claim(options));
    for family in node.families() {
        claims.extend(firewall::sets(family));
        claims.extend(firewall::masquerade(family, node, options));
        if options.service_proxy.service_firewall {
            claims.extend(firewall::service_firewall(family));
        }
    }
    claims
}

/// Strict reverse path filtering drops replies of real servers that come in elsewhere: on the node's own links
/// and the bridge, where it is on (1) it is made loose (2); where it is off it stays off.
fn loose_reverse_path_filters(node: &ThisNode) -> Vec<Claim> {
    let own: Vec<&str> = Family::ALL
        .into_iter()
        .filter_map(|family| node.link_of(node.best_ip(family)?))
        .map(|link| &**link)
        .chain(["all", names::link::BRIDGE])
        .collect();
    let filters = node.facts.rp_filter.iter().filter(|(link, value)| **value == 1 && own.contains(&&***link));
    filters.map(|(link, _)| sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "2")).collect()
}

fn timeouts_claim(options: &Options) -> Option<Claim> {
    let row = timeouts(options);
    let any = row.tcp + row.tcp_fin + row.udp > 0;
    any.then(|| Claim::new(Key::IpvsTimeouts, Row::IpvsTimeouts(row)))
}

/// The timeouts asked for; 0 keeps what the kernel has.
pub fn timeouts(options: &Options) -> IpvsTimeouts {
    let asked = options.service_proxy.timeouts;
    IpvsTimeouts {
        tcp: asked.tcp.unwrap_or(0),
        tcp_fin: asked.tcp_fin.unwrap_or(0),
        udp: asked.udp.unwrap_or(0),
    }
}

fn sysctl(path: &str, value: &str) -> Claim {
    Claim::new(Key::Sysctl(Name::from(path)), Row::Sysctl(Name::from(value)))
}

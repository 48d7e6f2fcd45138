//! Every name and number on a node that a user, another program or a Go kube-router on the same node can see.
//!
//! Nothing is decided here but spelling, and the spelling is upstream's: a node can be handed over in either
//! direction. Names built from objects (hashes) are made where the object is known, from the prefixes here.

/// Chains in `filter` and `nat`.
pub mod chain {
    /// The service firewall (filter), reached from INPUT for traffic to service addresses.
    pub const SERVICES: &str = "KUBE-ROUTER-SERVICES";
    /// Source NAT of pods that reach themselves through a service (nat), reached from POSTROUTING.
    pub const HAIRPIN: &str = "KUBE-ROUTER-HAIRPIN";
    /// Network policy for traffic to the node's sockets, and to IPVS.
    pub const INPUT: &str = "KUBE-ROUTER-INPUT";
    /// Network policy for forwarded traffic.
    pub const FORWARD: &str = "KUBE-ROUTER-FORWARD";
    /// Network policy for the node's own traffic, and for what IPVS has sent on.
    pub const OUTPUT: &str = "KUBE-ROUTER-OUTPUT";
    /// Marks what no policy restricts.
    pub const POLICY_DEFAULT: &str = "KUBE-NWPLCY-DEFAULT";
    /// What every pod accepts or drops before its policies.
    pub const POLICY_COMMON: &str = "KUBE-NWPLCY-COMMON";
    /// The verdict after all pods.
    pub const POLICY_TAIL: &str = "KUBE-NWPLCY-TAIL";
    /// A network policy; 16 characters of a hash follow.
    pub const POLICY_PREFIX: &str = "KUBE-NWPLCY-";
    /// What a Go kube-router hooked in nftables, under another name until it goes; the chain's number follows. Ours.
    pub const FORMER_PREFIX: &str = "KUBE-NWPLCY-FORMER-";
    /// A pod; 16 characters of a hash follow.
    pub const POD_PREFIX: &str = "KUBE-POD-FW-";
    /// Finds the chain of the pod a packet is for, in a map (nftables). Ours.
    pub const POD_INGRESS: &str = "KUBE-POD-FW-INGRESS";
    /// Finds the chain of the pod a packet is from. Ours.
    pub const POD_EGRESS: &str = "KUBE-POD-FW-EGRESS";
}

/// IP sets. Those of IPv6 carry a prefix in the kernel: see [`linux::ipset::kernel_name`].
pub mod set {
    /// Addresses of this node (hash:ip).
    pub const LOCAL_IPS: &str = "kube-router-local-ips";
    /// Addresses of services (hash:ip).
    pub const SERVICE_IPS: &str = "kube-router-svip";
    /// Addresses of services with protocol and port (hash:ip,port).
    pub const SERVICE_PORTS: &str = "kube-router-svip-prt";
    /// Pod networks of all nodes (hash:net).
    pub const POD_SUBNETS: &str = "kube-router-pod-subnets";
    /// Addresses of all nodes (hash:ip).
    pub const NODE_IPS: &str = "kube-router-node-ips";
    /// Pods of this node whose rules are in place (hash:ip).
    pub const LOCAL_PODS: &str = "kube-router-local-pods";
    /// Pods of this node that serve something they may reach themselves through: (pod, protocol and port, the same pod)
    /// (hash:ip,port,ip). Ours; upstream writes a rule for each instead.
    pub const HAIRPIN: &str = "kube-router-hairpin";
    /// Pods of this node, where no pod prefix of it is known (hash:ip). Ours.
    pub const NODE_PODS: &str = "kube-router-node-pods";
    /// Where packets to pods of this node are judged: a verdict map by address, with nftables. Ours.
    pub const POD_INGRESS: &str = "kube-router-pod-ingress";
    /// Where packets of pods of this node are judged: a verdict map by address, with nftables. Ours.
    pub const POD_EGRESS: &str = "kube-router-pod-egress";
    /// Peers of network policies: pods, or prefixes; 16 characters of a hash follow.
    pub const SOURCE_PREFIX: &str = "KUBE-SRC-";
    /// Ports of pods by name, for network policies; 16 characters of a hash follow.
    pub const DESTINATION_PREFIX: &str = "KUBE-DST-";
    /// What is filled before it is swapped with a set, by a Go kube-router and by this one; a leftover if that was killed
    /// in between. 16 characters of a hash follow: base 32 there, hexadecimal here.
    pub const TEMPORARY_PREFIX: &str = linux::firewall::TEMPORARY_PREFIX;
}

/// Tables of nftables.
pub mod table {
    /// Everything of IPv4 (family `ip`).
    pub const V4: &str = "kube-router-filter-ipv4";
    /// Everything of IPv6 (family `ip6`).
    pub const V6: &str = "kube-router-filter-ipv6";
}

/// Network interfaces.
pub mod link {
    /// The dummy link that holds service addresses.
    pub const DUMMY: &str = "kube-dummy-if";
    /// The bridge of the pods.
    pub const BRIDGE: &str = "kube-bridge";
    /// A tunnel to another node; 11 hexadecimal digits follow.
    pub const TUNNEL_PREFIX: &str = "tun-";
    /// The tunnel inside of an IPv4 pod with direct server return.
    pub const POD_TUNNEL_V4: &str = "kube-tunnel-if";
    /// The tunnel inside of an IPv6 pod with direct server return.
    pub const POD_TUNNEL_V6: &str = "kube-tunnel-v6";
    /// Links whose name contains one of these hold no address of the node itself.
    pub const NOT_NODE_LOCAL: [&str; 3] = ["dummy", "kube", "docker"];
}

/// Order of our rules at the head of chains that are not ours: lower ranks come first.
pub mod rank {
    /// Jumps to network policy in `filter`.
    pub const POLICY: u8 = 10;
    /// The jump to the service firewall in `filter`.
    pub const SERVICES: u8 = 20;
    /// What is accepted from and to pods in `filter`.
    pub const PODS: u8 = 30;
    /// The jump to hairpin source NAT in `nat`.
    pub const HAIRPIN: u8 = 10;
}

/// Routing tables, rule priorities and the route protocol.
pub mod route {
    /// Routes from pods to nodes behind a tunnel (`kube-router`).
    pub const TABLE_OVERLAY: u32 = 77;
    /// Delivers traffic with a DSR mark to this node (`kube-router-dsr`).
    pub const TABLE_DSR: u32 = 78;
    /// Answers of external IPs (`external_ip`).
    pub const TABLE_EXTERNAL_IP: u32 = 79;
    /// The name of [`TABLE_OVERLAY`] in `rt_tables`.
    pub const OVERLAY_NAME: &str = "kube-router";
    /// The names of these tables in `rt_tables`.
    pub const TABLE_NAMES: [(u32, &str); 3] =
        [(TABLE_OVERLAY, OVERLAY_NAME), (TABLE_DSR, "kube-router-dsr"), (TABLE_EXTERNAL_IP, "external_ip")];
    /// The kernel's table of all other routes.
    pub const TABLE_MAIN: u32 = 254;
    /// The kernel's table of local addresses.
    pub const TABLE_LOCAL: u32 = 255;
    /// Priority of the rules that send a DSR mark to [`TABLE_DSR`].
    pub const PRIORITY_DSR: u32 = 32_764;
    /// Priority of the rule that looks into [`TABLE_EXTERNAL_IP`].
    pub const PRIORITY_EXTERNAL_IP: u32 = 32_765;
    /// Marks a learned route as ours (0x11). `linux/rtnetlink.h` calls the number `RTPROT_MROUTED`; upstream uses it, so do we.
    pub const PROTOCOL: u8 = 17;
    /// What the kernel itself writes on routes of local addresses (`RTPROT_KERNEL`), and upstream on those it replaces.
    pub const PROTOCOL_KERNEL: u8 = 2;
}

/// ICMP messages that are let in whatever else is refused, by type number, with the comment on their rule.
pub mod icmp {
    /// ICMP (RFC 792).
    pub const ALLOWED_V4: [(u8, &str); 3] = [
        (8, "allow icmp echo requests"),
        (3, "allow icmp destination unreachable messages"),
        (11, "allow icmp time exceeded messages"),
    ];
    /// ICMPv6 (RFC 4443, 4861). Packet too big is not in upstream's list; without it path MTU discovery fails.
    pub const ALLOWED_V6: [(u8, &str); 7] = [
        (128, "allow icmp echo requests"),
        (1, "allow icmp destination unreachable messages"),
        (3, "allow icmp time exceeded messages"),
        (135, "allow icmp neighbor solicitation messages"),
        (136, "allow icmp neighbor advertisement messages"),
        (129, "allow icmp echo replies"),
        (2, "allow icmp packet too big messages"),
    ];
}

/// Packet marks.
pub mod mark {
    /// Some network policy, or the absence of one, permits the packet.
    pub const POLICY_PERMITS: u32 = 0x1_0000;
    /// The packet passed the chain of its pod.
    pub const POD_PASSED: u32 = 0x2_0000;
    /// In the mark of a connection: a change of policy forbade it. Ours, and none of the bits above, so that programs which
    /// copy packet marks to connections do not set it.
    pub const FLOW_FORBIDDEN: u32 = 0x4_0000;
    /// The bits a DSR service may use.
    pub const DSR_MASK: u32 = 0x3fff;
}

/// The variable that names the CNI configuration file.
pub const CNI_FILE_VARIABLE: &str = "KUBE_ROUTER_CNI_CONF_FILE";
/// The CNI configuration file, the first of these that is there, unless [`CNI_FILE_VARIABLE`] names another.
pub const CNI_FILES: [&str; 2] =
    ["/etc/cni/net.d/10-kuberouter.conf", "/etc/cni/net.d/10-kuberouter.conflist"];
/// The CNI plugin that waits for network policy: the name of its program, which is this one, and its `type`.
pub const CNI_PLUGIN: &str = "kube-router-cni";
/// Where CNI plugins are, unless `CNI_PATH` names other folders.
pub const CNI_FOLDERS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The socket on which a running agent is asked and told; records of pods that the CNI plugin wired are beside it.
pub const SOCKET: &str = "/run/kube-router/kube-router.sock";

/// The NFLOG group that refused packets go to.
pub const NFLOG_GROUP: u16 = 100;

/// Comments of rules. They are part of a rule's identity: another text is another rule after an upgrade.
pub mod comment {
    /// On the jump to the service firewall.
    pub const SERVICES_JUMP: &str = "handle traffic to IPVS service IPs in custom chain";
    /// On the rule that accepts a service's own ports.
    pub const SERVICES_ACCEPT: &str = "allow input traffic to ipvs services";
    /// On the rule that rejects other ports of service addresses.
    pub const SERVICES_REJECT: &str = "reject all unexpected traffic to service IPs";
    /// On masquerade rules.
    pub const MASQUERADE: &str = "";
    /// On the jump to a network policy chain, before its ` - <hash>`.
    pub const POLICY_JUMP: &str = "kube-router netpol";
    /// On the jump to the verdict after all pods.
    pub const POLICY_TAIL: &str =
        "rule to explicitly handle traffic for network policies ACCEPT/REJECT decision";
    /// On the rule that accepts what passed its pod's chain.
    pub const POLICY_ACCEPT: &str = "rule to explicitly ACCEPT traffic that comply to network policies";
    /// On the FORWARD rule for what pods send.
    pub const PODS_OUTBOUND: &str = "allow outbound traffic from pods";
    /// On the FORWARD rule for what pods receive.
    pub const PODS_INBOUND: &str = "allow inbound traffic to pods";
    /// On the FORWARD rule for NodePort traffic that leaves by the node's own link.
    pub const NODE_PORT_OUTBOUND: &str =
        "allow outbound node port traffic on node interface with which node ip is associated";
}

/// Labels and label values on services and endpoint slices.
pub mod label {
    /// Names the proxy that serves a service; another value than [`PROXY_NAME`] means not us.
    pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
    /// Our value of [`SERVICE_PROXY_NAME`].
    pub const PROXY_NAME: &str = "kube-router";
    /// Marks what no proxy serves.
    pub const HEADLESS: &str = "service.kubernetes.io/headless";
    /// Names the service of an endpoint slice.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// An annotation of the object that stands for a static pod: the UID under which its kubelet runs it.
    pub const MIRRORED_POD: &str = "kubernetes.io/config.mirror";
}

#[cfg(test)]
mod tests {
    use linux::ipset::kernel_name;
    use linux::row::{Family, SetKey};

    use super::*;

    /// The kernel's limits: 15 bytes for a link (IFNAMSIZ), 28 for a chain (XT_EXTENSION_MAXNAMELEN), 31 for a set
    /// (IPSET_MAXNAMELEN).
    #[test]
    fn names_fit_the_kernel() {
        for link in [link::DUMMY, link::BRIDGE, link::POD_TUNNEL_V4, link::POD_TUNNEL_V6] {
            assert!(link.len() <= 15, "{link}");
        }
        for chain in [chain::SERVICES, chain::HAIRPIN, chain::POLICY_DEFAULT, chain::POLICY_COMMON] {
            assert!(chain.len() <= 28, "{chain}");
        }
        assert!(chain::POLICY_PREFIX.len() + 16 <= 28);
        for set in [set::LOCAL_IPS, set::SERVICE_IPS, set::SERVICE_PORTS, set::POD_SUBNETS, set::NODE_IPS] {
            let key = SetKey { family: Family::V6, name: set.into() };
            assert!(kernel_name(&key).len() <= 31, "{set}");
        }
        let hashed = format!("{}{:016}", set::SOURCE_PREFIX, 0);
        assert!(kernel_name(&SetKey { family: Family::V6, name: hashed.into() }).len() <= 31);
    }
}

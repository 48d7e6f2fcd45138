//! What a Go kube-router and its neighbours leave on a node when they stop, as `iptables-save`, `ipset save` and
//! `nft list ruleset` would tell it.
//!
//! Decided here: nothing but spelling. Comments, marks, layout and the hashes of the rules at fixed places are upstream's;
//! the hashes of chains and sets are invented, as they differ with every synchronisation anyway.

use std::fmt::Write;
use std::net::IpAddr;

use lab::policy::Member;

/// The chain of the policy `x/base`, its targets and its peers; those of pods end in a number.
const POLICY: &str = "KUBE-NWPLCY-KO6A36LCAMQLSXI4";
const TARGETS: &str = "KUBE-DST-M6PZR535OW6JMOTI";
const PEERS: &str = "KUBE-SRC-FKHFCEK6N6YXDOWU";
const POD: &str = "KUBE-POD-FW-27RLTRRO6ODJFI2";
const LOCAL_PODS: &str = "kube-router-local-pods";
/// What names end in that only a synchronisation of upstream's would have made.
pub(crate) const DYNAMIC: [&str; 4] =
    ["KO6A36LCAMQLSXI4", "M6PZR535OW6JMOTI", "FKHFCEK6N6YXDOWU", "27RLTRRO6ODJFI"];

/// One family of a node.
pub(crate) struct Left<'a> {
    /// 0 for IPv4, 1 for IPv6: index of addresses.
    pub(crate) family: usize,
    /// Pods of the node.
    pub(crate) local: Vec<&'a Member>,
    /// Pods that the policy is about, and those it lets in.
    pub(crate) targets: Vec<&'a Member>,
    pub(crate) peers: Vec<&'a Member>,
    /// The node's pod network.
    pub(crate) network: String,
}

/// A line of a policy's chain is two: mark, and return.
fn allow(rules: &mut String, matches: &str) {
    for verdict in ["-j MARK --set-xmark 0x10000/0x10000", "-m mark --mark 0x10000/0x10000 -j RETURN"] {
        let _ = writeln!(rules, "-A {POLICY} -m comment --comment \"rule to ACCEPT\" {matches} {verdict}");
    }
}

impl Left<'_> {
    fn address(&self, member: &Member) -> IpAddr {
        member.addresses[self.family]
    }

    fn set(&self, name: &str) -> String {
        format!("{}{name}", ["", "inet6:"][self.family])
    }

    /// The chains of the local pods, in their order.
    fn chains(&self) -> Vec<String> {
        (2..).take(self.local.len()).map(|number| format!("{POD}{number}")).collect()
    }

    /// The chain that judges what a pod receives.
    fn ingress(&self, member: &Member) -> &'static str {
        match self.targets.iter().any(|target| target.name == member.name) {
            true => POLICY,
            false => "KUBE-NWPLCY-DEFAULT",
        }
    }

    /// Input of `ipset restore`.
    pub(crate) fn sets(&self) -> String {
        let family = ["inet", "inet6"][self.family];
        let mut text = String::new();
        for (name, members) in [(TARGETS, &self.targets), (PEERS, &self.peers), (LOCAL_PODS, &self.local)] {
            let name = self.set(name);
            let _ =
                writeln!(text, "create {name} hash:ip family {family} hashsize 1024 maxelem 65536 timeout 0");
            for member in members {
                let _ = writeln!(text, "add {name} {} timeout 0", self.address(member));
            }
        }
        text
    }

    /// Input of `iptables-restore` or `ip6tables-restore`; with neighbours' rules before and between upstream's.
    pub(crate) fn rules(&self, default_deny: bool) -> String {
        let mut text = String::from("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n");
        let pods = self.chains();
        let statics = [
            "ROUTER-INPUT",
            "ROUTER-FORWARD",
            "ROUTER-OUTPUT",
            "NWPLCY-DEFAULT",
            "NWPLCY-COMMON",
            "NWPLCY-TAIL",
        ];
        let statics = statics.map(|name| format!("KUBE-{name}"));
        for chain in statics.iter().chain(&pods).map(String::as_str).chain([POLICY, "DOCKER", "DOCKER-USER"])
        {
            let _ = writeln!(text, ":{chain} -");
        }
        let jumps =
            [("INPUT", "4IA2OSFRMVNDXBVV"), ("FORWARD", "TEMCG2JMHZYE7H7T"), ("OUTPUT", "VEAAIY32XVBHCSCY")];
        for (chain, hash) in jumps {
            let _ = writeln!(
                text,
                "-A {chain} -m comment --comment \"kube-router netpol - {hash}\" -j KUBE-ROUTER-{chain}"
            );
        }
        text += "-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\n";
        self.exemptions(&mut text);
        for (member, pod) in self.local.iter().zip(&pods) {
            self.pod(&mut text, member, pod);
        }
        for chain in &statics[..3] {
            let _ = writeln!(
                text,
                "-A {chain} -m comment --comment \"rule to explicitly handle traffic for network policies \
                 ACCEPT/REJECT decision\" -j KUBE-NWPLCY-TAIL\n\
                 -A {chain} -m comment --comment \"rule to explicitly ACCEPT traffic that comply to network policies\" \
                 -m mark --mark 0x20000/0x20000 -j ACCEPT"
            );
        }
        self.statics(&mut text, default_deny);
        let (source, target) = (self.set(PEERS), self.set(TARGETS));
        allow(&mut text, &format!("-m set --match-set {source} src -m set --match-set {target} dst"));
        text + "COMMIT\n"
    }

    /// What goes to services is judged when IPVS has sent it on.
    fn exemptions(&self, text: &mut String) {
        let (range, hash) =
            [("10.96.0.0/16", "BVHX2PIHDXXEO43X"), ("fd96::/112", "BVHX2PIHDXXEO43Y")][self.family];
        let _ = writeln!(
            text,
            "-A KUBE-ROUTER-INPUT -d {range} -m comment --comment \"allow traffic to primary/secondary cluster IP \
             range - {hash}\" -j RETURN"
        );
        let ports = [("tcp", "LR7XO7NXDBGQJD2M"), ("udp", "76UCBPIZNGJNWNUZ"), ("sctp", "YU47VQ3DEDE3VDG7")];
        for (protocol, hash) in ports {
            let _ = writeln!(
                text,
                "-A KUBE-ROUTER-INPUT -p {protocol} -m comment --comment \"allow LOCAL {} traffic to node ports - {hash}\" \
                 -m addrtype --dst-type LOCAL -m multiport --dports 30000:32767 -j RETURN",
                protocol.to_uppercase()
            );
        }
    }

    fn pod(&self, text: &mut String, member: &Member, pod: &str) {
        let (name, ip) = (&member.name, self.address(member));
        let bridged = "-m physdev --physdev-is-bridged ";
        for (chain, more, direction) in [
            ("FORWARD", "", "in"),
            ("OUTPUT", "", "in"),
            ("FORWARD", bridged, "in"),
            ("INPUT", "", "out"),
            ("FORWARD", "", "out"),
            ("OUTPUT", "", "out"),
            ("FORWARD", bridged, "out"),
        ] {
            let side = if direction == "in" { "-d" } else { "-s" };
            let _ = writeln!(
                text,
                "-A KUBE-ROUTER-{chain} {more}-m comment --comment \"{name} {direction}\" {side} {ip} -j {pod}"
            );
        }
        let _ = writeln!(text, "-A {pod} -m comment --comment \"common netpol rules\" -j KUBE-NWPLCY-COMMON");
        let local = "-m addrtype --src-type LOCAL";
        let _ = writeln!(text, "-A {pod} -d {ip} -m comment --comment \"from local node\" {local} -j ACCEPT");
        let _ =
            writeln!(text, "-A {pod} -s {ip} -m comment --comment \"default egress\" -j KUBE-NWPLCY-DEFAULT");
        let chain = self.ingress(member);
        let comment = if chain == POLICY { "x/base policy" } else { "default ingress" };
        let _ = writeln!(text, "-A {pod} -d {ip} -m comment --comment \"{comment}\" -j {chain}");
        let unmarked = "-m mark ! --mark 0x10000/0x10000";
        let _ = writeln!(
            text,
            "-A {pod} -m comment --comment \"{name} log-drop\" {unmarked} -m limit --limit 10/minute --limit-burst 10 \
             -j NFLOG --nflog-group 100\n\
             -A {pod} -m comment --comment \"{name} reject\" {unmarked} -j REJECT\n\
             -A {pod} -j MARK --set-mark 0/0x10000\n\
             -A {pod} -m comment --comment \"set netpol-ok mark\" -j MARK --set-mark 0x20000/0x20000"
        );
    }

    fn statics(&self, text: &mut String, default_deny: bool) {
        let common = "KUBE-NWPLCY-COMMON -m comment --comment";
        let _ = writeln!(
            text,
            "-A {common} \"\\\"rule to drop invalid state for pod\\\"\" -m conntrack --ctstate INVALID -j DROP\n\
             -A {common} \"rule for stateful firewall for pod\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        );
        let messages: [&[(&str, &str)]; 2] = [
            &[
                ("8", "echo requests"),
                ("3", "destination unreachable messages"),
                ("11", "time exceeded messages"),
            ],
            &[
                ("128", "echo requests"),
                ("1", "destination unreachable messages"),
                ("3", "time exceeded messages"),
                ("135", "neighbor solicitation messages"),
                ("136", "neighbor advertisement messages"),
                ("129", "echo replies"),
            ],
        ];
        let icmp = ["-p icmp -m icmp --icmp-type", "-p ipv6-icmp -m icmp6 --icmpv6-type"][self.family];
        for (kind, what) in messages[self.family] {
            let _ = writeln!(text, "-A {common} \"allow icmp {what}\" {icmp} {kind} -j ACCEPT");
        }
        let _ = writeln!(
            text,
            "-A KUBE-NWPLCY-DEFAULT -m comment --comment \"rule to mark traffic matching a network policy\" \
             -j MARK --set-xmark 0x10000/0x10000"
        );
        let (network, set) = (&self.network, self.set(LOCAL_PODS));
        let sides = [("-s", "src"), ("-d", "dst")];
        for (side, end) in sides.iter().filter(|_| default_deny) {
            let _ = writeln!(
                text,
                "-A KUBE-NWPLCY-TAIL {side} {network} -m comment --comment \"reject unprogrammed local pod (default-deny)\" \
                 -m set ! --match-set {set} {end} -j REJECT"
            );
        }
        let _ = writeln!(
            text,
            "-A KUBE-NWPLCY-TAIL -m comment --comment \"accept netpol-ok\" -m mark --mark 0x20000/0x20000 -j ACCEPT"
        );
        for (side, _) in sides.iter().filter(|_| default_deny) {
            let _ = writeln!(
                text,
                "-A KUBE-NWPLCY-TAIL {side} {network} -m comment --comment \"reject pre-netpol (default-deny)\" -j REJECT"
            );
        }
    }

    /// Input of `nft -f`: the same by upstream's nftables backend.
    pub(crate) fn table(&self) -> String {
        let (family, table) =
            [("ip", "kube-router-filter-ipv4"), ("ip6", "kube-router-filter-ipv6")][self.family];
        let kind = ["ipv4_addr", "ipv6_addr"][self.family];
        let mut text = format!("table {family} {table} {{\ncomment \"rules for {table}\"\n");
        for (name, members) in [(TARGETS, &self.targets), (PEERS, &self.peers)] {
            let elements: Vec<String> = members.iter().map(|one| self.address(one).to_string()).collect();
            let _ = writeln!(text, "set {name} {{ type {kind}; elements = {{ {} }} }}", elements.join(", "));
        }
        let icmp = [
            "icmp type { echo-request, destination-unreachable, time-exceeded } counter accept",
            "icmpv6 type { echo-request, echo-reply, destination-unreachable, time-exceeded, nd-neighbor-solicit, nd-neighbor-advert } counter accept",
        ][self.family];
        let _ = writeln!(
            text,
            "chain KUBE-NWPLCY-DEFAULT {{ counter meta mark set meta mark or 0x10000\n}}\n\
             chain KUBE-NWPLCY-COMMON {{ ct state invalid counter drop\nct state established,related counter accept\n{icmp}\n}}\n\
             chain KUBE-NWPLCY-TAIL {{ meta mark and 0x20000 == 0x20000 counter accept\n}}\n\
             chain {POLICY} {{ {family} saddr @{PEERS} {family} daddr @{TARGETS} counter meta mark set meta mark or 0x10000 return\n}}"
        );
        let pods = self.chains();
        for (member, pod) in self.local.iter().zip(&pods) {
            let ip = self.address(member);
            let ingress = self.ingress(member);
            let _ = writeln!(
                text,
                "chain {pod} {{\ncounter jump KUBE-NWPLCY-COMMON\n\
                 fib saddr type local {family} daddr {ip} counter accept\n\
                 {family} saddr {ip} counter jump KUBE-NWPLCY-DEFAULT\n{family} daddr {ip} counter jump {ingress}\n\
                 meta mark and 0x10000 == 0x0 limit rate 10/minute burst 10 packets log group 100\n\
                 meta mark and 0x10000 == 0x0 counter reject\nmeta mark set meta mark and 0xfffeffff\n\
                 meta mark set meta mark or 0x20000\n}}"
            );
        }
        for (hook, inward) in [("input", false), ("forward", true), ("output", true)] {
            let chain = format!("KUBE-ROUTER-{}", hook.to_uppercase());
            let _ = writeln!(text, "chain {chain} {{\ntype filter hook {hook} priority filter;");
            for (member, pod) in self.local.iter().zip(&pods) {
                let ip = self.address(member);
                if inward {
                    let _ = writeln!(text, "{family} daddr {ip} counter jump {pod}");
                }
                let _ = writeln!(text, "{family} saddr {ip} counter jump {pod}");
            }
            text += "counter jump KUBE-NWPLCY-TAIL\nmeta mark and 0x20000 == 0x20000 counter accept\n}\n";
        }
        text + "}\n"
    }
}

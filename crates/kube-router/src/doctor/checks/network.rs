//! Links and files of the pod network: other plugins, the CNI file, MTUs.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::doctor::{Check, Facts, Listed};
use crate::names;

/// Links by which other pod networks are known.
const OTHERS: [(&str, &str); 5] = [
    ("flannel.1", "flannel"),
    ("cni0", "flannel or another bridge plugin"),
    ("cilium_host", "Cilium"),
    ("vxlan.calico", "Calico"),
    ("weave", "Weave"),
];

/// What a tunnel takes from the MTU of the link below, in bytes: an IPv4 header and GUE at the least.
const TUNNEL_OVERHEAD: u32 = 20;

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    if !facts.runs.controllers.routes {
        return Vec::new();
    }
    let mut checks = Vec::new();
    checks.extend(others(facts));
    checks.extend(cni(facts));
    checks.extend(pod_cidr(facts));
    checks.extend(mtu(facts));
    checks
}

fn others(facts: &Facts) -> Option<Check> {
    let found = OTHERS.iter().find(|(link, _)| facts.links.keys().any(|name| **name == **link));
    found.map(|(link, who)| {
        Check::warning(
            "other pod network",
            format!("the link {link} is here: {who} runs or ran on this node"),
            "one program per node routes pods: run kube-router with --run-router=false, or remove the other one and its links",
        )
    })
}

/// The runtime takes the first file by name that can be read, in the folder of ours.
fn cni(facts: &Facts) -> Vec<Check> {
    let Some(last) = facts.runs.cni.last() else { return Vec::new() };
    let folder = last.parent().unwrap_or(Path::new("/"));
    let name_of = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ours: Vec<String> = facts.runs.cni.iter().map(|path| name_of(path)).collect();
    let Some(at) = facts.cni.iter().position(|(name, _)| ours.contains(name)) else {
        let found = format!(
            "there is no CNI configuration of kube-router's in {}: pods of this node get no network",
            folder.display()
        );
        let fix = format!("install {} there, as the DaemonSet's init container does", name_of(last));
        return vec![Check::problem("cni", found, fix)];
    };
    let mut checks = Vec::new();
    if let Some((first, _)) = facts.cni.first().filter(|_| at > 0) {
        checks.push(Check::problem(
            "cni",
            format!("{} comes before kube-router's file: pods are wired by it", folder.join(first).display()),
            format!("remove {first} with the plugin it belongs to, then restart the pods of this node"),
        ));
    }
    checks.extend(
        facts.cni.get(at).map(|(name, text)| content(&folder.join(name).display().to_string(), text)),
    );
    checks
}

/// Of the file at a path.
fn content(path: &str, text: &str) -> Check {
    let fix = "write it anew from the DaemonSet's ConfigMap; kube-router fills in the pod prefixes";
    let parsed: Value = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            return Check::problem("cni", format!("{path} is no JSON: {error}"), fix);
        }
    };
    let plugins: Vec<&Value> = match parsed.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.iter().collect(),
        None => vec![&parsed],
    };
    let kind = |plugin: &&Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    let Some(first) = plugins.first() else {
        return Check::problem("cni", format!("{path} names no plugin"), fix);
    };
    let ipam = first.get("ipam");
    let has_prefix = ipam.is_some_and(|ipam| ipam.get("subnet").is_some() || ipam.get("ranges").is_some());
    if !has_prefix {
        let text = format!("{path} has no pod prefix: kube-router writes it when it knows one");
        return Check::warning(
            "cni",
            text,
            "see the check of pod prefixes below; the agent must have run once",
        );
    }
    let kinds: Vec<String> = plugins.iter().filter_map(kind).collect();
    Check::fine("cni", format!("{path}: {}", kinds.join(", ")))
}

fn pod_cidr(facts: &Facts) -> Option<Check> {
    let seen = facts.api.lists.iter().any(|(kind, listed)| *kind == "Node" && *listed == Listed::Yes);
    if !seen {
        return None;
    }
    let node = facts.api.node.as_ref()?;
    Some(if node.pod_cidrs.is_empty() {
        Check::problem(
            "pod prefixes",
            format!("Node {} has no spec.podCIDRs: its pods get no addresses", facts.api.node_name),
            "start the controller manager with --allocate-node-cidrs=true and --cluster-cidr=…, or set the annotation \
             kube-router.io/pod-cidr on the Node",
        )
    } else {
        Check::fine("pod prefixes", node.pod_cidrs.join(", "))
    })
}

/// A bridge larger than the link below breaks large packets, where path MTU discovery is blocked, silently.
fn mtu(facts: &Facts) -> Option<Check> {
    let bridge = facts.links.iter().find(|(name, _)| ***name == *names::link::BRIDGE)?.1.mtu;
    let (name, uplink) = facts.links.iter().find(|(_, link)| link.is_uplink)?;
    let overhead = if facts.runs.tunnels { TUNNEL_OVERHEAD } else { 0 };
    let most = uplink.mtu.saturating_sub(overhead);
    let found = format!("{} has {bridge} bytes, {name} has {}", names::link::BRIDGE, uplink.mtu);
    Some(if bridge > most {
        let why = if overhead > 0 { ", and tunnels take some of it" } else { "" };
        Check::warning(
            "mtu",
            format!("{found}{why}: large packets of pods depend on path MTU discovery"),
            format!(
                "--auto-mtu=true lets kube-router set it for new pods; or set \"mtu\": {most} in the CNI file"
            ),
        )
    } else {
        Check::fine("mtu", found)
    })
}

/// Whether an address of the Node object is on this node.
pub(super) fn is_here(facts: &Facts, address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|ip| facts.addresses.iter().any(|net| net.addr() == ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cni_files;
    use crate::doctor::wanted::Wanted;
    use crate::doctor::{Level, Link, NodeSeen};
    use crate::options::Controllers;

    fn facts() -> Facts {
        let controllers = Controllers { routes: true, ..Controllers::default() };
        Facts { runs: Wanted { controllers, cni: cni_files(None), ..Wanted::default() }, ..Facts::default() }
    }

    #[test]
    fn the_cni_file_must_be_there_first_and_whole() {
        let mut facts = facts();
        assert_eq!(cni(&facts)[0].level, Level::Problem);
        let good =
            r#"{"plugins": [{"type": "bridge", "ipam": {"subnet": "10.244.1.0/24"}}, {"type": "portmap"}]}"#;
        facts.cni = vec![("10-kuberouter.conflist".into(), good.into())];
        assert_eq!(
            cni(&facts)[0],
            Check::fine("cni", "/etc/cni/net.d/10-kuberouter.conflist: bridge, portmap")
        );
        facts.cni.insert(0, ("05-cilium.conflist".into(), "{}".into()));
        let checks = cni(&facts);
        assert_eq!((checks[0].level, checks[1].level), (Level::Problem, Level::Fine));
        assert!(checks[0].found.contains("05-cilium.conflist comes before"));
        for (text, level) in [
            ("{", Level::Problem),
            (r#"{"plugins": []}"#, Level::Problem),
            (r#"{"type": "bridge"}"#, Level::Warning),
        ] {
            assert_eq!(content("x", text).level, level, "{text}");
        }
    }

    #[test]
    fn the_cni_file_may_have_another_place() {
        let mut facts = facts();
        facts.runs.cni = cni_files(Some("/var/cni/05-ours.conflist".into()));
        let check = &cni(&facts)[0];
        assert!(check.found.contains("kube-router's in /var/cni: "), "{}", check.found);
        assert!(check.fix.as_ref().unwrap().starts_with("install 05-ours.conflist there"));
        facts.cni = vec![("10-kuberouter.conflist".into(), "{}".into())];
        assert_eq!(cni(&facts)[0].level, Level::Problem, "it is not looked for");
        facts.cni = vec![("05-ours.conflist".into(), r#"{"plugins": []}"#.into())];
        assert_eq!(cni(&facts)[0].found, "/var/cni/05-ours.conflist names no plugin");
        facts.runs.cni = Vec::new();
        assert_eq!(cni(&facts), Vec::new(), "it is not kept");
    }

    #[test]
    fn a_bridge_larger_than_what_is_below_is_named() {
        let mut facts = facts();
        let link = |mtu, is_uplink| Link { mtu, is_uplink, ..Link::default() };
        facts.links.insert("kube-bridge".into(), link(1500, false));
        facts.links.insert("eth0".into(), link(1500, true));
        assert_eq!(mtu(&facts).unwrap().level, Level::Fine);
        facts.runs.tunnels = true;
        let check = mtu(&facts).unwrap();
        assert_eq!(check.level, Level::Warning);
        assert!(check.fix.unwrap().contains("\"mtu\": 1480"));
    }

    #[test]
    fn a_node_without_pod_prefix_is_a_problem() {
        let mut facts = facts();
        facts.api.lists = vec![("Node", Listed::Yes)];
        facts.api.node = Some(NodeSeen::default());
        assert_eq!(pod_cidr(&facts).unwrap().level, Level::Problem);
        facts.api.node = Some(NodeSeen { pod_cidrs: vec!["10.244.1.0/24".into()], ..NodeSeen::default() });
        assert_eq!(pod_cidr(&facts).unwrap().level, Level::Fine);
    }
}

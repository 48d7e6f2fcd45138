//! Looking at the node: everything [`super::Facts`] holds, read and nothing written. Parts that cannot be read are left out or
//! carry the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use linux::iptables::tool::{Flavour, Programs};
use linux::netlink::{Socket, generic};
use linux::nftables::{self, obstacles};
use linux::route::{LinkState, Rtnetlink, links, local_addresses};
use linux::row::{Family, LinkKind, Name};
use linux::sysctl::Sysctls;
use tokio::net::UnixStream;

use super::checks::{kernel, paths, settings};
use super::wanted::{Found, Wanted};
use super::{Agent, Facts, Iptables, Link, Presence, api};
use crate::core::nftables_names;
use crate::options::Options;
use crate::status::client;
use crate::{names, preflight};

/// `RTF_ADDRCONF` (`include/uapi/linux/ipv6_route.h`): a router advertisement brought the route.
const ADVERTISED: u32 = 0x4_0000;
/// `NETLINK_GENERIC`
const GENERIC: i32 = 16;

/// Looks at everything. `are_agents` says that the options are those of the agent that answers there, if one does. Blocks
/// for some process starts, and waits for the API server for some seconds.
pub async fn all(options: &Options, socket: &Path, are_agents: bool) -> Facts {
    let agent = agent(socket).await;
    let runs_already = are_agents && agent.as_ref().is_some_and(|agent| agent.version.is_some());
    let pid = agent.as_ref().and_then(|agent| agent.pid);
    let api = api::ask(options).await;
    let node_addresses: BTreeSet<String> =
        api.node.iter().flat_map(|node| node.addresses.iter().cloned()).collect();
    let options = options.clone();
    let local = move || {
        let (links, addresses) = network(&node_addresses);
        let iptables_default = iptables_default();
        let found = Found {
            ours_in_nftables: nftables::is_in_use(&nftables_names()).unwrap_or(false),
            has_iptables: iptables_default.is_ok(),
            cni_file: variable(pid, names::CNI_FILE_VARIABLE),
            runs_already,
        };
        let runs = Wanted::of(&options, found);
        let (settings, writable) = settings(&Sysctls::default(), &links);
        Facts {
            capabilities: capabilities(pid),
            modules: modules(),
            ipvs: Some(ipvs()),
            settings,
            writable,
            iptables: [Flavour::Legacy, Flavour::Nft].into_iter().filter_map(iptables).collect(),
            iptables_default: Some(iptables_default),
            kube_proxy_table: preflight::has_table(),
            // Where nf_tables does not answer, nobody has a chain in it.
            obstacles: obstacles::find(&nftables_names()).unwrap_or_default(),
            links,
            addresses,
            cni: cni(&runs.cni),
            runs,
            ..Facts::default()
        }
    };
    // A panic in there would be a mistake in this program; the rest is told all the same.
    let facts = tokio::task::spawn_blocking(local).await.unwrap_or_default();
    Facts { agent, api, ..facts }
}

/// The agent behind the socket, if somebody listens there.
pub(super) async fn agent(socket: &Path) -> Option<Agent> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    drop(stream);
    let status = client::status(socket).await.ok();
    let troubles = status.as_ref().map_or(0, |status| status.refused.len() + status.objections.len());
    Some(Agent { pid, version: status.map(|status| status.version), troubles })
}

/// Bits of a process's effective capabilities; of ours, if none is given.
fn capabilities(pid: Option<i32>) -> Option<u64> {
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{name}/status")).ok();
    let text = pid.and_then(|pid| of(&pid.to_string())).or_else(|| of("self"))?;
    let bits = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn modules() -> BTreeMap<&'static str, Presence> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = |name: &str| std::fs::read_to_string(format!("/lib/modules/{}/{name}", release.trim())).ok();
    let names = |text: String| -> BTreeSet<String> { text.lines().map(module_name).collect() };
    let (built_in, loadable) = (list("modules.builtin").map(names), list("modules.dep").map(names));
    let loaded = |name: &str| Path::new("/sys/module").join(name).exists();
    let presence = |name: &'static str| {
        let listed = |list: &Option<BTreeSet<String>>| list.as_ref().is_some_and(|list| list.contains(name));
        match () {
            () if loaded(name) || listed(&built_in) => Presence::There,
            () if listed(&loadable) => Presence::Loadable,
            () if loadable.is_none() => Presence::Untold,
            () => Presence::Absent,
        }
    };
    kernel::modules().map(|name| (name, presence(name))).collect()
}

/// `kernel/net/netfilter/xt_set.ko.zst: …` is `xt_set`. Dashes in file names are underscores in names of modules.
fn module_name(line: &str) -> String {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// Asks for the number of the generic netlink family, nothing more.
fn ipvs() -> Result<(), String> {
    let mut socket = Socket::open(GENERIC).map_err(|error| error.to_string())?;
    generic::family(&mut socket, "IPVS").map(|_| ()).map_err(|error| error.to_string())
}

/// A variable of that process, as far as it can be seen from here, else of this one.
fn variable(pid: Option<i32>, name: &str) -> Option<OsString> {
    match pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok()) {
        Some(environment) => variable_in(&environment, name),
        None => std::env::var_os(name),
    }
}

/// Lines end in zero bytes.
fn variable_in(environment: &[u8], name: &str) -> Option<OsString> {
    let mut lines = environment.split(|byte| *byte == 0);
    let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// Values of settings, and which can be written.
fn settings(
    sysctls: &Sysctls,
    links: &BTreeMap<Name, Link>,
) -> (BTreeMap<Name, Option<String>>, BTreeSet<Name>) {
    let of_node = settings::paths().map(Name::from);
    let all: Vec<Name> = of_node.chain(paths::of_links(links).into_iter().map(Name::from)).collect();
    let writable = all.iter().filter(|path| sysctls.is_writable(path)).cloned().collect();
    let values = all.into_iter().map(|path| {
        let value = sysctls.read(&path).ok().flatten();
        (path, value)
    });
    (values.collect(), writable)
}

fn iptables(flavour: Flavour) -> Option<Iptables> {
    let programs = Programs::of(flavour).ok()?;
    let dumps: Result<Vec<String>, _> = Family::ALL.into_iter().map(|family| programs.save(family)).collect();
    Some(Iptables {
        flavour: flavour.as_str(),
        version: version(&programs),
        dump: dumps.map(|dumps| dumps.concat()).map_err(|error| error.to_string()),
    })
}

fn iptables_default() -> Result<String, String> {
    let programs = Programs::detect().map_err(|error| error.to_string())?;
    Ok(format!("iptables-restore {} ({})", version(&programs), programs.flavour()))
}

fn version(programs: &Programs) -> String {
    let (major, minor, patch) = programs.version();
    format!("{major}.{minor}.{patch}")
}

fn network(node: &BTreeSet<String>) -> (BTreeMap<Name, Link>, Vec<ipnet::IpNet>) {
    let Ok(mut kernel) = Rtnetlink::open() else { return Default::default() };
    let addresses = local_addresses(&mut kernel).unwrap_or_default();
    let uplink = |name: &Name| {
        addresses.iter().any(|held| held.link == *name && node.contains(&held.net.addr().to_string()))
    };
    // The calling thread's network namespace, which need not be that of /proc/net.
    let advertised =
        advertised(&std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default());
    let link = |link: LinkState| {
        let kind = match &link.kind {
            LinkKind::Other(kind) => kind.to_string(),
            LinkKind::Bridge => "bridge".to_owned(),
            LinkKind::Dummy => "dummy".to_owned(),
            LinkKind::Tunnel(_) => "tunnel".to_owned(),
        };
        let (is_uplink, is_advertised) = (uplink(&link.name), advertised.contains(&*link.name));
        (link.name, Link { mtu: link.mtu, kind, is_uplink, is_advertised })
    };
    let all = links(&mut kernel).unwrap_or_default().into_iter().map(link).collect();
    (all, addresses.iter().map(|held| held.net).collect())
}

/// Links with routes that router advertisements brought, in the kernel's list of IPv6 routes: flags and link are at the end
/// of a line.
fn advertised(routes: &str) -> BTreeSet<String> {
    let link = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let link = words.next()?;
        let flags = u32::from_str_radix(words.next()?, 16).ok()?;
        (flags & ADVERTISED != 0).then(|| link.to_owned())
    };
    routes.lines().filter_map(link).collect()
}

/// What the container runtime would look at where these files may be, in its order.
fn cni(files: &[PathBuf]) -> Vec<(String, String)> {
    let Some(folder) = files.first().and_then(|file| file.parent()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names: BTreeSet<String> =
        entries.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let is_one = |name: &String| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let text = |name: String| {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        (name, text)
    };
    names.into_iter().filter(is_one).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_files() {
        for (line, name) in [
            ("kernel/net/netfilter/xt_set.ko.zst: kernel/net/netfilter/x_tables.ko.zst", "xt_set"),
            ("kernel/net/bridge/bridge.ko", "bridge"),
            ("kernel/drivers/foo-bar.ko.xz:", "foo_bar"),
        ] {
            assert_eq!(module_name(line), name);
        }
    }

    #[test]
    fn the_cni_file_is_looked_for_where_the_agent_has_it() {
        let environment =
            b"PATH=/bin\0KUBE_ROUTER_CNI_CONF_FILE=/var/cni/05.conf\0KUBE_ROUTER_CNI_CONF_FILE2=x\0";
        assert_eq!(variable_in(environment, names::CNI_FILE_VARIABLE), Some("/var/cni/05.conf".into()));
        assert_eq!(variable_in(b"PATH=/bin\0", names::CNI_FILE_VARIABLE), None);
        let folder = tempfile::tempdir().unwrap();
        for name in ["20-b.conf", "05-a.conflist", "readme.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let found = cni(&[folder.path().join("05-a.conflist")]);
        let text = |name: &str| (name.to_owned(), name.to_owned());
        assert_eq!(found, [text("05-a.conflist"), text("20-b.conf")]);
        assert!(cni(&[]).is_empty(), "it is not kept");
    }

    #[test]
    fn settings_are_tried_but_not_written() {
        let (read_only, writable) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (forward, link) = ("net/ipv4/ip_forward", "net/ipv4/conf/eth0/rp_filter");
        for (root, path) in [(&read_only, forward), (&read_only, link), (&writable, link)] {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "0\n").unwrap();
        }
        // A folder in its place cannot be written by root, either.
        std::fs::remove_file(read_only.path().join(forward)).unwrap();
        std::fs::create_dir(read_only.path().join(forward)).unwrap();
        let sysctls = Sysctls::new(vec![read_only.path().into(), writable.path().into()]);
        let links = BTreeMap::from([("eth0".into(), Link { is_uplink: true, ..Link::default() })]);
        let (values, may_be_written) = settings(&sysctls, &links);
        assert_eq!(values.get(link), Some(&Some("0".to_owned())));
        assert_eq!(may_be_written, BTreeSet::from([link.into()]));
        assert_eq!(std::fs::read_to_string(writable.path().join(link)).unwrap(), "0\n");
    }

    #[test]
    fn links_learn_routes_by_advertisements() {
        let zero = "0".repeat(32);
        let line = |flags: &str, link: &str| {
            format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags} {link}\n")
        };
        let routes = [line("00450003", "eth0"), line("00000001", "eth1"), line("80200001", "lo")].concat();
        assert_eq!(advertised(&routes), BTreeSet::from(["eth0".to_owned()]));
    }
}

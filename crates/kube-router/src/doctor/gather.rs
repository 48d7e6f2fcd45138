//! Looking at the node: everything [`super::Facts`] holds, read and nothing written. Parts that cannot be read are left out or
//! carry the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use linux::command;
use linux::iptables::tool::{Flavour, Programs};
use linux::netlink::{Socket, generic};
use linux::route::{LinkState, Rtnetlink, links, local_addresses};
use linux::row::{Family, LinkKind, Name};
use linux::sysctl::Sysctls;
use tokio::net::UnixStream;

use super::checks::kernel;
use super::{Agent, Facts, Iptables, Link, Presence, Wanted, api};
use crate::options::Options;
use crate::status::client;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(20);
const CNI_FOLDER: &str = "/etc/cni/net.d";
/// `NETLINK_GENERIC`
const GENERIC: i32 = 16;

/// Looks at everything. Blocks for some process starts, and waits for the API server for some seconds.
pub async fn all(options: &Options, socket: &Path) -> Facts {
    let agent = agent(socket).await;
    let runs = Wanted::of(options);
    let pid = agent.as_ref().and_then(|agent| agent.pid);
    let api = api::ask(options).await;
    let node_addresses: BTreeSet<String> =
        api.node.iter().flat_map(|node| node.addresses.iter().cloned()).collect();
    let local = move || {
        let (links, addresses) = network(&node_addresses);
        Facts {
            runs,
            capabilities: capabilities(pid),
            modules: modules(),
            ipvs: Some(ipvs()),
            settings: settings(),
            iptables: [Flavour::Legacy, Flavour::Nft].into_iter().filter_map(iptables).collect(),
            iptables_default: Some(iptables_default()),
            nft_tables: nft_tables(),
            links,
            addresses,
            cni: cni(),
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

fn settings() -> BTreeMap<&'static str, Option<String>> {
    let sysctls = Sysctls::default();
    kernel::SETTINGS.into_iter().map(|path| (path, sysctls.read(path).ok().flatten())).collect()
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

fn nft_tables() -> Option<Vec<String>> {
    let output = command::run("nft", &["list", "tables"], b"", PATIENCE).ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn network(node: &BTreeSet<String>) -> (BTreeMap<Name, Link>, Vec<ipnet::IpNet>) {
    let Ok(mut kernel) = Rtnetlink::open() else { return Default::default() };
    let addresses = local_addresses(&mut kernel).unwrap_or_default();
    let uplink = |name: &Name| {
        addresses.iter().any(|held| held.link == *name && node.contains(&held.net.addr().to_string()))
    };
    let link = |link: LinkState| {
        let kind = match &link.kind {
            LinkKind::Other(kind) => kind.to_string(),
            LinkKind::Bridge => "bridge".to_owned(),
            LinkKind::Dummy => "dummy".to_owned(),
            LinkKind::Tunnel(_) => "tunnel".to_owned(),
        };
        let is_uplink = uplink(&link.name);
        (link.name, Link { mtu: link.mtu, kind, is_uplink })
    };
    let all = links(&mut kernel).unwrap_or_default().into_iter().map(link).collect();
    (all, addresses.iter().map(|held| held.net).collect())
}

/// What the container runtime would look at, in its order.
fn cni() -> Vec<(String, String)> {
    let Ok(folder) = std::fs::read_dir(CNI_FOLDER) else { return Vec::new() };
    let names: BTreeSet<String> =
        folder.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let is_one = |name: &String| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let text = |name: String| {
        let text = std::fs::read_to_string(Path::new(CNI_FOLDER).join(&name)).unwrap_or_default();
        (name, text)
    };
    names.into_iter().filter(is_one).map(text).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn modules_are_known_by_their_files() {
        for (line, name) in [
            ("kernel/net/netfilter/xt_set.ko.zst: kernel/net/netfilter/x_tables.ko.zst", "xt_set"),
            ("kernel/net/bridge/bridge.ko", "bridge"),
            ("kernel/drivers/foo-bar.ko.xz:", "foo_bar"),
        ] {
            assert_eq!(super::module_name(line), name);
        }
    }
}

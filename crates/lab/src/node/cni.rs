//! Pods are wired by the real CNI plugins, from the file in the node's own `/etc/cni/net.d`, as a container runtime
//! does it: the first `.conflist` or `.conf` by name, its plugins in order, each with the result of the one before.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Error;
use crate::process::{command, run_with_input};

/// Where runtimes look for the network configuration.
const CONFIGURATION: &str = "/etc/cni/net.d";
/// Where the plugins are: what was put on this node alone, Debian's package, then the place other installations use.
const PLUGINS: [&str; 3] = [OWN_PLUGINS, "/usr/lib/cni", "/opt/cni/bin"];
/// A folder that each node has for itself.
const OWN_PLUGINS: &str = "/run/cni-plugins";
/// The agent's program is this plugin, under its name.
const WAITING_PLUGIN: &str = "kube-router-cni";
/// kube-router's own file name.
pub const CONFLIST: &str = "/etc/cni/net.d/10-kuberouter.conflist";

/// The configuration that kube-router's manifests install, with the pod ranges the agent would write into it.
pub fn conflist(ranges: &[IpNet], hairpin: bool) -> String {
    let ranges: Vec<Value> = ranges.iter().map(|range| json!([{ "subnet": range.to_string() }])).collect();
    let bridge = json!({
        "name": "kubernetes", "type": "bridge", "bridge": "kube-bridge", "isDefaultGateway": true,
        "hairpinMode": hairpin, "ipam": { "type": "host-local", "ranges": ranges },
    });
    format!("{:#}\n", json!({ "cniVersion": "0.3.1", "name": "mynet", "plugins": [bridge] }))
}

/// `CNI_PATH` of this node's programs.
pub(crate) fn plugin_path() -> String {
    PLUGINS.join(":")
}

/// Installs the agent's program as a plugin on this node. Call inside the node's namespaces.
pub(super) fn install_waiting_plugin(program: &Path) -> Result<(), Error> {
    let path = Path::new(OWN_PLUGINS).join(WAITING_PLUGIN);
    let failed = |source| Error::File { path: path.clone(), source };
    fs::create_dir_all(OWN_PLUGINS).map_err(failed)?;
    match std::os::unix::fs::symlink(program, &path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Puts the plugin at the end of kube-router's list, with these settings, in place of one that is there. Call inside the
/// node's namespaces.
pub(super) fn chain_waiting_plugin(settings: &Value) -> Result<(), Error> {
    let failed = |source| Error::File { path: CONFLIST.into(), source };
    let text = fs::read_to_string(CONFLIST).map_err(failed)?;
    let mut file: Value =
        serde_json::from_str(&text).map_err(|source| Error::Cni { what: text.clone(), source })?;
    let mut plugin = settings.as_object().cloned().unwrap_or_default();
    plugin.insert("type".to_owned(), json!(WAITING_PLUGIN));
    if let Some(plugins) = file.get_mut("plugins").and_then(Value::as_array_mut) {
        plugins.retain(|other| other.get("type") != plugin.get("type"));
        plugins.push(Value::Object(plugin));
    }
    fs::write(CONFLIST, format!("{file:#}\n")).map_err(failed)
}

/// A pod as the API server knows it: its name for `CNI_ARGS`, and what plugins are asked for.
#[derive(Debug, Clone, Default)]
pub struct PodObject {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its `hostPort`s.
    pub mappings: Vec<PortMapping>,
}

/// A port of the node that leads to a pod, in the words of CNI's `portMappings`. Plugins that do not say that they have that
/// capability are not told, and without any the port leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// On the node.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
}

/// A pod as CNI sees it.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub(super) container: String,
    /// None for a namespace that is no pod of the cluster.
    pub(super) object: Option<PodObject>,
    pub(super) netns: PathBuf,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    ips: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    address: IpNet,
}

impl Attachment {
    /// ADD through every plugin. Call inside the node's namespaces. Returns the pod's addresses.
    pub(super) fn add(&self) -> Result<Vec<IpAddr>, Error> {
        let network = Network::read()?;
        let mut previous = None;
        for plugin in &network.plugins {
            let answer = self.call("ADD", &network, plugin, previous.as_ref())?;
            previous =
                Some(serde_json::from_str(&answer).map_err(|source| Error::Cni { what: answer, source })?);
        }
        let outcome = previous.unwrap_or(Value::Null);
        let text = outcome.to_string();
        let outcome: Outcome =
            serde_json::from_value(outcome).map_err(|source| Error::Cni { what: text, source })?;
        Ok(outcome.ips.into_iter().map(|ip| ip.address.addr()).collect())
    }

    /// DEL through every plugin, last first. Call inside the node's namespaces.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let network = Network::read()?;
        for plugin in network.plugins.iter().rev() {
            self.call("DEL", &network, plugin, None)?;
        }
        Ok(())
    }

    fn call(
        &self,
        verb: &str,
        network: &Network,
        plugin: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Result<String, Error> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let mut input = plugin.clone();
        input.insert("cniVersion".into(), json!(network.version));
        input.insert("name".into(), json!(network.name));
        if let Some(previous) = previous {
            input.insert("prevResult".into(), previous.clone());
        }
        let maps = |plugin: &Map<String, Value>| plugin.get("capabilities")?.get("portMappings")?.as_bool();
        let mappings = self.object.as_ref().map_or(&[][..], |object| &object.mappings);
        if maps(plugin) == Some(true) && !mappings.is_empty() {
            input.insert("runtimeConfig".into(), json!({ "portMappings": mappings }));
        }
        let mut plugin = command(find(kind)?);
        plugin
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", plugin_path());
        if let Some(PodObject { namespace, name, uid, .. }) = &self.object {
            let arguments = format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
                self.container
            );
            plugin.env("CNI_ARGS", arguments);
        }
        Ok(run_with_input(&mut plugin, &Value::Object(input).to_string())?)
    }
}

fn find(kind: &str) -> Result<PathBuf, Error> {
    let missing = || Error::File {
        path: Path::new(PLUGINS[0]).join(kind),
        source: std::io::ErrorKind::NotFound.into(),
    };
    PLUGINS.iter().map(|folder| Path::new(folder).join(kind)).find(|path| path.is_file()).ok_or_else(missing)
}

struct Network {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Network {
    fn read() -> Result<Self, Error> {
        let failed = |source| Error::File { path: CONFIGURATION.into(), source };
        let mut files: Vec<PathBuf> = fs::read_dir(CONFIGURATION)
            .map_err(failed)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "conflist" || kind == "conf"))
            .collect();
        files.sort();
        let path = files.into_iter().next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        Self::parse(&text).map_err(|source| Error::Cni { what: text, source })
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let file: Map<String, Value> = serde_json::from_str(text)?;
        let word =
            |key: &str, default: &str| file.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        let plugins = match file.get("plugins") {
            Some(list) => serde_json::from_value(list.clone())?,
            None => vec![file.clone()],
        };
        Ok(Self { name: word("name", "lab"), version: word("cniVersion", "0.3.1"), plugins })
    }
}

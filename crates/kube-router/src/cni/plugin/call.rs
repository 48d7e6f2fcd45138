//! What the runtime hands to the plugin, read: environment and network configuration. No I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::PluginError;
use crate::cni::wire::Sandbox;
use crate::names;
use crate::options::duration::GoDuration;

/// Versions of the specification that are spoken. Their results are handed on as they are.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// How long is waited if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait a configuration may ask for: runtimes and the kubelet give up on their own.
const LONGEST: Duration = Duration::from_secs(120);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Check,
    Delete,
    Status,
    Collect,
    Version,
}

impl Verb {
    /// Whether it is about one sandbox.
    fn has_sandbox(self) -> bool {
        matches!(self, Verb::Add | Verb::Check | Verb::Delete)
    }
}

/// What becomes of a pod whose rules are not there in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnTimeout {
    /// It does not start; the kubelet tries again.
    Closed,
    /// It starts.
    Open,
}

/// One call but `VERSION`.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) timeout: Duration,
    pub(super) on_timeout: OnTimeout,
    pub(super) socket: PathBuf,
    version: String,
    container: String,
    interface: String,
    /// `CNI_ARGS`.
    arguments: String,
    previous: Option<Value>,
    /// The containers that are there, where `GC` tells.
    pub(super) attached: Option<BTreeSet<String>>,
}

/// Keys of the network configuration that concern the plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Configuration {
    cni_version: String,
    timeout: Option<String>,
    on_timeout: Option<String>,
    socket: Option<PathBuf>,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    attachments: Option<Vec<Attachment>>,
}

/// A sandbox's interface that is in use.
#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
}

/// A result of the plugins before, as far as it is looked at. All versions spoken have these keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    interfaces: Vec<Interface>,
    ips: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    /// Absent or empty on the node's side.
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Address {
    address: IpNet,
    interface: Option<usize>,
}

impl Verb {
    pub(super) fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Verb, PluginError> {
        match environment("CNI_COMMAND").as_deref() {
            Some("ADD") => Ok(Verb::Add),
            Some("CHECK") => Ok(Verb::Check),
            Some("DEL") => Ok(Verb::Delete),
            Some("STATUS") => Ok(Verb::Status),
            Some("GC") => Ok(Verb::Collect),
            Some("VERSION") => Ok(Verb::Version),
            Some(_) => Err(bad("CNI_COMMAND", "is none of ADD, CHECK, DEL, STATUS, GC, VERSION")),
            None => Err(bad(
                "CNI_COMMAND",
                "is not set; this is a CNI plugin, to be started by a container runtime",
            )),
        }
    }
}

fn bad(variable: &'static str, reason: &'static str) -> PluginError {
    PluginError::Environment { variable, reason }
}

impl Call {
    pub(super) fn read(
        verb: Verb,
        environment: impl Fn(&str) -> Option<String>,
        input: &str,
    ) -> Result<Call, PluginError> {
        let configuration: Configuration = serde_json::from_str(input).map_err(PluginError::Decode)?;
        let Configuration { cni_version: version, timeout, on_timeout, socket, prev_result, attachments } =
            configuration;
        if !VERSIONS.contains(&version.as_str()) {
            return Err(PluginError::Version(version));
        }
        let container = match environment("CNI_CONTAINERID").filter(|id| !id.is_empty()) {
            None if verb.has_sandbox() => return Err(bad("CNI_CONTAINERID", "is not set")),
            container => container.unwrap_or_default(),
        };
        let names = |list: Vec<Attachment>| list.into_iter().map(|attachment| attachment.container).collect();
        Ok(Call {
            verb,
            timeout: timeout.map_or(Ok(TIMEOUT), timeout_of)?,
            on_timeout: on_timeout.map_or(Ok(OnTimeout::Closed), on_timeout_of)?,
            socket: socket.unwrap_or_else(|| names::SOCKET.into()),
            version,
            container,
            interface: environment("CNI_IFNAME").unwrap_or_default(),
            arguments: environment("CNI_ARGS").unwrap_or_default(),
            previous: prev_result,
            attached: attachments.map(names),
        })
    }

    /// What the plugins before have made, as it is handed on.
    pub(super) fn result(&self) -> Result<String, PluginError> {
        let mut result = self.previous.clone().ok_or_else(|| PluginError::Configuration {
            field: "prevResult",
            value: String::new(),
            reason: format!(
                "is missing: {} comes after the plugin that wires pods, in one list",
                names::CNI_PLUGIN
            ),
        })?;
        if let Some(result) = result.as_object_mut() {
            result.entry("cniVersion").or_insert_with(|| json!(self.version));
        }
        Ok(result.to_string())
    }

    /// The sandbox, and whose it is.
    pub(super) fn sandbox(&self) -> Result<Sandbox, PluginError> {
        let told = |name: &str| self.argument(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let untold = || {
            bad("CNI_ARGS", "does not tell K8S_POD_NAMESPACE and K8S_POD_NAME, as Kubernetes' runtimes do")
        };
        let outcome = self.outcome()?;
        Ok(Sandbox {
            namespace: told("K8S_POD_NAMESPACE").ok_or_else(untold)?,
            name: told("K8S_POD_NAME").ok_or_else(untold)?,
            uid: told("K8S_POD_UID"),
            container: self.container.clone(),
            host_interface: outcome.host_interface(),
            addresses: outcome.addresses(&self.interface),
        })
    }

    /// A value of `CNI_ARGS`: `KEY=value;KEY=value`.
    fn argument(&self, name: &str) -> Option<&str> {
        let pairs = self.arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
    }

    fn outcome(&self) -> Result<Outcome, PluginError> {
        let Some(previous) = &self.previous else { return Ok(Outcome::default()) };
        Outcome::deserialize(previous).map_err(PluginError::Decode)
    }
}

impl Outcome {
    /// Addresses on the interface of the call, or on none that is told.
    fn addresses(&self, interface: &str) -> Vec<IpAddr> {
        let is_on = |address: &&Address| {
            let on = address.interface.and_then(|place| self.interfaces.get(place));
            on.is_none_or(|on| !on.sandbox.is_empty() && on.name == interface)
        };
        self.ips.iter().filter(is_on).map(|address| address.address.addr()).collect()
    }

    /// The link on the node's side; of a bridge and its port, the port, which is told later.
    fn host_interface(&self) -> Option<String> {
        let outside = self.interfaces.iter().rev().find(|interface| interface.sandbox.is_empty());
        outside.map(|interface| interface.name.clone())
    }
}

fn timeout_of(text: String) -> Result<Duration, PluginError> {
    let wrong = |reason: String| PluginError::Configuration { field: "timeout", value: text.clone(), reason };
    let duration: GoDuration = text.parse().map_err(|error| wrong(format!("cannot be used: {error}")))?;
    let in_range = |timeout: &Duration| !timeout.is_zero() && *timeout <= LONGEST;
    let out_of_range =
        || wrong(format!("is out of range; write one above 0 and up to {}s", LONGEST.as_secs()));
    duration.to_std().filter(in_range).ok_or_else(out_of_range)
}

fn on_timeout_of(text: String) -> Result<OnTimeout, PluginError> {
    match text.as_str() {
        "closed" => Ok(OnTimeout::Closed),
        "open" => Ok(OnTimeout::Open),
        _ => Err(PluginError::Configuration {
            field: "onTimeout",
            value: text,
            reason: "is unknown; write \"closed\" (the pod does not start) or \"open\" (it does)".to_owned(),
        }),
    }
}

/// The answer to `VERSION`.
pub(super) fn versions(input: &str) -> String {
    json!({ "cniVersion": version_of(input), "supportedVersions": VERSIONS }).to_string()
}

/// The version an input is written in, for an answer to it; the latest spoken if it does not tell.
pub(super) fn version_of(input: &str) -> String {
    let told = serde_json::from_str::<Configuration>(input).ok().map(|told| told.cni_version);
    let latest = VERSIONS.last().copied().unwrap_or_default();
    told.filter(|version| !version.is_empty()).unwrap_or_else(|| latest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &str, extra: Value) -> Result<Call, PluginError> {
        let mut input = json!({
            "cniVersion": "0.3.1", "name": "mynet", "type": "kube-router-cni",
            "prevResult": {
                "cniVersion": "0.3.1",
                "interfaces": [
                    { "name": "kube-bridge", "mac": "02:00:00:00:00:01" },
                    { "name": "veth1", "mac": "02:00:00:00:00:02" },
                    { "name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/proc/1/ns/net" },
                    { "name": "net1", "mac": "02:00:00:00:00:04", "sandbox": "/proc/1/ns/net" },
                ],
                "ips": [
                    { "version": "4", "interface": 2, "address": "10.244.1.5/24", "gateway": "10.244.1.1" },
                    { "version": "6", "interface": 2, "address": "fd00:1::5/64" },
                    { "version": "4", "interface": 3, "address": "192.0.2.5/24" },
                ],
                "routes": [{ "dst": "0.0.0.0/0" }], "dns": {},
            },
        });
        for (key, value) in extra.as_object().unwrap() {
            input[key] = value.clone();
        }
        let environment = |name: &str| match name {
            "CNI_CONTAINERID" => Some("c1".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_ARGS" => Some(arguments.to_owned()),
            _ => None,
        };
        Call::read(Verb::Add, environment, &input.to_string())
    }

    const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u";

    #[test]
    fn a_sandbox_is_read_from_both_sides() {
        let call = call(POD, json!({})).unwrap();
        let sandbox = Sandbox {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: Some("u".into()),
            container: "c1".into(),
            host_interface: Some("veth1".into()),
            addresses: vec!["10.244.1.5".parse().unwrap(), "fd00:1::5".parse().unwrap()],
        };
        assert_eq!(call.sandbox().unwrap(), sandbox);
        let handed_on: Value = serde_json::from_str(&call.result().unwrap()).unwrap();
        assert_eq!(Some(handed_on), call.previous, "nothing is lost or added");
        assert_eq!((call.timeout, call.on_timeout), (Duration::from_secs(5), OnTimeout::Closed));
    }

    #[test]
    fn version_1_0_0_has_no_version_of_addresses() {
        let previous = json!({ "ips": [{ "address": "10.244.1.5/24" }] });
        let call = call(POD, json!({ "cniVersion": "1.0.0", "prevResult": previous })).unwrap();
        assert_eq!(call.sandbox().unwrap().addresses.len(), 1);
        let handed_on: Value = serde_json::from_str(&call.result().unwrap()).unwrap();
        assert_eq!(handed_on["cniVersion"], "1.0.0", "a result tells its version");
    }

    #[test]
    fn who_collects_garbage_tells_what_is_in_use() {
        let input = json!({
            "cniVersion": "1.1.0", "name": "mynet", "type": "kube-router-cni",
            "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }],
        });
        let call = Call::read(Verb::Collect, |_| None, &input.to_string()).unwrap();
        assert_eq!(call.attached, Some(BTreeSet::from(["c1".to_owned()])));
        let silent = json!({ "cniVersion": "1.1.0", "name": "mynet" }).to_string();
        assert_eq!(Call::read(Verb::Collect, |_| None, &silent).unwrap().attached, None);
        assert!(Call::read(Verb::Delete, |_| None, &silent).is_err(), "which one?");
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_remedy() {
        for (extra, says) in [
            (json!({ "cniVersion": "9.9.9" }), "cniVersion \"9.9.9\" is not spoken; write one of 0.3.0"),
            (
                json!({ "timeout": "5" }),
                "timeout 5 of the network configuration cannot be used: a unit is missing",
            ),
            (json!({ "timeout": "0s" }), "timeout 0s of the network configuration is out of range"),
            (json!({ "timeout": "1h" }), "up to 120s"),
            (json!({ "timeout": 5 }), "expected a string"),
            (json!({ "onTimeout": "ajar" }), "onTimeout ajar of the network configuration is unknown; write"),
        ] {
            let error = call(POD, extra).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let unnamed = call("K8S_POD_NAME=web-0", json!({})).unwrap();
        assert!(unnamed.sandbox().unwrap_err().to_string().contains("K8S_POD_NAMESPACE"));
        let first = call(POD, json!({ "prevResult": null })).unwrap();
        assert!(first.result().unwrap_err().to_string().contains("comes after"));
    }
}

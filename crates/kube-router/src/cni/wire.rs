//! What the plugin tells the agent about a sandbox, as JSON: on the socket, and in records.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kube::model::{ObjectName, PodUid};
use crate::store::Announced;

/// Where on the agent's socket sandboxes are put and deleted.
pub const PATH: &str = "/v1/sandboxes";
/// The parameter of a request that tells how long its answer is waited for, in milliseconds.
pub const WAIT: &str = "wait";

/// A sandbox. Fields are added, never renamed: plugin and agent need not be of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub name: String,
    /// UID of its pod, as the kubelet gave it to the runtime.
    pub uid: Option<String>,
    /// The runtime's identifier of the sandbox.
    pub container: String,
    /// The node's end of the pod's link, where the plugins before told it.
    pub host_interface: Option<String>,
    /// The pod's addresses. None when a sandbox is removed.
    pub addresses: Vec<IpAddr>,
}

impl Sandbox {
    /// Its pod.
    pub fn pod(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.as_str().into(), name: self.name.as_str().into() }
    }

    /// As an input of the store.
    pub fn announced(&self) -> Announced {
        Announced {
            id: self.pod(),
            uid: self.uid.as_deref().map(PodUid::of),
            container: self.container.as_str().into(),
            ips: self.addresses.clone(),
        }
    }

    /// What it lacks to be of use, if anything.
    pub fn lacks(&self) -> Option<&'static str> {
        let fields = [
            ("namespace", self.namespace.is_empty()),
            ("name", self.name.is_empty()),
            ("container", self.container.is_empty()),
        ];
        fields.into_iter().find_map(|(field, empty)| empty.then_some(field))
    }
}

//! Nodes, pods and outside hosts as namespaces on this kernel, joined by a [`Fabric`].
//!
//! Everything here is what surrounds kube-router on a real machine: links, addresses, the container runtime's part of
//! pod wiring. It is set up by `ip` and the CNI plugins, never by the code under test. Dropping a value removes it.

mod cni;
mod fabric;
mod mounts;
mod namespace;
mod plan;
mod pod;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;

pub(crate) use cni::plugin_path;
pub use cni::{CONFLIST, PodObject, PortMapping, conflist};
pub(crate) use fabric::FORWARDING;
pub use fabric::{Fabric, RUN_FOLDER, sweep};
pub use namespace::Namespace;
pub use plan::{Families, addresses};
pub use pod::Pod;

/// Step that failed while a part of the lab was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be made or entered, or its thread is gone.
    #[error("namespace {name}: {source}")]
    Namespace {
        /// Which.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file, folder or sysctl.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tool said no.
    #[error(transparent)]
    Tool(#[from] crate::process::Error),
    /// A CNI configuration or result that is not what the specification says.
    #[error("not a CNI document ({source}): {what}")]
    Cni {
        /// The document.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A machine of the cluster: network and mount namespace, one link to the fabric, forwarding on.
#[derive(Debug)]
pub struct Node {
    name: String,
    segment: u8,
    addresses: Vec<IpNet>,
    pod_ranges: Vec<IpNet>,
    port: String,
    namespace: Arc<Namespace>,
    fabric: Arc<Fabric>,
    /// Set when the whole node goes: its pods then need no DEL each.
    abandoned: AtomicBool,
}

impl Node {
    /// The `index`th node (from 1) of a lab, `node-INDEX`, on `segment`, without a CNI configuration.
    pub fn new(fabric: &Arc<Fabric>, segment: u8, index: u8) -> Result<Self, Error> {
        let families = fabric.families();
        let name = format!("node-{index}");
        let namespace = Namespace::machine(&name)?;
        namespace.sysctls(FORWARDING)?;
        // Where the module is loaded; bridged pod traffic then passes the rules, as on a real node.
        let bridged =
            [("-net/bridge/bridge-nf-call-iptables", "1"), ("-net/bridge/bridge-nf-call-ip6tables", "1")];
        namespace.sysctls(&bridged)?;
        let addresses = families.node(segment, index);
        let port = fabric.plug(&namespace, segment, &addresses)?;
        fabric.publish(&namespace)?;
        let pod_ranges = families.pods(index);
        let namespace = Arc::new(namespace);
        let (fabric, abandoned) = (Arc::clone(fabric), AtomicBool::new(false));
        Ok(Self { name, segment, addresses, pod_ranges, port, namespace, fabric, abandoned })
    }

    /// `node-INDEX`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.addresses)
    }

    /// The same with the prefix lengths of its segment.
    pub fn networks(&self) -> &[IpNet] {
        &self.addresses
    }

    /// Ranges its pods get addresses from, IPv4 first.
    pub fn pod_ranges(&self) -> &[IpNet] {
        &self.pod_ranges
    }

    /// Uses these pod ranges instead (those an API server allocated); takes effect with the next
    /// [`Node::configure_cni`].
    pub fn set_pod_ranges(&mut self, ranges: Vec<IpNet>) {
        self.pod_ranges = ranges;
    }

    /// Its subnet.
    pub fn segment(&self) -> u8 {
        self.segment
    }

    /// To run things inside.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The network it is plugged into.
    pub fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// Says that the node is about to go with all its pods: they are then dropped without asking CNI to undo each.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Writes kube-router's CNI configuration with this node's pod ranges into the node's `/etc/cni/net.d`.
    pub fn configure_cni(&self, hairpin: bool) -> Result<(), Error> {
        let text = conflist(&self.pod_ranges, hairpin);
        let write = move || std::fs::write(CONFLIST, text);
        self.namespace.run(write)?.map_err(|source| Error::File { path: CONFLIST.into(), source })
    }
}

impl Node {
    /// Installs the agent's program under the name of the CNI plugin that waits for policies, on this node alone.
    pub fn install_waiting_plugin(&self, program: &Path) -> Result<(), Error> {
        let program = program.to_owned();
        self.namespace.run(move || cni::install_waiting_plugin(&program))?
    }

    /// Puts that plugin with these settings (an object) at the end of the node's CNI configuration.
    pub fn chain_waiting_plugin(&self, settings: &serde_json::Value) -> Result<(), Error> {
        let settings = settings.clone();
        self.namespace.run(move || cni::chain_waiting_plugin(&settings))?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fabric.unplug(&self.port);
        self.fabric.withdraw(&self.namespace);
    }
}

/// Routes every node's pod ranges between the nodes, as the infrastructure does where no routing daemon runs: directly on
/// one segment, through the router between segments.
pub fn route_pods(fabric: &Fabric, nodes: &[&Node]) -> Result<(), Error> {
    let mut router = String::new();
    for node in nodes {
        for range in &node.pod_ranges {
            router += &route(range, &node.addresses);
        }
        let mut lines = String::new();
        for other in nodes.iter().filter(|other| other.name != node.name) {
            let gateway = fabric.families().gateway(node.segment);
            let hop = if other.segment == node.segment { &other.addresses } else { &gateway };
            for range in &other.pod_ranges {
                lines += &route(range, hop);
            }
        }
        if !lines.is_empty() {
            node.namespace.ip(&lines)?;
        }
    }
    fabric.namespace().ip(&router)
}

fn route(range: &IpNet, hops: &[IpNet]) -> String {
    let same = |hop: &&IpNet| hop.addr().is_ipv4() == range.addr().is_ipv4();
    hops.iter().find(same).map_or(String::new(), |hop| format!("route replace {range} via {}\n", hop.addr()))
}

/// A host outside the cluster, on the same fabric: clients of NodePorts, external and load-balancer addresses.
#[derive(Debug)]
pub struct Outside {
    addresses: Vec<IpNet>,
    port: String,
    namespace: Arc<Namespace>,
    fabric: Arc<Fabric>,
}

impl Outside {
    /// The `index`th outside host (from 1), `outside-INDEX`, on `segment`.
    pub fn new(fabric: &Arc<Fabric>, segment: u8, index: u8) -> Result<Self, Error> {
        let namespace = Namespace::network(&format!("outside-{index}"))?;
        namespace.sysctls(&[("net/ipv6/conf/default/accept_dad", "0")])?;
        let addresses = fabric.families().outside(segment, index);
        let port = fabric.plug(&namespace, segment, &addresses)?;
        fabric.publish(&namespace)?;
        Ok(Self { addresses, port, namespace: Arc::new(namespace), fabric: Arc::clone(fabric) })
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.addresses)
    }

    /// To run things inside.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Sends `range` (an external or load-balancer address) to `node`, as a router that learned it would.
    pub fn route(&self, range: &IpNet, node: &Node) -> Result<(), Error> {
        self.namespace.ip(&route(range, &node.addresses))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.fabric.unplug(&self.port);
        self.fabric.withdraw(&self.namespace);
    }
}

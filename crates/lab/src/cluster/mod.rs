//! A whole cluster on this kernel: fabric, nodes, API server, kubelets, an outside host, and one agent process per node.

mod access;
mod agent;
mod authority;
mod builder;
mod readiness;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use agent::Agent;
pub use authority::{Authority, Pair};
pub use builder::{Builder, agent_program};
pub use readiness::is_ready;

use crate::api_server::{ApiError, ApiServer, Faults, Handle};
use crate::kubelet::Kubelet;
use crate::node::{self, Fabric, Node, Outside};
use crate::probe::Probe;
use crate::process::{self, command};

/// Step that failed while a cluster was built or driven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces, links, CNI.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The API server did not start.
    #[error("API server: {0}")]
    Api(#[from] crate::api_server::Error),
    /// The API server refused an object.
    #[error("API server: {0}")]
    Refused(#[from] ApiError),
    /// A process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The API server's port on the fabric.
    #[error("cannot listen on the fabric: {0}")]
    Listen(std::io::Error),
    /// A log or configuration file.
    #[error("{path}: {source}")]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Where this program is.
    #[error("cannot find the agent's binary: {0}")]
    Program(std::io::Error),
    /// A number no node has.
    #[error("there is no node {0}")]
    NoNode(usize),
    /// An agent that has ended by itself.
    #[error("the agent of {node} has ended with status {status}; its log is {log}")]
    Ended {
        /// Which.
        node: String,
        /// Exit status as a shell reports it.
        status: i32,
        /// What it said.
        log: PathBuf,
    },
    /// A condition that did not come true.
    #[error("{what}: not within {}s", limit.as_secs())]
    NotYet {
        /// What was waited for, and what was seen last.
        what: String,
        /// How long.
        limit: Duration,
    },
}

/// A running cluster; dropping it removes it. Fields go in order: agents before pods before nodes.
pub struct Cluster {
    agents: Vec<Option<Agent>>,
    commands: Vec<agent::Command>,
    kubelets: Vec<Kubelet>,
    api: ApiServer,
    outside: Outside,
    nodes: Vec<Arc<Node>>,
    fabric: Arc<Fabric>,
    kubeconfig: PathBuf,
    plan: Builder,
}

impl Cluster {
    /// Three nodes, one subnet, IPv4, no agents, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new(
        api: ApiServer,
        fabric: Arc<Fabric>,
        nodes: Vec<Arc<Node>>,
        kubelets: Vec<Kubelet>,
        outside: Outside,
        commands: Vec<agent::Command>,
        plan: Builder,
    ) -> Result<Self, Error> {
        let kubeconfig = fabric.folder().join("kubeconfig");
        let local = api.addresses().into_iter().find(|address| address.ip().is_loopback());
        let server = local.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let text = kubeconfig_text(&json!({ "server": format!("http://{server}") }), &json!({}));
        std::fs::write(&kubeconfig, text)
            .map_err(|source| Error::Log { path: kubeconfig.clone(), source })?;
        let agents = nodes.iter().map(|_| None).collect();
        Ok(Self { agents, commands, kubelets, api, outside, nodes, fabric, kubeconfig, plan })
    }

    /// The in-process client of the API server.
    pub fn api(&self) -> Handle {
        self.api.handle()
    }

    /// The API server's switchboard of faults.
    pub fn faults(&self) -> Faults {
        self.api.faults()
    }

    /// The network between the nodes.
    pub fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// All nodes, `node-1` first.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Node number `index`, from 1.
    pub fn node(&self, index: usize) -> Result<&Arc<Node>, Error> {
        index.checked_sub(1).and_then(|at| self.nodes.get(at)).ok_or(Error::NoNode(index))
    }

    /// The host outside the cluster.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// A probe on the outside host.
    pub fn outside_probe(&self) -> Probe {
        Probe::new("outside", self.outside.namespace())
    }

    /// A probe on node number `index`, from 1.
    pub fn node_probe(&self, index: usize) -> Result<Probe, Error> {
        let node = self.node(index)?;
        Ok(Probe::new(node.name(), node.namespace()))
    }

    /// A probe in a running pod; none before it runs.
    pub fn pod_probe(&self, namespace: &str, name: &str) -> Option<Probe> {
        self.kubelets.iter().find_map(|kubelet| kubelet.probe(namespace, name))
    }

    /// A kubeconfig for this machine's kubectl.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl against the cluster.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, Error> {
        let mut kubectl = command("kubectl");
        // A home of its own: discovery caches of another cluster on the same port would mislead it.
        kubectl.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.fabric.folder()).args(arguments);
        Ok(process::run(&mut kubectl)?)
    }

    /// Runs a command on node number `index` (from 1) and returns its output: `ipvsadm -ln`, `ip -j addr`.
    pub fn on_node(&self, index: usize, line: &str) -> Result<String, Error> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let work = move || {
            let (program, arguments) = words.split_first()?;
            Some(process::run(command(program).args(arguments)))
        };
        Ok(self.node(index)?.namespace().run(work)?.transpose()?.unwrap_or_default())
    }

    /// Adds a node made like the others and returns its number. The lab routes no pods for it. Needs the runtime.
    pub fn add_node(&mut self) -> Result<usize, Error> {
        self.plan.clone().grow(self)
    }

    /// Starts the agent of node number `index` (from 1), after killing the one that runs.
    pub fn start_agent(&mut self, index: usize) -> Result<(), Error> {
        let at = index.checked_sub(1).ok_or(Error::NoNode(index))?;
        let (node, command) = self.nodes.get(at).zip(self.commands.get(at)).ok_or(Error::NoNode(index))?;
        let slot = self.agents.get_mut(at).ok_or(Error::NoNode(index))?;
        *slot = None;
        let log = self.fabric.folder().join(format!("{}.log", node.name()));
        *slot = Some(Agent::start(node, command, &log)?);
        Ok(())
    }

    /// The agent of node number `index` (from 1), if it was started and not taken.
    pub fn agent(&mut self, index: usize) -> Option<&mut Agent> {
        self.agents.get_mut(index.checked_sub(1)?)?.as_mut()
    }

    /// The log of the agent of node number `index` (from 1), all its lives.
    pub fn agent_log(&self, index: usize) -> Result<PathBuf, Error> {
        Ok(self.fabric.folder().join(format!("{}.log", self.node(index)?.name())))
    }

    /// Takes the agent of node number `index` (from 1), to stop or kill it.
    pub fn take_agent(&mut self, index: usize) -> Option<Agent> {
        self.agents.get_mut(index.checked_sub(1)?)?.take()
    }

    /// Changes the flags the agent of node number `index` (from 1) is started with next.
    pub fn set_agent_flags<S: Into<String>>(
        &mut self,
        index: usize,
        flags: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        let command = self.command_mut(index)?;
        command.arguments.truncate(FIXED_ARGUMENTS);
        command.arguments.extend(flags.into_iter().map(Into::into));
        Ok(())
    }

    /// What the agent of node number `index` (from 1) is started by.
    fn command_mut(&mut self, index: usize) -> Result<&mut agent::Command, Error> {
        index.checked_sub(1).and_then(|at| self.commands.get_mut(at)).ok_or(Error::NoNode(index))
    }
}

/// `--hostname-override`, which stays.
const FIXED_ARGUMENTS: usize = 1;

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.abandon());
    }
}

/// Asks `condition` until it says yes or `limit` is over. The condition says what it saw instead, for the error.
pub async fn eventually<T, F>(limit: Duration, mut condition: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, String>>,
{
    attempts(limit, |_| condition()).await
}

/// [`eventually`], of a condition that is told how often it was asked before: to wait longer each time, say.
pub async fn attempts<T, F>(limit: Duration, mut condition: impl FnMut(u32) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    let mut before = 0;
    loop {
        match condition(before).await {
            Ok(value) => return Ok(value),
            Err(what) if Instant::now() >= end => return Err(Error::NotYet { what, limit }),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
        before += 1;
    }
}

/// A kubeconfig with one cluster and one user, which hold these fields. JSON is YAML, and kubectl reads it.
pub fn kubeconfig_text(cluster: &Value, user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": cluster }],
        "users": [{ "name": "lab", "user": user }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
    })
    .to_string()
}

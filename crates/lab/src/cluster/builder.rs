//! What a cluster is made of, and the order in which it is made.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::agent::Command;
use super::{Cluster, Error};
use crate::api_server::{ApiServer, Config, Handle};
use crate::control_plane;
use crate::kubelet::{self, Kubelet};
use crate::node::{Fabric, Families, Node, Outside, route_pods};

/// Port of the API server on the fabric's router, which every node reaches.
const API_PORT: u16 = 8080;

/// Choices about a cluster; the default is one IPv4 subnet with three nodes, one outside host and no agents.
#[derive(Debug, Clone)]
pub struct Builder {
    nodes: u8,
    families: Families,
    segments: u8,
    agents: bool,
    program: Option<PathBuf>,
    flags: Vec<String>,
    route_pods: bool,
    hairpin: bool,
    load_balancers: Vec<IpNet>,
    load_balancer_range: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 3,
            families: Families::V4,
            segments: 1,
            agents: false,
            program: None,
            flags: Vec::new(),
            route_pods: true,
            hairpin: false,
            load_balancers: Vec::new(),
            load_balancer_range: true,
        }
    }
}

impl Builder {
    /// Number of nodes, `node-1` and so on.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Both families, IPv4 first.
    pub fn dual_stack(self) -> Self {
        self.families(Families::Dual)
    }

    /// These families.
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Nodes spread over this many subnets with a router between them.
    pub fn segments(mut self, segments: u8) -> Self {
        self.segments = segments;
        self
    }

    /// Starts an agent on each node, with these flags besides `--master` and `--hostname-override`.
    pub fn agent_flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.agents = true;
        self.flags = flags.into_iter().map(Into::into).collect();
        self
    }

    /// The agent's binary; by default `kube-router` beside this program (`KUBE_ROUTER_BIN` overrides).
    pub fn agent(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Whether the lab routes pod ranges between the nodes (default), or leaves that to the agents.
    pub fn route_pods(mut self, on: bool) -> Self {
        self.route_pods = on;
        self
    }

    /// `hairpinMode` of the CNI bridge (default off: hairpin is then the agent's business).
    pub fn hairpin(mut self, on: bool) -> Self {
        self.hairpin = on;
        self
    }

    /// Ranges for services of type LoadBalancer; by default `198.51.100.0/24` and `fd98::/112`.
    pub fn load_balancers(mut self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        self.load_balancers = ranges.into_iter().collect();
        self.load_balancer_range = false;
        self
    }

    /// Builds it: network, nodes, API server, kubelets, agents. Needs a multi-threaded tokio runtime.
    pub async fn start(self) -> Result<Cluster, Error> {
        let fabric = Arc::new(Fabric::new(self.families, self.segments)?);
        let api = self.api_server(&fabric).await?;
        let mut nodes = Vec::new();
        for index in 1..=self.nodes {
            nodes.push(self.node(&fabric, &api.handle(), index)?);
        }
        if self.route_pods {
            route_pods(&fabric, &nodes.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        }
        let outside = Outside::new(&fabric, 0, 1)?;
        let kubelets = nodes.iter().map(|node| Kubelet::start(Arc::clone(node), api.handle())).collect();
        let commands = nodes.iter().map(|node| self.command(&fabric, node)).collect::<Result<_, _>>()?;
        let (count, agents) = (usize::from(self.nodes), self.agents);
        let mut cluster = Cluster::new(api, fabric, nodes, kubelets, outside, commands, self)?;
        if agents {
            for index in 1..=count {
                cluster.start_agent(index)?;
            }
        }
        Ok(cluster)
    }

    /// The `index`th node (from 1) with its object and its CNI file.
    fn node(&self, fabric: &Arc<Fabric>, api: &Handle, index: u8) -> Result<Arc<Node>, Error> {
        let segment = index.saturating_sub(1) % fabric.segments();
        let mut node = Node::new(fabric, segment, index)?;
        node.set_pod_ranges(kubelet::register(api, &node)?);
        node.configure_cni(self.hairpin)?;
        Ok(Arc::new(node))
    }

    /// One more node for a running cluster, with its kubelet and, where the others have one, its agent.
    pub(super) fn grow(&self, cluster: &mut Cluster) -> Result<usize, Error> {
        let index = cluster.nodes.len() + 1;
        let number = u8::try_from(index).map_err(|_| Error::NoNode(index))?;
        let node = self.node(&cluster.fabric, &cluster.api.handle(), number)?;
        cluster.commands.push(self.command(&cluster.fabric, &node)?);
        cluster.kubelets.push(Kubelet::start(Arc::clone(&node), cluster.api.handle()));
        cluster.nodes.push(node);
        cluster.agents.push(None);
        if self.agents {
            cluster.start_agent(index)?;
        }
        Ok(index)
    }

    async fn api_server(&self, fabric: &Fabric) -> Result<ApiServer, Error> {
        let listeners = listen(fabric, API_PORT)?;
        let ranges = |v4: &str, v6: &str| -> Vec<IpNet> {
            let both = [(self.families.v4(), v4), (self.families.v6(), v6)];
            both.iter().filter(|(on, _)| *on).filter_map(|(_, range)| range.parse().ok()).collect()
        };
        let plan = control_plane::Config {
            service_cidrs: self.families.services(),
            pod_cidrs: ranges("10.244.0.0/16", "fd44::/48"),
            load_balancer_cidrs: match self.load_balancer_range {
                true => ranges("198.51.100.0/24", "fd98::/112"),
                false => self.load_balancers.clone(),
            },
        };
        let config = Config {
            // For kubectl on this machine, outside the lab's namespaces.
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            listeners,
            control_plane: Some(plan),
            ..Config::default()
        };
        Ok(ApiServer::start(config).await?)
    }

    fn command(&self, fabric: &Fabric, node: &Node) -> Result<Command, Error> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => agent_program()?,
        };
        let gateway = fabric.gateway(0).first().map(|ip| SocketAddr::new(*ip, API_PORT));
        let master = gateway.map(|gateway| format!("--master=http://{gateway}"));
        let mut arguments = vec![format!("--hostname-override={}", node.name())];
        arguments.extend(self.flags.iter().cloned());
        Ok(Command { program, master, environment: Vec::new(), arguments })
    }
}

/// Listens on a port of every address by which the nodes of the first subnet know the fabric's router.
pub(super) fn listen(fabric: &Fabric, port: u16) -> Result<Vec<TcpListener>, Error> {
    let gateways = fabric.gateway(0);
    let bind = move || {
        let listen = |&ip: &IpAddr| TcpListener::bind(SocketAddr::new(ip, port));
        gateways.iter().map(listen).collect::<std::io::Result<Vec<_>>>()
    };
    fabric.namespace().run(bind)?.map_err(Error::Listen)
}

/// The agent's binary: what `KUBE_ROUTER_BIN` names, else `kube-router` beside this program.
pub fn agent_program() -> Result<PathBuf, Error> {
    std::env::var_os("KUBE_ROUTER_BIN").map_or_else(beside_this_program, |program| Ok(program.into()))
}

/// cargo puts binaries in one folder and test executables in its `deps`.
fn beside_this_program() -> Result<PathBuf, Error> {
    let here = std::env::current_exe().map_err(Error::Program)?;
    let folder = here.parent().unwrap_or(Path::new("/"));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("kube-router"))
}

//! `kube-router explain`: what becomes of packets from here to there, and why.
//!
//! Decided here: which packets a question is about. The core begins an [`Explanation`] from the store, then each
//! controller adds what it decides, in the order in which a packet meets it: which backends a Service has, what policies say
//! of both ends, which route is planned. All of that is pure and costs the kernel nothing. Whoever serves the answer adds
//! the kernel's own word on the route ([`route`]).
//!
//! An answer is about the first packet of a connection: replies, and the ICMP messages that always pass, are not judged.
//! It is this node's answer. Policies of pods elsewhere are enforced there, and [`PolicyHop`] says so.

pub mod client;
pub mod command;
mod resolve;
pub mod route;
pub mod text;

use std::collections::HashMap;
use std::net::IpAddr;

use linux::row::{Family, Protocol};
use serde::{Deserialize, Serialize};

use crate::core::Inputs;
use crate::kube::model::Pod;
use crate::store::Store;

/// What is asked, as the user writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who sends: `namespace/pod`, `pod/NAME`, an address, or `node` for this node.
    pub from: String,
    /// Who is to receive: as `from`, or a Service: `namespace/service`, `service/NAME`.
    pub to: String,
    /// Destination port.
    pub port: Option<u16>,
    /// `tcp`, `udp` or `sctp`; TCP if there is a port and nothing is said.
    pub protocol: Option<String>,
}

/// A question that cannot be answered, and what to ask instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// Nothing of this name.
    #[error("{what} {asked:?} is not known here{hint}")]
    Unknown {
        /// What it was to be.
        what: &'static str,
        /// As written.
        asked: String,
        /// Why that may be.
        hint: &'static str,
    },
    /// Neither `tcp`, `udp` nor `sctp`.
    #[error("{0:?} is no protocol with ports: tcp, udp or sctp")]
    Protocol(String),
    /// One end has IPv4 addresses only, the other IPv6.
    #[error("{from} and {to} have no address family in common")]
    Families {
        /// One.
        from: String,
        /// The other.
        to: String,
    },
}

/// The answer. Fields are added, never renamed: scripts read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// The node whose answer it is.
    pub node: String,
    /// Who sends.
    pub from: End,
    /// Who is to receive.
    pub to: End,
    /// Virtual servers that are met.
    pub services: Vec<ServiceHop>,
    /// Where packets may end: one for each backend and family.
    pub paths: Vec<PathHop>,
    /// All of it in a word.
    pub verdict: Verdict,
    /// What the answer rests on, and what it leaves out.
    pub notes: Vec<String>,
}

/// An end of the packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// What it is.
    pub kind: EndKind,
    /// Namespace and name of a pod or Service, the name of a node, the address itself.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node a pod runs on.
    pub node: Option<String>,
}

/// What an end is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// A pod with an address of its own.
    Pod,
    /// A node, or a pod in its network.
    Node,
    /// A Service.
    Service,
    /// An address nothing here is known to have; it may still be a Service's.
    #[default]
    Address,
}

/// A virtual server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceHop {
    /// Namespace and name of the Service.
    pub service: String,
    /// Address, port and protocol.
    pub at: String,
    /// `ClusterIP`, `NodePort`, …
    pub kind: String,
    /// Scheduler.
    pub scheduler: String,
    /// Seconds a client sticks to its backend.
    pub affinity_seconds: Option<u32>,
    /// Only backends of this node are used, by the Service's traffic policy.
    pub local_only: bool,
    /// It is in the kernel.
    pub programmed: bool,
    /// Backends in the kernel.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// Address and port.
    pub at: String,
    /// 0 takes no new connections.
    pub weight: u32,
}

/// Packets between two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathHop {
    /// Address of the sender.
    pub source: IpAddr,
    /// Address of the receiver, after a Service's address has been translated.
    pub destination: IpAddr,
    /// Port at the receiver; without one, packets of no protocol with ports.
    pub port: Option<u16>,
    /// Protocol, where there is a port.
    pub protocol: Option<String>,
    /// The virtual server it leads through.
    pub through: Option<String>,
    /// The receiver sees this node's address instead of the sender's.
    pub masqueraded_as: Option<IpAddr>,
    /// The pod that sends.
    pub source_pod: Option<String>,
    /// The pod that receives.
    pub destination_pod: Option<String>,
    /// The node of the pod that receives.
    pub destination_node: Option<String>,
    /// What policies of the sender say; none where network policy is not run here, or not in this family.
    pub egress: Option<PolicyHop>,
    /// What policies of the receiver say.
    pub ingress: Option<PolicyHop>,
    /// The route planned for a learned prefix.
    pub planned: Option<PlannedRoute>,
    /// The way the kernel would send packets now.
    pub route: Option<RouteHop>,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyHop {
    /// What they say.
    pub outcome: Outcome,
    /// Those that permit it; if it is refused, those that restrict the pod.
    pub policies: Vec<String>,
    /// The pod is on this node, whose kernel does what is said here. Otherwise its own node should.
    pub enforced_here: bool,
    /// The pod's node.
    pub node: Option<String>,
}

/// What the policies of one end come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is no pod with an address of its own at this end.
    NoPod,
    /// No policy restricts the pod in this direction.
    NotIsolated,
    /// A pod with itself, or the pod's own node with it.
    Exempt,
    /// Policies permit it.
    Permitted,
    /// Policies restrict the pod, and none permits it.
    Refused,
}

/// A route planned for a learned prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedRoute {
    /// The prefix.
    pub prefix: String,
    /// The next hop of the best path.
    pub next_hop: String,
    /// The Node that has it.
    pub node: Option<String>,
    /// The link; none where it is left to the network around the nodes.
    pub link: Option<String>,
    /// The link is a tunnel.
    pub tunnel: bool,
    /// The route is in the kernel as it should be.
    pub programmed: bool,
}

/// The kernel's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteHop {
    /// The link packets leave by.
    pub link: Option<String>,
    /// The gateway; none if the destination is on the link.
    pub via: Option<IpAddr>,
    /// Routing table.
    pub table: Option<u32>,
    /// The destination is this node itself.
    pub local: bool,
    /// Looked up as a packet of the node's own, because it is not known how packets of the sender come in.
    pub as_own: bool,
    /// Why the kernel would not send them, if so.
    pub refused: Option<String>,
}

/// All in a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every path is open.
    Allowed,
    /// Every path is closed by a policy.
    Denied,
    /// Some are.
    Depends,
    /// The Service has no backend here, or no such port.
    Unserved,
    /// The kernel has no way there.
    Unreachable,
    /// Nobody here knows: what would decide is not run by this agent.
    #[default]
    Unknown,
}

impl PathHop {
    fn new(source: IpAddr, destination: IpAddr, port: Option<u16>, protocol: Option<Protocol>) -> PathHop {
        PathHop {
            source,
            destination,
            port,
            protocol: protocol.map(|protocol| protocol.as_str().to_owned()),
            through: None,
            masqueraded_as: None,
            source_pod: None,
            destination_pod: None,
            destination_node: None,
            egress: None,
            ingress: None,
            planned: None,
            route: None,
        }
    }

    /// The same from a Service's address on, to one of its backends.
    pub fn to_backend(&self, through: &str, backend: (IpAddr, u16), protocol: Protocol) -> PathHop {
        let (ip, port) = backend;
        let source_pod = self.source_pod.clone();
        let through = Some(through.to_owned());
        PathHop { through, source_pod, ..PathHop::new(self.source, ip, Some(port), Some(protocol)) }
    }

    /// Its protocol.
    pub fn transport(&self) -> Option<Protocol> {
        protocol_named(self.protocol.as_deref()?)
    }

    /// Whom the receiver takes for the sender.
    pub fn seen_as(&self) -> IpAddr {
        self.masqueraded_as.unwrap_or(self.source)
    }

    /// Whether policies of both ends let it pass; what nobody judges passes.
    pub fn passes(&self) -> bool {
        let refused =
            |hop: &Option<PolicyHop>| hop.as_ref().is_some_and(|hop| hop.outcome == Outcome::Refused);
        !refused(&self.egress) && !refused(&self.ingress)
    }
}

impl Explanation {
    /// Finds the pods at the ends of all paths. O(pods).
    pub fn name_ends(&mut self, store: &Store) {
        let mut at: HashMap<IpAddr, Option<&Pod>> = HashMap::new();
        at.extend(self.paths.iter().flat_map(|path| [path.source, path.destination]).map(|ip| (ip, None)));
        for pod in store.pods().filter(|pod| has_addresses(pod)) {
            for ip in &pod.ips {
                if let Some(place) = at.get_mut(ip) {
                    *place = Some(pod);
                }
            }
        }
        for path in &mut self.paths {
            let pod = |ip| at.get(&ip).copied().flatten();
            path.source_pod = pod(path.source).map(|pod| pod.id.to_string());
            if let Some(pod) = pod(path.destination) {
                path.destination_pod = Some(pod.id.to_string());
                path.destination_node = pod.node.as_ref().map(ToString::to_string);
            }
        }
    }

    /// Sums up, when everybody has added his part.
    pub fn conclude(&mut self) {
        if self.to.kind == EndKind::Service && self.services.is_empty() {
            // Nobody who knows has led them to a backend.
            self.paths.clear();
        }
        let passing = self.paths.iter().filter(|path| path.passes()).count();
        let refused = |path: &PathHop| path.route.as_ref().is_some_and(|route| route.refused.is_some());
        self.verdict = if self.verdict == Verdict::Unserved || self.paths.is_empty() {
            // Said by whoever left no path.
            self.verdict
        } else if passing == 0 {
            Verdict::Denied
        } else if self.paths.iter().all(refused) {
            Verdict::Unreachable
        } else if passing == self.paths.len() {
            Verdict::Allowed
        } else {
            Verdict::Depends
        };
    }
}

/// A pod of its own network, that is not over.
fn has_addresses(pod: &Pod) -> bool {
    !pod.host_network && !pod.finished
}

fn protocol_named(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.as_str() == name)
}

/// The packets a question is about, one path for each pair of addresses of one family. O(pods + nodes).
///
/// # Errors
/// [`Unanswerable`], with what is not understood.
pub fn begin(question: &Question, inputs: Inputs<'_>) -> Result<Explanation, Unanswerable> {
    let protocol = match question.protocol.as_deref() {
        Some(name) => Some(protocol_named(name).ok_or_else(|| Unanswerable::Protocol(name.to_owned()))?),
        None => question.port.map(|_| Protocol::Tcp),
    };
    let from = resolve::sender(&question.from, inputs)?;
    let to = resolve::receiver(&question.to, inputs)?;
    let pairs = from.addresses.iter().flat_map(|source| to.addresses.iter().map(move |to| (*source, *to)));
    let of_one_family = pairs.filter(|(source, to)| Family::of(source) == Family::of(to));
    let paths: Vec<PathHop> =
        of_one_family.map(|(source, to)| PathHop::new(source, to, question.port, protocol)).collect();
    if paths.is_empty() {
        return Err(Unanswerable::Families { from: question.from.clone(), to: question.to.clone() });
    }
    let node = inputs.node.name.to_string();
    let mut explanation = Explanation { node, from, to, paths, ..Explanation::default() };
    explanation.name_ends(inputs.store);
    explanation.notes = notes(&explanation, question, inputs);
    Ok(explanation)
}

fn notes(explanation: &Explanation, question: &Question, inputs: Inputs<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let runs = inputs.options.controllers;
    if !runs.network_policy {
        notes.push(
            "network policy is not run by this agent (--run-firewall=false): policies are not judged"
                .to_owned(),
        );
    }
    if !runs.service_proxy && explanation.to.kind == EndKind::Service {
        let text = "the service proxy is not run by this agent (--run-service-proxy=false): another program chooses the \
                    backend; ask for a backend's address instead";
        notes.push(text.to_owned());
    }
    if question.port.is_none() && explanation.to.kind != EndKind::Service {
        let text = "without --port the answer is about packets that have no port; policies that permit ports permit none \
                    of them";
        notes.push(text.to_owned());
    }
    notes
}

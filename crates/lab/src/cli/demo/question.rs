//! Which connections the demo makes, and what is right for each: pure, from the [`State`] of the cluster.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lab::probe::Protocol;

use super::state::{Host, Pod, Port, Service, State};

/// A way into a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    ClusterIp,
    Hairpin,
    NodePort,
    /// NodePort of a node that has no backend, where the service keeps traffic local.
    NodePortWithoutBackend,
    ExternalIp,
    LoadBalancerIp,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// A pod, with the node it is on.
    Pod { namespace: String, name: String, node: String },
    /// A node itself; the number counts from 1.
    Node(usize),
    /// The host outside; its connections enter by the node of this number, from 1.
    Outside(usize),
    /// The host outside; a router spreads its connections over the nodes that told it of the address.
    Router,
}

/// Which address of the client the backend should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The client's own.
    Client,
    /// The client's own, or one of the node it is on or entered by.
    ClientOrNode,
    /// The address that was asked: a pod that reaches itself.
    Service,
}

/// Connections of one client to one address, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Place of the service in the state, for the order of the table.
    pub(super) service: usize,
    pub(super) protocol: Protocol,
    /// The service's port, not that of a NodePort.
    pub(super) port: u16,
    pub(super) way: Way,
    pub(super) client: Client,
    pub(super) to: SocketAddr,
    pub(super) times: usize,
    /// Who may answer; nobody must if it is empty.
    pub(super) backends: BTreeSet<String>,
    pub(super) sticky: bool,
    pub(super) source: Source,
}

/// All questions, service by service.
pub(super) fn all(state: &State) -> Vec<Question> {
    let mut questions = Vec::new();
    for (index, service) in state.services.iter().enumerate() {
        for port in &service.ports {
            let asking = Asking { state, index, service, port };
            questions.extend(asking.cluster_ip());
            questions.extend(asking.hairpin());
            questions.extend(asking.node_port());
            questions.extend(asking.routed(&service.external_ips, Way::ExternalIp));
            questions.extend(asking.routed(&service.balancer_ips, Way::LoadBalancerIp));
        }
    }
    questions
}

struct Asking<'a> {
    state: &'a State,
    index: usize,
    service: &'a Service,
    port: &'a Port,
}

impl Asking<'_> {
    /// To every cluster IP, from a pod on each node and from each node.
    fn cluster_ip(&self) -> Vec<Question> {
        let mut clients: Vec<Client> =
            self.state.nodes.iter().filter_map(|node| self.client_on(node)).collect();
        clients.extend((1..=self.state.nodes.len()).map(Client::Node));
        // What pods send out of the cluster leaves as their node.
        let outside = self.service.backends.values().any(String::is_empty);
        let source = if outside { Source::ClientOrNode } else { Source::Client };
        let to = |client: &Client| self.questions(Way::ClusterIp, client, &self.service.cluster_ips, source);
        clients.iter().flat_map(to).collect()
    }

    /// From each backend that is the only one to itself; with several, round robin would ask the others.
    fn hairpin(&self) -> Vec<Question> {
        let own = |pod: &&Pod| {
            pod.namespace == self.service.namespace && self.service.backends.contains_key(&pod.name)
        };
        let alone = self.service.hairpin && self.service.backends.len() == 1;
        let pods = self.state.pods.iter().filter(own).filter(|_| alone);
        pods.flat_map(|pod| {
            self.questions(Way::Hairpin, &as_client(pod), &self.service.cluster_ips, Source::Service)
        })
        .collect()
    }

    /// From outside to every address of every node.
    fn node_port(&self) -> Vec<Question> {
        let Some(node_port) = self.port.node_port else { return Vec::new() };
        let mut questions = Vec::new();
        for (number, node) in (1..).zip(&self.state.nodes) {
            let addresses = self.usable(&node.addresses);
            let mut asked =
                self.questions(Way::NodePort, &Client::Outside(number), &addresses, self.outside_source());
            for question in &mut asked {
                question.to.set_port(node_port);
                self.keep_local(question, node);
            }
            questions.extend(asked);
        }
        questions
    }

    /// From outside to addresses that the router knows. By which node a connection comes in, and so by which backend of a
    /// local service it is answered, is a matter of the router's hash: a few might all go one way.
    fn routed(&self, addresses: &[IpAddr], way: Way) -> Vec<Question> {
        let mut questions = self.questions(way, &Client::Router, addresses, self.outside_source());
        questions.iter_mut().for_each(|question| question.times *= 5);
        questions
    }

    /// With externalTrafficPolicy Local only backends of the entered node may answer.
    fn keep_local(&self, question: &mut Question, node: &Host) {
        if !self.service.local {
            return;
        }
        question.backends.retain(|name| self.service.backends.get(name) == Some(&node.name));
        if question.backends.is_empty() {
            question.way = Way::NodePortWithoutBackend;
            question.times = 1;
        }
    }

    fn outside_source(&self) -> Source {
        if self.service.local { Source::Client } else { Source::ClientOrNode }
    }

    /// Addresses of the families the service has.
    fn usable(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let has =
            |address: &&IpAddr| self.service.cluster_ips.iter().any(|ip| ip.is_ipv4() == address.is_ipv4());
        addresses.iter().filter(has).copied().collect()
    }

    /// A pod of the node that is no backend of the service.
    fn client_on(&self, node: &Host) -> Option<Client> {
        let fits = |pod: &&Pod| pod.node == node.name && !self.service.backends.contains_key(&pod.name);
        self.state.pods.iter().find(fits).map(as_client)
    }

    fn questions(&self, way: Way, client: &Client, addresses: &[IpAddr], source: Source) -> Vec<Question> {
        let question = |address: &IpAddr| Question {
            service: self.index,
            protocol: self.port.protocol,
            port: self.port.number,
            way,
            client: client.clone(),
            to: SocketAddr::new(*address, self.port.number),
            times: (2 * self.service.backends.len()).max(4),
            backends: self.service.backends.keys().cloned().collect(),
            sticky: self.service.sticky,
            source,
        };
        addresses.iter().map(question).collect()
    }
}

fn as_client(pod: &Pod) -> Client {
    Client::Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), node: pod.node.clone() }
}

/// `ip -batch` lines by which the outside host finds the addresses that no subnet leads to.
pub(super) fn routes(questions: &[Question], router: &[IpAddr]) -> String {
    let to_router = questions.iter().filter(|question| question.client == Client::Router);
    let line = |question: &Question| {
        let to = question.to.ip();
        let via = router.iter().find(|hop| hop.is_ipv4() == to.is_ipv4())?;
        Some(format!("route replace {to} via {via}\n"))
    };
    let lines: BTreeSet<String> = to_router.filter_map(line).collect();
    lines.into_iter().collect()
}

//! The demo's result: what was asked, by which way in, who answered how often. Questions that differ only in family or
//! in which node share a row.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use comfy_table::{ContentArrangement, Table, TableComponent};

use super::question::{Client, Question, Way};
use super::state::{Service, State};
use super::verdict::Verdict;

/// One line of the table.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Place of the service in the state.
    pub(super) order: usize,
    service: String,
    port: String,
    way: String,
    from: String,
    answers: String,
    sources: String,
    pub(super) wrong: Vec<String>,
}

/// What questions of one row have in common.
type Key = (usize, u16, Way, u8);

fn key(question: &Question) -> Key {
    let kind = match question.client {
        Client::Pod { .. } => 0,
        Client::Node(_) => 1,
        Client::Outside(_) => 2,
        Client::Router => 3,
    };
    (question.service, question.port, question.way, kind)
}

/// Rows in the order of services and ways.
pub(super) fn rows(state: &State, judged: &[(Question, Verdict)]) -> Vec<Row> {
    let mut groups: BTreeMap<Key, Vec<&(Question, Verdict)>> = BTreeMap::new();
    for both in judged {
        groups.entry(key(&both.0)).or_default().push(both);
    }
    // Clients of one virtual server take turns: two that ask in step may each meet one backend only, never both the same.
    let mut met: BTreeMap<(usize, u16, Way), BTreeSet<&str>> = BTreeMap::new();
    for (question, verdict) in judged {
        let way = met.entry((question.service, question.port, question.way)).or_default();
        way.extend(verdict.answers.keys().map(String::as_str));
    }
    let row = |((service, port, way, _), group): (&Key, &Vec<_>)| {
        row(state, group, met.get(&(*service, *port, *way)).unwrap_or(&BTreeSet::new()))
    };
    groups.iter().filter_map(row).collect()
}

/// `met`: who answered anybody by this way.
fn row(state: &State, group: &[&(Question, Verdict)], met: &BTreeSet<&str>) -> Option<Row> {
    let (first, _) = group.first()?;
    let service = state.services.get(first.service)?;
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in group.iter().flat_map(|(_, verdict)| &verdict.answers) {
        *answers.entry(name).or_default() += count;
    }
    let wanted: BTreeSet<&str> = group.iter().flat_map(|(q, _)| &q.backends).map(String::as_str).collect();
    let mut wrong: Vec<String> = Vec::new();
    for (question, verdict) in group {
        wrong.extend(verdict.wrong.iter().map(|what| format!("{}: {what}", describe(state, question))));
    }
    // Who prefers one backend may leave another without any.
    let silent = wanted.iter().filter(|name| !first.sticky && !met.contains(*name));
    let explained = !wrong.is_empty();
    wrong.extend(
        silent
            .filter(|_| !explained)
            .map(|name| format!("{}, {}: backend {name} never answered", title(service, first), way(group))),
    );
    let sources: BTreeSet<&str> = group.iter().flat_map(|(_, v)| &v.sources).map(String::as_str).collect();
    Some(Row {
        order: first.service,
        service: format!("{}/{}", service.namespace, service.name),
        port: format!("{}/{}", first.port, first.protocol),
        way: way(group),
        from: from(group),
        answers: match (wanted.is_empty(), answers.is_empty()) {
            (true, true) => "nobody, as it should be".to_owned(),
            (false, true) => "nobody".to_owned(),
            _ => list(answers.iter().map(|(name, count)| format!("{} ×{count}", short(service, name)))),
        },
        sources: list(sources.into_iter().map(str::to_owned)),
        wrong,
    })
}

/// One connection in words: which, from where.
fn describe(state: &State, question: &Question) -> String {
    let service =
        state.services.get(question.service).map_or(String::new(), |service| title(service, question));
    let client = match &question.client {
        Client::Pod { name, node, .. } => format!("pod {name} on {node}"),
        Client::Node(number) => format!("node-{number}"),
        Client::Outside(entry) => format!("outside, entering by node-{entry}"),
        Client::Router => "outside, through the router".to_owned(),
    };
    format!("{service} at {} from {client}", question.to)
}

fn title(service: &Service, question: &Question) -> String {
    format!("{}/{} {}/{}", service.namespace, service.name, question.port, question.protocol)
}

fn way(group: &[&(Question, Verdict)]) -> String {
    let addresses = || {
        let unique: BTreeSet<IpAddr> = group.iter().map(|(question, _)| question.to.ip()).collect();
        list(unique.into_iter().map(|ip| ip.to_string()))
    };
    let port = group.first().map_or(0, |(question, _)| question.to.port());
    match group.first().map(|(question, _)| question.way) {
        Some(Way::ClusterIp) => format!("ClusterIP {}", addresses()),
        Some(Way::Hairpin) => format!("hairpin {}", addresses()),
        Some(Way::NodePort) => format!("NodePort {port}"),
        Some(Way::NodePortWithoutBackend) => format!("NodePort {port}, node without backend"),
        Some(Way::ExternalIp) => format!("external {}", addresses()),
        Some(Way::LoadBalancerIp) => format!("load balancer {}", addresses()),
        None => String::new(),
    }
}

fn from(group: &[&(Question, Verdict)]) -> String {
    let clients: BTreeSet<&Client> = group.iter().map(|(question, _)| &question.client).collect();
    let number = |client: &&Client| match client {
        Client::Pod { node, .. } => node.clone(),
        Client::Node(number) | Client::Outside(number) => format!("node-{number}"),
        Client::Router => String::new(),
    };
    let nodes: BTreeSet<String> = clients.iter().map(number).collect();
    let nodes = list(nodes.into_iter().map(|node| node.trim_start_matches("node-").to_owned()));
    match group.first().map(|(question, _)| (&question.client, question.way)) {
        Some((_, Way::Hairpin)) => "the backend itself".to_owned(),
        Some((Client::Pod { .. }, _)) => format!("pods on nodes {nodes}"),
        Some((Client::Node(_), _)) => format!("nodes {nodes}"),
        Some((Client::Outside(_), _)) => format!("outside, by node {nodes}"),
        Some((Client::Router, _)) => "outside, through the router".to_owned(),
        None => String::new(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// `x8k2p@1`: the end of the pod's name, and its node. The beginning is the service's.
fn short(service: &Service, name: &str) -> String {
    match service.backends.get(name).filter(|node| !node.is_empty()) {
        Some(node) => {
            let end = name.rsplit('-').next().unwrap_or(name);
            format!("{end}@{}", node.trim_start_matches("node-"))
        }
        None => name.to_owned(),
    }
}

/// A healthCheckNodePort, asked on every node: what each said.
pub(super) fn health_row(
    order: usize,
    service: &Service,
    to: Option<SocketAddr>,
    said: &str,
    wrong: Vec<String>,
) -> Row {
    Row {
        order,
        service: format!("{}/{}", service.namespace, service.name),
        port: to.map_or(String::new(), |to| format!("{}/HTTP", to.port())),
        way: "healthCheckNodePort".to_owned(),
        from: "outside, to each node".to_owned(),
        answers: said.to_owned(),
        sources: String::new(),
        wrong,
    }
}

/// The table as text. A service's name and port stand in its first row only.
pub(super) fn render(rows: &[Row], width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["service", "port", "way in", "from", "answered by, how often", "source seen", ""]);
    let mut last = ("", "");
    for row in rows {
        let verdict = if row.wrong.is_empty() { "✔" } else { "✘" };
        let name = if row.service == last.0 { "" } else { &row.service };
        let port = if (row.service.as_str(), row.port.as_str()) == last { "" } else { &row.port };
        table.add_row([name, port, &row.way, &row.from, &row.answers, &row.sources, verdict]);
        last = (&row.service, &row.port);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How to read it.
pub(super) const LEGEND: &str = "\
“x8k2p@2 ×12”: the pod whose name ends in x8k2p, on node 2, answered 12 connections (IPv4 and IPv6 together).\n\
“source seen”: whom the pod took for the client. “the node”: the node passed the connection on to a pod of another\n\
node under its own address, so that the answer returns through it. “the service”: a pod that reached itself.";

//! Asks the questions: connections of one client one after the other, clients side by side, from the lab's own
//! sockets in the clients' namespaces (no process per connection).

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use lab::cluster::{Cluster, Error, eventually};
use lab::probe::{Failure, Outcome, Probe};

use super::progress::Line;
use super::question::{Client, Question, Way};
use super::state::{Host, Service, State};
use super::table::{Row, health_row};
use super::verdict::{Verdict, judge};

/// Clients that ask at a time: enough to keep the machine busy, few enough that an emulated one answers in time.
const SIDE_BY_SIDE: usize = 16;
/// How long it takes to believe that nobody answers.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);
/// For an answer that must come: machines that do much else are slow.
const LATEST: Duration = Duration::from_secs(15);

/// Every question with what came of it.
pub(super) async fn all(
    cluster: &Cluster,
    state: &State,
    questions: &[Question],
    line: &Line,
) -> Vec<(Question, Verdict)> {
    let asked = questions.iter().map(|question| async move {
        let outcomes = ask(cluster, question).await;
        (question.clone(), judge(state, question, &outcomes))
    });
    let mut asked = futures::stream::iter(asked).buffered(SIDE_BY_SIDE);
    let mut judged = Vec::new();
    while let Some(one) = asked.next().await {
        judged.push(one);
        line.say(format!("{} of {}", judged.len(), questions.len()));
    }
    judged
}

async fn ask(cluster: &Cluster, question: &Question) -> Vec<Outcome> {
    let probe = match probe(cluster, &question.client) {
        Ok(probe) => probe,
        Err(failure) => return vec![Err(failure)],
    };
    let probe = match question.way {
        Way::NodePortWithoutBackend => probe.patience(SILENCE),
        _ => probe.patience(LATEST),
    };
    let mut outcomes = Vec::new();
    for _ in 0..question.times {
        outcomes.push(probe.ask(question.protocol, question.to).await);
        // What does not answer twice will not; each time more would cost its patience.
        if matches!(outcomes.as_slice(), [.., Err(Failure::Timeout), Err(Failure::Timeout)]) {
            break;
        }
    }
    outcomes
}

fn probe(cluster: &Cluster, client: &Client) -> Result<Probe, Failure> {
    match client {
        Client::Pod { namespace, name, .. } => {
            let gone = || Failure::Other(format!("pod {namespace}/{name} is gone"));
            cluster.pod_probe(namespace, name).ok_or_else(gone)
        }
        Client::Node(number) => {
            cluster.node_probe(*number).map_err(|error| Failure::Other(error.to_string()))
        }
        Client::Outside(_) | Client::Router => Ok(cluster.outside_probe()),
    }
}

/// What each node says about its own backends where a load balancer in front would ask (Service
/// `spec.healthCheckNodePort`): 200 with a backend on the node, 503 without.
pub(super) async fn health_ports(cluster: &Cluster, state: &State) -> Vec<Row> {
    let mut rows = Vec::new();
    for (order, service) in state.services.iter().enumerate() {
        let Some(port) = service.health_port else { continue };
        let (mut said, mut wrong, mut last) = (Vec::new(), Vec::new(), None);
        for node in &state.nodes {
            let Some(to) = node.addresses.first().map(|ip| SocketAddr::new(*ip, port)) else { continue };
            last = Some(to);
            let expected = wanted(service, node);
            let probe = cluster.outside_probe().patience(LATEST);
            let told = || async {
                let answer = probe.get(to, "/healthz").await;
                let text =
                    answer.map_or_else(|failure| failure.to_string(), |(status, _)| status.to_string());
                if text == expected.to_string() { Ok(text) } else { Err(text) }
            };
            let told = eventually(LATEST, told).await.map_err(|error| match error {
                Error::NotYet { what, .. } => what,
                other => other.to_string(),
            });
            if let Err(text) = &told {
                let name = format!("{}/{}", service.namespace, service.name);
                wrong.push(format!("{name} healthCheckNodePort {to}: {text}, not {expected}"));
            }
            let (Ok(text) | Err(text)) = told;
            said.push(format!("{}: {text}", node.name));
        }
        rows.push(health_row(order, service, last, &said.join(", "), wrong));
    }
    rows
}

fn wanted(service: &Service, node: &Host) -> u16 {
    if service.backends.values().any(|on| *on == node.name) { 200 } else { 503 }
}

//! What the outcomes of a question mean: pure. A question holds if every connection was answered by a backend of the
//! service (or none, where none may), sticky clients met one backend, and the backends saw the right source.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lab::probe::{Answer, Failure, Outcome};

use super::question::{Client, Question, Source};
use super::state::{Host, State};

/// What came of one question.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Backends that answered, and how often.
    pub(super) answers: BTreeMap<String, usize>,
    /// Sources the backends saw, in words.
    pub(super) sources: BTreeSet<String>,
    /// What did not hold.
    pub(super) wrong: Vec<String>,
}

pub(super) fn judge(state: &State, question: &Question, outcomes: &[Outcome]) -> Verdict {
    let mut verdict = Verdict::default();
    let answered: Vec<&Answer> = outcomes.iter().flatten().collect();
    for answer in &answered {
        *verdict.answers.entry(answer.by.clone()).or_default() += 1;
        verdict.sources.insert(described(state, question, answer.source.ip()));
    }
    verdict.wrong.extend(unanswered(question, outcomes));
    let strangers: BTreeSet<&str> = answered
        .iter()
        .map(|answer| answer.by.as_str())
        .filter(|by| !question.backends.contains(*by))
        .collect();
    for stranger in strangers {
        verdict.wrong.push(match question.backends.is_empty() {
            true => {
                format!("{stranger} answered, though this node has no backend and traffic is to stay local")
            }
            false => format!("{stranger} answered, which is no backend of this service"),
        });
    }
    if question.sticky && verdict.answers.len() > 1 {
        verdict
            .wrong
            .push(format!("{} backends answered one client in spite of affinity", verdict.answers.len()));
    }
    let foreign: BTreeSet<IpAddr> = answered
        .iter()
        .map(|answer| answer.source.ip())
        .filter(|seen| !is_right(state, question, *seen))
        .collect();
    for seen in foreign {
        verdict.wrong.push(format!("the backend saw {seen}, not {}", expected(question.source)));
    }
    verdict
}

/// `4 of 6 connections failed: timeout`.
fn unanswered(question: &Question, outcomes: &[Outcome]) -> Option<String> {
    let failures: Vec<&Failure> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    if question.backends.is_empty() || failures.is_empty() {
        return None;
    }
    let kinds: BTreeSet<String> = failures.iter().map(ToString::to_string).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    Some(format!("{} of {} connections failed: {}", failures.len(), outcomes.len(), kinds.join(", ")))
}

fn expected(source: Source) -> &'static str {
    match source {
        Source::Client => "the client",
        Source::ClientOrNode => "the client or the node it entered by",
        Source::Service => "the address that was asked",
    }
}

fn is_right(state: &State, question: &Question, seen: IpAddr) -> bool {
    let client = addresses(state, &question.client).contains(&seen);
    match question.source {
        Source::Client => client,
        Source::ClientOrNode => {
            client || entries(state, question).iter().any(|node| node.addresses.contains(&seen))
        }
        Source::Service => seen == question.to.ip(),
    }
}

/// The source in a newcomer's words.
fn described(state: &State, question: &Question, seen: IpAddr) -> String {
    if addresses(state, &question.client).contains(&seen) {
        return "the client".to_owned();
    }
    // A NodePort's address is the node's: that is what it then is.
    if state.nodes.iter().any(|node| node.addresses.contains(&seen)) {
        return "the node".to_owned();
    }
    if seen == question.to.ip() { "the service".to_owned() } else { seen.to_string() }
}

fn addresses<'a>(state: &'a State, client: &Client) -> &'a [IpAddr] {
    match client {
        Client::Pod { namespace, name, .. } => {
            let found = state.pods.iter().find(|pod| pod.namespace == *namespace && pod.name == *name);
            found.map_or(&[], |pod| &pod.addresses)
        }
        Client::Node(number) => node(state, *number).map_or(&[], |node| &node.addresses),
        Client::Outside(_) | Client::Router => &state.outside.addresses,
    }
}

/// Nodes by which its connections may have come.
fn entries<'a>(state: &'a State, question: &Question) -> Vec<&'a Host> {
    match &question.client {
        Client::Outside(number) | Client::Node(number) => node(state, *number).into_iter().collect(),
        Client::Pod { node, .. } => state.nodes.iter().filter(|host| host.name == *node).collect(),
        Client::Router => state.nodes.iter().collect(),
    }
}

fn node(state: &State, number: usize) -> Option<&Host> {
    number.checked_sub(1).and_then(|at| state.nodes.get(at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lab::probe::Protocol;

    use super::super::question::Way;
    use super::*;

    fn question() -> Question {
        Question {
            service: 0,
            protocol: Protocol::Tcp,
            port: 80,
            way: Way::NodePort,
            client: Client::Outside(1),
            to: "172.31.0.11:30080".parse().expect("an address"),
            times: 2,
            backends: ["a".to_owned(), "b".to_owned()].into(),
            sticky: false,
            source: Source::ClientOrNode,
        }
    }

    fn state() -> State {
        let host = |name: &str, ip: &str| Host {
            name: name.into(),
            addresses: vec![ip.parse().expect("an address")],
        };
        State {
            nodes: vec![host("node-1", "172.31.0.11"), host("node-2", "172.31.0.12")],
            outside: host("outside", "172.31.0.201"),
            ..State::default()
        }
    }

    fn answer(by: &str, from: &str) -> Outcome {
        Ok(Answer {
            by: by.into(),
            source: format!("{from}:1").parse().expect("an address"),
            latency: Duration::ZERO,
        })
    }

    fn wrong(question: &Question, outcomes: &[Outcome]) -> Vec<String> {
        judge(&state(), question, outcomes).wrong
    }

    #[test]
    fn client_and_entry_node_are_right_sources_and_another_node_is_not() {
        let asked = question();
        let right = [answer("a", "172.31.0.201"), answer("b", "172.31.0.11")];
        let verdict = judge(&state(), &asked, &right);
        assert!(verdict.wrong.is_empty(), "{verdict:?}");
        assert_eq!(verdict.sources, ["the client".to_owned(), "the node".to_owned()].into());
        assert_eq!(wrong(&asked, &[answer("a", "172.31.0.12")]).len(), 1);
    }

    #[test]
    fn failures_strangers_and_broken_affinity_are_wrong() {
        let mut asked = question();
        let failed = wrong(&asked, &[Err(Failure::Timeout), answer("a", "172.31.0.201")]);
        assert_eq!(failed, ["1 of 2 connections failed: timeout"]);
        assert_eq!(wrong(&asked, &[answer("c", "172.31.0.201")]).len(), 1);
        asked.sticky = true;
        assert_eq!(wrong(&asked, &[answer("a", "172.31.0.201"), answer("b", "172.31.0.201")]).len(), 1);
    }

    #[test]
    fn where_nobody_may_answer_silence_is_right() {
        let mut asked = question();
        asked.backends.clear();
        assert!(wrong(&asked, &[Err(Failure::Timeout)]).is_empty());
        assert!(!wrong(&asked, &[answer("a", "172.31.0.201")]).is_empty());
    }
}

//! Whole plans against files: `testdata/<case>/objects.yaml` in, `testdata/<case>/rows.txt` out.
//!
//! * `flags.txt`, if there is one, holds the command line, one flag on each line.
//! * `then-*.yaml` are later states of the cluster, in the order of their names. Each is complete: what it does not
//!   name is gone. A first line `# at 35s` says how long after the start that is; without it no time passes.
//! * Cases named `base_…` show what the service proxy wants whatever Services there are; the others leave it out.
//!
//! `UPDATE_GOLDEN=1` writes `rows.txt` anew; a person reads the difference before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kube_router::kube::convert::Wire;
use kube_router::kube::interner::Interner;
use kube_router::kube::model::{Kind, WatchEvent};
use kube_router::kube::wire;
use kube_router::network_services::Subject;
use kube_router::options::Options;
use kube_router::owner::Owner;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::{files, text};

#[test]
fn rows_are_as_written() {
    // Those of the other controllers are read by their own tests.
    let cases = files::cases("", &["policies", "routes"], 20);
    files::are_as_written(&cases, run);
}

fn run(case: &Path) -> String {
    let flags = files::flags(case);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::new(Options::from_flags(&flags).unwrap());
    let about_the_node = files::is_about_the_node(case);
    let begin = Instant::now();
    let mut shown = String::new();
    for (number, state) in files::states(case).iter().enumerate() {
        let yaml = fs::read_to_string(state).unwrap();
        let after = at(&yaml);
        for event in events(&yaml) {
            cluster.apply(event);
        }
        cluster.plan(begin + after);
        if number > 0 {
            let _ = writeln!(shown, "\n# {} at {after:?}", state.file_name().unwrap().to_string_lossy());
        }
        shown.push_str(&show(&cluster, about_the_node));
    }
    shown
}

fn show(cluster: &Cluster, about_the_node: bool) -> String {
    let of_the_node =
        |owner: &Owner| matches!(owner, Owner::Services(Subject::ServiceProxy | Subject::NodeAddresses));
    let rows = cluster.rows(|owner| about_the_node || !of_the_node(owner));
    let mut text = text::rows(&rows);
    for (port, answer) in cluster.services.health_ports().wanted() {
        let _ = writeln!(text, "health port {port} {} endpoints {}", answer.service, answer.local_endpoints);
    }
    for objection in cluster.store.objections().iter().chain(cluster.objections.iter()) {
        let _ = writeln!(text, "objection {objection}");
    }
    text
}

fn at(yaml: &str) -> Duration {
    let line = yaml.lines().next().unwrap_or_default();
    let seconds = line.strip_prefix("# at ").and_then(|text| text.strip_suffix('s'));
    Duration::from_secs(seconds.map_or(0, |text| text.parse().unwrap()))
}

fn events(yaml: &str) -> Vec<WatchEvent> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    listed(&documents)
}

/// The documents as complete lists of every kind, through the very code that reads the API server's JSON.
pub(crate) fn listed(documents: &[Value]) -> Vec<WatchEvent> {
    let mut names = Interner::default();
    let mut events: Vec<WatchEvent> = Kind::ALL.into_iter().map(WatchEvent::ListBegins).collect();
    for document in documents.iter().filter(|document| !document.is_null()) {
        let json = document.to_string();
        let converted = match document.get("kind").and_then(Value::as_str) {
            Some("Service") => serde_json::from_str::<wire::Service>(&json).unwrap().convert(&mut names),
            Some("EndpointSlice") => {
                serde_json::from_str::<wire::EndpointSlice>(&json).unwrap().convert(&mut names)
            }
            Some("Node") => serde_json::from_str::<wire::Node>(&json).unwrap().convert(&mut names),
            Some("Pod") => serde_json::from_str::<wire::Pod>(&json).unwrap().convert(&mut names),
            other => panic!("a document of kind {other:?}"),
        };
        events.push(converted.into_event());
    }
    events.extend(Kind::ALL.into_iter().map(WatchEvent::ListEnds));
    events
}

//! Whole plans against files: `testdata/routes/<case>/objects.yaml` in, `testdata/routes/<case>/rows.txt` out.
//!
//! * `flags.txt`, if there is one, holds the command line, one flag on each line.
//! * `then-*.yaml` are later states of the cluster, in the order of their names. Each is complete.
//! * Besides objects of the API a file may hold documents of the kind `Path`: what a peer tells (`from`, `prefix`,
//!   `via`, and `systems` for the AS path).
//! * Cases named `base_…` show what is there whoever the peers are; the others leave it out.
//! * The comment at the head of a file says what to look for in the rows.
//!
//! `UPDATE_GOLDEN=1` writes `rows.txt` anew; a person reads the difference before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kube_router::network_routes::Subject;
use kube_router::options::Options;
use kube_router::owner::Owner;
use serde_json::Value;

use super::node::Node;
use super::speaker::PeerPath;
use crate::{files, golden, text};

#[test]
fn rows_are_as_written() {
    files::are_as_written(&cases(), run);
}

/// Whatever was before, a state of the cluster leads to the same rows and to the same words to peers.
#[test]
fn every_state_is_as_from_scratch() {
    for case in cases() {
        let mut walked = node(&case);
        for state in files::states(&case) {
            take(&mut walked, &state);
            let mut fresh = node(&case);
            take(&mut fresh, &state);
            assert_eq!(show(&walked, true), show(&fresh, true), "{}", state.display());
        }
    }
}

fn cases() -> Vec<PathBuf> {
    files::cases("routes", &[], 20)
}

fn run(case: &Path) -> String {
    let about_the_node = files::is_about_the_node(case);
    let mut node = node(case);
    let mut shown = String::new();
    for (number, state) in files::states(case).iter().enumerate() {
        take(&mut node, state);
        if number > 0 {
            let _ = writeln!(shown, "\n# {}", state.file_name().unwrap().to_string_lossy());
        }
        shown.push_str(&show(&node, about_the_node));
    }
    shown
}

/// A node with the flags of a case that knows nothing yet.
fn node(case: &Path) -> Node {
    let flags = files::flags(case);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::new(Options::from_flags(&flags).unwrap())
}

fn take(node: &mut Node, state: &Path) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(state).unwrap()).unwrap();
    let (paths, objects): (Vec<Value>, Vec<Value>) =
        documents.into_iter().partition(|document| document["kind"] == "Path");
    node.take(golden::listed(&objects), &paths.iter().map(told).collect::<Vec<_>>());
}

fn show(node: &Node, about_the_node: bool) -> String {
    let base = Owner::from(Subject::PodRouting);
    let mut text = text::rows(&node.rows_of(|owner| about_the_node || *owner != base));
    node.show_speaker(&mut text);
    for objection in node.store.objections().iter().chain(node.objections.iter()) {
        let _ = writeln!(text, "objection {objection}");
    }
    text
}

fn told(document: &Value) -> PeerPath {
    let word = |field: &str| document[field].as_str().unwrap_or_else(|| panic!("{field} of {document}"));
    let systems = document["systems"].as_array().into_iter().flatten();
    PeerPath {
        from: word("from").parse().unwrap(),
        prefix: word("prefix").parse().unwrap(),
        via: word("via").parse().unwrap(),
        systems: systems.map(|asn| u32::try_from(asn.as_u64().unwrap()).unwrap()).collect(),
    }
}

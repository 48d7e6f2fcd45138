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
use crate::{golden, text};

#[test]
fn rows_are_as_written() {
    let cases = cases();
    let mut failures = String::new();
    for case in &cases {
        let rows = run(case);
        let file = case.join("rows.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, rows).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != rows {
            let _ = writeln!(failures, "=== {} should hold\n{rows}", file.display());
        }
    }
    assert!(failures.is_empty(), "{failures}\nUPDATE_GOLDEN=1 writes them");
}

/// Whatever was before, a state of the cluster leads to the same rows and to the same words to peers.
#[test]
fn every_state_is_as_from_scratch() {
    for case in cases() {
        let mut walked = node(&case);
        for state in states(&case) {
            take(&mut walked, &state);
            let mut fresh = node(&case);
            take(&mut fresh, &state);
            assert_eq!(show(&walked, true), show(&fresh, true), "{}", state.display());
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/routes");
    let mut cases: Vec<PathBuf> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases in {}", cases.len(), root.display());
    cases
}

fn run(case: &Path) -> String {
    let about_the_node = case.file_name().unwrap().to_string_lossy().starts_with("base_");
    let mut node = node(case);
    let mut shown = String::new();
    for (number, state) in states(case).iter().enumerate() {
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
    let flags = fs::read_to_string(case.join("flags.txt")).unwrap_or_default();
    let flags: Vec<&str> = flags.lines().map(str::trim).filter(|flag| !flag.is_empty()).collect();
    Node::new(Options::from_flags(&flags).unwrap())
}

fn states(case: &Path) -> Vec<PathBuf> {
    let mut states: Vec<PathBuf> = fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    states.sort(); // objects.yaml, then-…
    states
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

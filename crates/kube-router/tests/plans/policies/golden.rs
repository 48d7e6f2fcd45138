//! Whole plans against files: `testdata/policies/<case>/objects.yaml` in, `testdata/policies/<case>/rows.txt` out.
//!
//! * `flags.txt`, if there is one, holds the command line, one flag on each line.
//! * `then-*.yaml` are later states of the cluster, in the order of their names. Each is complete.
//! * Cases named `maps_…` are about a packet filter with verdict maps (nftables).
//! * Cases named `base_…` or `maps_…` show what is there whatever policies there are; the others leave it out.
//!
//! `UPDATE_GOLDEN=1` writes `rows.txt` anew; a person reads the difference before it is committed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kube_router::network_policy::Subject;
use kube_router::owner::Owner;
use serde_json::Value;

use super::node::Node;
use super::world::{Change, World};
use crate::{files, text};

#[test]
fn rows_are_as_written() {
    let cases = files::cases("policies", &[], 10);
    files::are_as_written(&cases, run);
}

fn run(case: &Path) -> String {
    let flags = files::flags(case);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let about_the_node = files::is_about_the_node(case) || about_maps(case);
    let mut shown = String::new();
    let mut node: Option<(Node, World)> = None;
    for state in files::states(case) {
        let world = world(&fs::read_to_string(&state).unwrap());
        let now = match node.take() {
            None => Node::of(&world, &flags, about_maps(case)),
            Some((mut node, before)) => {
                changes(&before, &world).iter().for_each(|change| node.change(change));
                let planned = node.plan();
                let _ = writeln!(shown, "\n# {}", state.file_name().unwrap().to_string_lossy());
                for owner in planned {
                    let _ = writeln!(shown, "planned {owner}");
                }
                node
            }
        };
        shown.push_str(&show(&now, about_the_node));
        node = Some((now, world));
    }
    shown
}

/// Cases named `maps_…` are about a packet filter with verdict maps.
fn about_maps(case: &Path) -> bool {
    case.file_name().unwrap().to_string_lossy().starts_with("maps_")
}

fn show(node: &Node, about_the_node: bool) -> String {
    let frame = Owner::from(Subject::Frame);
    let mut text = text::rows(&node.rows_of(|owner| about_the_node || *owner != frame));
    for objection in node.store.objections().iter().chain(node.objections.iter()) {
        let _ = writeln!(text, "objection {objection}");
    }
    text
}

fn world(yaml: &str) -> World {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let mut world = World::default();
    for object in documents.into_iter().filter(|document| !document.is_null()) {
        let name = |field: &str| object["metadata"][field].as_str().unwrap_or("default").to_owned();
        let (namespace, name) = (name("namespace"), name("name"));
        match object["kind"].as_str() {
            Some("Namespace") => drop(world.namespaces.insert(name, object)),
            Some("Pod") => drop(world.pods.insert((namespace, name), object)),
            Some("NetworkPolicy") => drop(world.policies.insert((namespace, name), object)),
            other => panic!("a document of kind {other:?}"),
        }
    }
    world
}

fn changes(before: &World, after: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let names: BTreeSet<&String> = before.namespaces.keys().chain(after.namespaces.keys()).collect();
    for name in names {
        changes.push(Change::Namespace(name.clone(), after.namespaces.get(name).cloned()));
    }
    let ids: BTreeSet<&(String, String)> = before.pods.keys().chain(after.pods.keys()).collect();
    for id in ids {
        changes.push(Change::Pod(id.0.clone(), id.1.clone(), after.pods.get(id).cloned()));
    }
    let ids: BTreeSet<&(String, String)> = before.policies.keys().chain(after.policies.keys()).collect();
    for id in ids {
        changes.push(Change::Policy(id.0.clone(), id.1.clone(), after.policies.get(id).cloned()));
    }
    changes
}

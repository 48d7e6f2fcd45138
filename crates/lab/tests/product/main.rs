//! What is shipped, at work: manifests taken by an API server, images built twice alike, and the agent under containerd
//! and runc and under systemd, with the privileges that its manifest or unit gives it, and no others.
//!
//! What the files say is held to the options and the API's types in `crates/kube-router/tests/product`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod cgroups;
mod containers;
mod image;
mod manager;
mod manifests;
mod privileges;
mod scripts;
mod systemd;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The repository.
fn root() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// The agent that was built along with this test.
fn agent() -> PathBuf {
    let agent = lab::cluster::agent_program().unwrap();
    assert!(agent.is_file(), "{} is missing: `cargo build -p kube-router`", agent.display());
    agent
}

/// Name and documents of every file of `daemonset/`.
fn manifests() -> Vec<(PathBuf, Vec<Value>)> {
    let entries = std::fs::read_dir(root().join("daemonset")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    let read = |path: PathBuf| {
        let documents = serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path, documents)
    };
    files.into_iter().map(read).collect()
}

//! What is shipped around the binary, held to the binary: manifests, the image's scripts, the user guide, the examples of
//! BGP.
//!
//! [`manifests`] holds `daemonset/` to the Kubernetes API's types, to the options and to what the agent watches,
//! [`sysctls`] the preparation of a node to the agent's own settings, [`guide`] the lists of flags and annotations to
//! what the binary knows, [`bgp_examples`] the examples of `docs/bgp.md` to what it reads. Whether the parts work is told
//! in the lab, by containers and packets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail by panic

use std::path::PathBuf;

mod bgp_examples;
mod guide;
mod manifests;
mod sysctls;

/// The text of a file of the repository.
fn file(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

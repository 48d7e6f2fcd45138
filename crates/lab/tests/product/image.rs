//! The images: built by the script a user runs, from the agent of this build.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use lab::process::{command, run};
use serde_json::Value;

use crate::{agent, root};

/// Where the image of this build is kept for tests in the VM, which has no network to build it.
const KEPT: &str = "target/lab-image";

/// Without what only a debugger wants, as the released one is: as `make test-vm` does it, too.
fn build(output: &Path) {
    fs::create_dir_all(output).unwrap();
    let stripped = output.join("kube-router");
    run(command("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(agent())).unwrap();
    let script = root().join("scripts/image.sh");
    let mut build = command(script);
    build.arg(stripped).arg("amd64").arg(output);
    run(&mut build).unwrap_or_else(|error| {
        panic!("{error} (the VM has no network: build it before, as `make test-vm` does)")
    });
}

/// The images of this build as `image.tar` in a folder, for a runtime to import; built if they are older than the agent.
pub(crate) fn archive() -> tempfile::TempDir {
    let folder = root().join(KEPT);
    static BUILDING: Mutex<()> = Mutex::new(());
    let building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let age = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if age(&folder.join("oci/index.json")) < age(&agent()) {
        build(&folder);
    }
    drop(building);
    let archive = tempfile::tempdir().unwrap();
    let into = archive.path().join("image.tar");
    run(command("tar").arg("-C").arg(folder.join("oci")).arg("-cf").arg(into).arg(".")).unwrap();
    archive
}

fn index(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("oci/index.json")).unwrap()).unwrap()
}

#[test]
fn an_image_built_twice_is_the_same() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(first.path());
    build(second.path());
    let (index, again) = (index(first.path()), index(second.path()));
    assert_eq!(index, again);
    let tags: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(tags, [version.to_owned(), format!("{version}-nft")]);
    bill_of_materials(first.path(), version);
}

/// What is linked into the agent and what comes from Debian is listed, and nothing that only builds or tests it.
fn bill_of_materials(folder: &Path, version: &str) {
    let components = |tag: &str| -> Vec<String> {
        let text = fs::read(folder.join(format!("kube-router-{tag}.cdx.json"))).unwrap();
        let bill: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        let components = bill["components"].as_array().unwrap();
        components.iter().map(|part| part["purl"].as_str().unwrap().to_owned()).collect()
    };
    let (full, nft) = (components(version), components(&format!("{version}-nft")));
    let has = |list: &[String], start: &str| list.iter().any(|purl| purl.starts_with(start));
    for crate_name in ["kube-client", "tokio", "rustls", "netgauze-bgp-pkt"] {
        assert!(has(&nft, &format!("pkg:cargo/{crate_name}@")), "{crate_name}: {nft:?}");
    }
    assert!(!has(&nft, "pkg:cargo/proptest@") && !has(&nft, "pkg:cargo/lab@"), "{nft:?}");
    assert!(!has(&nft, "pkg:deb/"), "{nft:?}");
    for package in ["iptables", "kmod", "busybox-static", "libc6", "containernetworking-plugins"] {
        assert!(has(&full, &format!("pkg:deb/debian/{package}@")), "{package}: {full:?}");
    }
}

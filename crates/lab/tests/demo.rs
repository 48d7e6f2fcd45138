//! `make demo` as its user sees it, from the manifests in `examples/` to the last line.

use std::path::Path;
use std::process::Stdio;

#[test]
#[ignore = "vm: needs IPVS"]
fn the_demo_holds() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let demo = lab::process::command(env!("CARGO_BIN_EXE_lab"))
        .arg("demo")
        .current_dir(repository)
        .stdin(Stdio::null())
        .output();
    let demo = demo.expect("the demo starts");
    let told = [demo.stdout, demo.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(demo.status.success(), "{}\n{told}", demo.status);
    assert!(told.contains("Everything held"), "{told}");
}

//! `make demo` as its user sees it, from the manifests in `examples/` to the last line, and to a reason when something is
//! wrong.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

/// Runs the demo to its end; its status and all it printed.
#[allow(clippy::expect_used, reason = "a test fails by panicking, helpers too")]
fn demo(flags: &[&str]) -> (ExitStatus, String) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let demo = lab::process::command(env!("CARGO_BIN_EXE_lab"))
        .arg("demo")
        .args(flags)
        .current_dir(repository)
        .stdin(Stdio::null())
        .output();
    let demo = demo.expect("the demo starts");
    let told = [demo.stdout, demo.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (demo.status, told)
}

#[test]
#[ignore = "vm: needs IPVS"]
fn the_demo_holds() {
    let (status, told) = demo(&[]);
    assert!(status.success(), "{status}\n{told}");
    assert!(told.contains("Everything held"), "{told}");
}

/// A node without its agent: the demo ends with 1 and names the node, what it lacks and what became of its agent.
#[test]
#[ignore = "vm: needs IPVS"]
fn the_demo_says_what_does_not_hold() {
    let (status, told) = demo(&["--stop-agent", "2"]);
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("NOT everything held"), "{told}");
    assert!(!told.contains("Everything held"), "{told}");
    let begins =
        |line: &&str| line.starts_with("What did not hold:") || line.starts_with("The demo stopped:");
    let reasons = told.lines().skip_while(|line| !begins(line));
    let mut reasons = reasons.take_while(|line| !line.starts_with("The agent of "));
    assert!(reasons.any(|line| line.contains("node-2")), "the reason names the node: {told}");
    assert!(told.contains("The agent of node-2 was stopped; its log: "), "{told}");
}

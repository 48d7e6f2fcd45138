//! The demo itself: what a newcomer sees first must not be what breaks first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Output;

use lab::process;

fn demo(more: &[&str]) -> Output {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut command = process::command(env!("CARGO_BIN_EXE_lab"));
    command.arg("demo").arg("--examples").arg(examples).args(more);
    command.output().expect("the demo starts")
}

fn told(output: &Output) -> String {
    let [said, shown] = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    format!("{said}\n{shown}")
}

#[test]
#[ignore = "vm: needs IPVS"]
fn everything_holds() {
    let output = demo(&[]);
    let told = told(&output);
    assert!(output.status.success() && told.contains("Everything held"), "{told}");
}

/// A demo that cannot fail shows nothing.
#[test]
#[ignore = "vm: needs IPVS"]
fn an_agent_that_is_gone_is_noticed() {
    let output = demo(&["--stop-agent", "2"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("NOT everything held"), "{told}");
}

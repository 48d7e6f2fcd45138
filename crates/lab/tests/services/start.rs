//! A kernel without IPVS: the start says so, and what to do.

use std::process::Stdio;

use lab::node::Namespace;
use lab::process;

use crate::setup::agent_program;

/// Where the kernel has IPVS there is nothing to see: the other stories run there.
#[test]
fn without_ipvs_the_start_says_exactly_that() {
    if !lab::vm::native::missing().contains(&"IPVS") {
        eprintln!("this kernel has IPVS: it cannot show what happens without");
        return;
    }
    let namespace = Namespace::machine("no-ipvs").unwrap();
    let run = || {
        let mut agent = process::command(agent_program());
        agent
            .args(["--master=http://127.0.0.1:9", "--hostname-override=node-1", "--run-firewall=false"])
            .stdin(Stdio::null());
        agent.output()
    };
    let output = namespace.run(run).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains("IPVS") && last.contains("ip_vs"), "the last line names the module: {text}");
}

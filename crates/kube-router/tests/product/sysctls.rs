//! Sysctls: what the privileged container writes once, what the agent keeps, and the page that lists who writes what.

use std::collections::BTreeSet;

use kube_router::core::{enabled_controllers, needs};
use kube_router::options::Options;

use crate::file;

/// Written by the agent alone, when it runs: whether IPv6 is wanted is said by a flag.
const AGENT_ONLY: [&str; 1] = ["net/ipv6/conf/all/disable_ipv6"];

fn prepared() -> BTreeSet<String> {
    let script = file("packaging/image/prepare-node");
    let lines = script.lines().map(str::trim).filter_map(|line| line.strip_prefix("set_key net/"));
    lines.map(|line| format!("net/{}", line.split(' ').next().unwrap())).collect()
}

fn kept() -> BTreeSet<String> {
    let options =
        Options::from_flags(&["--run-router", "--run-firewall", "--run-service-proxy", "--enable-ipv6"])
            .unwrap();
    let settings = needs(&enabled_controllers(&options), &"node-1".into(), &options).settings;
    settings.iter().map(|key| key.to_string()).collect()
}

#[test]
fn a_node_is_prepared_with_what_the_agent_would_write() {
    let agent_only = AGENT_ONLY.map(str::to_owned).into();
    let fixed: BTreeSet<String> = kept().difference(&agent_only).cloned().collect();
    assert!(fixed.len() >= 10, "{fixed:?}");
    assert_eq!(prepared(), fixed);
}

#[test]
fn every_sysctl_is_listed_with_its_writer() {
    let page = file("docs/packaging.md");
    for key in prepared().union(&kept()) {
        let name = key.replace('/', ".");
        assert!(page.contains(&format!("| `{name}` |")), "docs/packaging.md does not list {name}");
    }
}

//! Connection tracking on a real kernel; `conntrack` is the judge.
mod common;

use common::{in_netns, run};

#[test]
fn a_namespace_of_its_own() {
    let links = in_netns(|| run(&["ip", "-br", "link"]));
    assert_eq!(links.lines().count(), 1, "only lo: {links}");
}

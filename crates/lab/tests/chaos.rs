//! The fault drills in their short form: nothing that is allowed is lost, nothing that is forbidden passes, and what others
//! take away comes back. Without the service proxy all of them, so that they are done on any kernel; with it, in the VM, those
//! that concern it. `make chaos` does everything as often as promised.

use std::time::Instant;

use lab::chaos::{Options, run};

/// Parts of the names of what the service proxy could lose connections by, or has to put back.
const OF_SERVICES: [&str; 8] = [
    "kill -9",
    "SIGTERM",
    "API server refuses",
    "API server takes connections",
    "service's address",
    "kube-dummy-if",
    "real server",
    "virtual server",
];

#[tokio::test(flavor = "multi_thread")]
async fn drills_lose_nothing() {
    hold(Options { services: false, ..Options::SHORT }, &|_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn drills_lose_nothing_through_a_service() {
    hold(Options::SHORT, &|name| OF_SERVICES.iter().any(|part| name.contains(part))).await;
}

#[allow(clippy::panic, reason = "a test fails by panicking, helpers too")]
async fn hold(options: Options, wanted: &dyn Fn(&str) -> bool) {
    let started = Instant::now();
    let progress = |step: &str| eprintln!("{:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let report = run(&options, wanted, &progress).await.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{report}");
    assert!(report.holds(), "{report}");
}

//! The fault drills in their short form: nothing that is allowed is lost, nothing that is forbidden passes, and what others
//! take away comes back. Without the service proxy on any kernel, with it where IPVS is; `make chaos` does everything as
//! often as promised.

use lab::chaos::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn drills_lose_nothing() {
    hold(Options { services: false, ..Options::SHORT }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn drills_lose_nothing_through_a_service() {
    hold(Options::SHORT).await;
}

#[allow(clippy::panic, reason = "a test fails by panicking, helpers too")]
async fn hold(options: Options) {
    let started = std::time::Instant::now();
    let progress = |step: &str| eprintln!("{:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let report = run(&options, "", &progress).await.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{report}");
    assert!(report.holds(), "{report}");
}

//! The fault drills in their short form: nothing that is allowed is lost, nothing that is forbidden passes, and what others
//! take away comes back. Without the service proxy, so that they are done on any kernel; `make chaos` has it, and does
//! everything as often as promised.

use lab::chaos::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn drills_lose_nothing() {
    let started = std::time::Instant::now();
    let progress = |step: &str| eprintln!("{:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let options = Options { services: false, ..Options::SHORT };
    let report = run(&options, "", &progress).await.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{report}");
    assert!(report.holds(), "{report}");
}

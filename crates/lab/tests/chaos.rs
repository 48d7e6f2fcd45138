//! The fault drills in their short form: nothing that is allowed is lost, nothing that is forbidden passes, and what others
//! take away comes back. `make chaos` is the long form.

use lab::chaos::{Options, run};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: `make chaos SHORT=1`; not all drills hold yet, see docs/reliability.md"]
async fn drills_lose_nothing() {
    let started = std::time::Instant::now();
    let progress = |step: &str| eprintln!("{:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let report = run(&Options::SHORT, &progress).await.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{report}");
    assert!(report.holds(), "{report}");
}

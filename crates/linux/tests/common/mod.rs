//! What kernel tests share: a network namespace of their own, and other people's tools as judges.
#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails

use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Runs `f` on a thread of its own in a new network namespace with `lo` up, and hands back what it returns; a panic
/// in `f` fails the caller with the same message. Threads and processes started by `f` are in the namespace too. The
/// kernel takes it down, with everything in it, when the last of them is gone.
///
/// `/proc/net` means the process's first thread; in `f`, read `/proc/thread-self/net`. `/proc/sys/net` is the
/// calling thread's.
pub(crate) fn in_netns<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("kernel tests run as root: a network namespace could not be made");
        run(&["ip", "link", "set", "lo", "up"]);
        f()
    };
    let name = thread::current().name().unwrap_or("netns").to_owned();
    thread::scope(|scope| {
        let worker = thread::Builder::new().name(name).spawn_scoped(scope, body).expect("a thread");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a tool and returns what it printed; anything but success fails the test with everything the tool said.
pub(crate) fn run(command: &[&str]) -> String {
    let (program, arguments) = command.split_first().expect("a program to run");
    #[allow(clippy::disallowed_methods)] // tests judge by tools that share no code with ours
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} could not be started: {error}"));
    assert!(
        output.status.success(),
        "{} failed ({}):\n{}{}",
        command.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a sysctl of the calling thread's network namespace, by its path below `/proc/sys`.
pub(crate) fn sysctl(path: &str, value: &str) {
    fs::write(format!("/proc/sys/{path}"), value).unwrap_or_else(|error| panic!("sysctl {path}: {error}"));
}

/// Waits until `condition` gives a value, looking every 10 ms; fails the test after a minute, naming what was awaited.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

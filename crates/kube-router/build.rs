//! Records which source is built: its version, its date, the compiler.
//!
//! The same commit gives the same binary, so the date is that of the commit (or `SOURCE_DATE_EPOCH`), not of the build.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // A commit, a checkout or a tag changes one of the first; an edit makes the source dirty.
    let branch = output("git", &["symbolic-ref", "-q", "HEAD"]);
    let refs = ["HEAD", "packed-refs", "refs/tags"].into_iter().map(str::to_owned).chain(branch);
    let git = refs.filter_map(|path| output("git", &["rev-parse", "--git-path", &path]));
    let source = ["src", "../linux/src", "../bgp/src"].into_iter().map(str::to_owned);
    for path in git.chain(source).filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    println!("cargo:rustc-env=KUBE_ROUTER_VERSION={}", version());
    println!("cargo:rustc-env=KUBE_ROUTER_BUILD_DATE={}", date(source_seconds()));
    println!("cargo:rustc-env=KUBE_ROUTER_RUSTC={}", rustc.unwrap_or_else(|| "rustc".to_owned()));
}

/// The tag with the distance to it; the package's version with the commit; the package's version.
fn version() -> String {
    output("git", &["describe", "--tags", "--dirty"]).unwrap_or_else(|| {
        let package = env!("CARGO_PKG_VERSION");
        match output("git", &["describe", "--always", "--dirty"]) {
            Some(commit) => format!("v{package}-g{commit}"),
            None => format!("v{package}"),
        }
    })
}

/// Seconds since 1970 of the source.
fn source_seconds() -> u64 {
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let commit = || output("git", &["show", "-s", "--format=%ct"]).and_then(|text| text.parse().ok());
    given.or_else(commit).unwrap_or(0)
}

/// `%Y-%m-%dT%H:%M:%S%z` in UTC. The days are counted in 400-year eras that begin on a 1st of March, so that the leap
/// day is the last of a year.
fn date(seconds: u64) -> String {
    let (day, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, day) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+0000")
}

/// The first line a program says, if it succeeds.
#[allow(
    clippy::disallowed_methods,
    reason = "a build has no linux::command, and git and rustc know what is built"
)]
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

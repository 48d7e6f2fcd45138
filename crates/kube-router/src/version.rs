//! Which build this is. The values come from `build.rs`.

/// `git describe` of the source, or the package's version where there is no repository.
pub const VERSION: &str = env!("KUBE_ROUTER_VERSION");
/// When the source was committed, or `SOURCE_DATE_EPOCH`: the same source has the same date.
pub const BUILD_DATE: &str = env!("KUBE_ROUTER_BUILD_DATE");
/// The compiler.
pub const RUSTC: &str = env!("KUBE_ROUTER_RUSTC");

/// The line of `--version`, which is also the first line of the log.
pub fn line(program: &str) -> String {
    format!("Running {program} version {VERSION}, built on {BUILD_DATE}, {RUSTC}")
}

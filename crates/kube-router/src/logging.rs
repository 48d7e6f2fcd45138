//! The log: structured lines on stderr, quiet at rest.
//!
//! Decided here: what klog's `-v` shows. Secrets are kept out by their type ([`crate::secret::Secret`]), and the HTTP
//! and TLS libraries never log below `info`, because their traces hold headers and keys.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Libraries whose traces could hold credentials.
const NEVER_TRACED: [&str; 4] = ["hyper", "hyper_util", "rustls", "tower_http"];
/// The crates of this workspace.
const OURS: [&str; 3] = ["kube_router", "linux", "bgp"];

/// What `-v` shows, as `(level of our crates, level of libraries)`:
///
/// | `-v` | ours | libraries | shows |
/// |---|---|---|---|
/// | 0 and below | info | warn | start, stop, what needs attention |
/// | 1, 2 | debug | warn | each change |
/// | 3 to 5 | trace | info | each step |
/// | 6 and more | trace | debug | the libraries' own view |
fn levels(verbosity: i32) -> (&'static str, &'static str) {
    match verbosity {
        ..=0 => ("info", "warn"),
        1..=2 => ("debug", "warn"),
        3..=5 => ("trace", "info"),
        6.. => ("trace", "debug"),
    }
}

fn directives(verbosity: i32) -> String {
    let (ours, libraries) = levels(verbosity);
    let mut directives = vec![libraries.to_owned()];
    directives.extend(OURS.iter().map(|target| format!("{target}={ours}")));
    if libraries == "debug" {
        directives.extend(NEVER_TRACED.iter().map(|target| format!("{target}=info")));
    }
    directives.join(",")
}

/// Starts the log of the process. A second call changes nothing.
pub fn start(verbosity: i32) {
    // An error means that a log exists already, which is what is wanted.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(verbosity)))
        .with_writer(std::io::stderr)
        // A closed stderr must not end the process, and there is nowhere else to complain.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_sets_levels() {
        assert_eq!(directives(0), "warn,kube_router=info,linux=info,bgp=info");
        assert_eq!(directives(-1), directives(0));
        assert_eq!(directives(2), "warn,kube_router=debug,linux=debug,bgp=debug");
        assert_eq!(directives(4), "info,kube_router=trace,linux=trace,bgp=trace");
        for target in NEVER_TRACED {
            assert!(directives(9).contains(&format!("{target}=info")), "{target}");
        }
    }

    #[test]
    fn directives_are_valid() {
        for verbosity in [i32::MIN, 0, 1, 3, 6, i32::MAX] {
            assert!(EnvFilter::try_new(directives(verbosity)).is_ok(), "{verbosity}");
        }
    }
}

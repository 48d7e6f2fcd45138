//! A line per step: a spinner while it runs, its duration when it is done.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Failure;

/// Prints the steps of a demo.
pub(super) struct Progress;

impl Progress {
    /// Runs `work` under a line that says `what`.
    pub(super) fn step<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let result = work();
        bar.finish_and_clear();
        let mark = if result.is_ok() { "✔" } else { "✘" };
        eprintln!("{mark} {what} ({:.1} s)", start.elapsed().as_secs_f32());
        result.map_err(|error| format!("{what}: {error}").into())
    }
}

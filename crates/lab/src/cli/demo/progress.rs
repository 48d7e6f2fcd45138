//! A line per step: at a terminal a spinner with what the step is at, then a mark and its duration; elsewhere plain
//! lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Failure;

/// Prints the steps of a demo.
pub(super) struct Progress {
    start: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs `work` under a line that says `what`; `work` can say what it is at, and says at the end what came of it.
    pub(super) fn step<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Line) -> Result<(T, String), Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let line = Line::new(what, self.terminal);
        let result = work(&line);
        line.0.finish_and_clear();
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok((value, outcome)) => {
                eprintln!("✔ {seconds:5.1} s  {what}{}{outcome}", if outcome.is_empty() { "" } else { ": " });
                Ok(value)
            }
            Err(error) => {
                eprintln!("✘ {seconds:5.1} s  {what}");
                Err(format!("{what}: {error}").into())
            }
        }
    }
}

/// The line of the step that runs.
pub(super) struct Line(ProgressBar);

impl Line {
    fn new(what: &str, terminal: bool) -> Self {
        if !terminal {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_prefix(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>5}    {prefix} {wide_msg:.dim}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(150));
        Self(bar)
    }

    /// What the step is at.
    pub(super) fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

/// Columns of the terminal, but never so few that the table is all wrapped words; 160 where there is none.
pub(super) fn columns() -> u16 {
    let size = lab::vm::has_terminal().then(lab::vm::terminal_size).flatten();
    size.map_or(160, |(_, columns)| columns.max(100))
}

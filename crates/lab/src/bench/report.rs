//! What was found, as a table for a person and as Markdown for the documentation.

use std::fmt;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The outcome, with its unit.
    pub measured: String,
    /// What it is held to; empty for one that is only told.
    pub limit: String,
    /// Whether it holds.
    pub holds: Option<bool>,
}

impl Line {
    /// A measurement that is held to something.
    pub fn gate(
        what: impl Into<String>,
        measured: impl Into<String>,
        limit: impl Into<String>,
        holds: bool,
    ) -> Line {
        Line { what: what.into(), measured: measured.into(), limit: limit.into(), holds: Some(holds) }
    }

    /// A measurement for information.
    pub fn plain(what: impl Into<String>, measured: impl Into<String>) -> Line {
        Line { what: what.into(), measured: measured.into(), limit: String::new(), holds: None }
    }

    fn verdict(&self) -> &'static str {
        match self.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        }
    }
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where it ran.
    pub machine: String,
    /// What was found.
    pub lines: Vec<Line>,
}

impl Report {
    pub(super) fn new(lines: Vec<Line>, quick: bool) -> Report {
        let quick = if quick { "; small sizes, not to judge by" } else { "" };
        Report { machine: format!("{}{quick}", machine()), lines }
    }

    /// Whether everything that is held to something holds.
    pub fn holds(&self) -> bool {
        self.lines.iter().all(|line| line.holds != Some(false))
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("Machine: {}.\n\n", self.machine);
        text += "| measured | result | held to | holds |\n|---|---|---|---|\n";
        for line in &self.lines {
            let Line { what, measured, limit, .. } = line;
            text += &format!("| {what} | {measured} | {limit} | {} |\n", line.verdict());
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["measured", "result", "held to", "holds"]);
        for line in &self.lines {
            table.add_row([&*line.what, &line.measured, &line.limit, line.verdict()]);
        }
        writeln!(f, "{}", self.machine)?;
        write!(f, "{table}")
    }
}

/// Kernel, processors and memory, as the kernel tells them.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let memory = memory.map_or_else(|| "?".to_owned(), |kib| (kib / 1024).to_string());
    format!("Linux {kernel}, {processors} processors ({model}), {memory} MiB")
}

/// Seconds with two places.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// Milliseconds with one place.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// MiB with one place, from KiB.
pub(super) fn mebibytes(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// The time that `percent` of `sorted` did not exceed; zero of nothing.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent.min(100)).div_ceil(100)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=101).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(51));
        assert_eq!(percentile(&times, 99), Duration::from_millis(100));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn one_line_that_does_not_hold_is_enough() {
        let lines = vec![Line::plain("a", "1"), Line::gate("b", "2", "<= 1", false)];
        let report = Report { machine: "m".to_owned(), lines };
        assert!(!report.holds());
        assert!(
            report.markdown().ends_with("| a | 1 |  |  |\n| b | 2 | <= 1 | NO |\n"),
            "{}",
            report.markdown()
        );
    }
}

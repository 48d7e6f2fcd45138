//! What was done and what was lost, as a table for a person and as Markdown for the documentation.

use std::fmt;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was done.
    pub what: String,
    /// How often.
    pub times: u32,
    /// Connections made meanwhile.
    pub asked: usize,
    /// Allowed ones that failed.
    pub lost: usize,
    /// Forbidden ones that were answered.
    pub leaked: usize,
    /// For something that was taken away: how long until it was back. Connections are then not judged.
    pub back: Option<Duration>,
    /// Why it could not be done, or what did not become as it was.
    pub said: Option<String>,
}

impl Outcome {
    /// Whether it is as promised.
    pub const fn holds(&self) -> bool {
        self.said.is_none() && (self.back.is_some() || (self.lost == 0 && self.leaked == 0))
    }

    fn cells(&self) -> [String; 7] {
        let back = self.back.map_or_else(String::new, |time| format!("{:.1} s", time.as_secs_f32()));
        let verdict = match (&self.said, self.holds()) {
            (Some(said), _) => format!("NO: {said}"),
            (None, true) => "yes".to_owned(),
            (None, false) => "NO".to_owned(),
        };
        let [times, asked, lost, leaked] =
            [self.times as usize, self.asked, self.lost, self.leaked].map(|number| number.to_string());
        [self.what.clone(), times, asked, lost, leaked, back, verdict]
    }
}

const HEAD: [&str; 7] = [
    "what was done on one node",
    "times",
    "connections",
    "allowed, lost",
    "forbidden, passed",
    "back after",
    "holds",
];

/// All of them.
#[derive(Debug, Clone)]
pub struct Report {
    /// Connections a second that went on all the time.
    pub rate: u32,
    /// In order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether all hold.
    pub fn holds(&self) -> bool {
        self.outcomes.iter().all(Outcome::holds)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let row = |cells: [String; 7]| format!("| {} |\n", cells.join(" | "));
        let head = format!("| {} |\n|---|---|---|---|---|---|---|\n", HEAD.join(" | "));
        let rows: String = self.outcomes.iter().map(|outcome| row(outcome.cells())).collect();
        format!("{} connections a second.\n\n{head}{rows}", self.rate)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(HEAD);
        for outcome in &self.outcomes {
            table.add_row(outcome.cells());
        }
        write!(f, "{} connections a second\n{table}", self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let what = "a thing".to_owned();
        Outcome { what, times: 1, asked: 9, lost: 0, leaked: 0, back: None, said: None }
    }

    #[test]
    fn one_connection_is_enough() {
        assert!(outcome().holds());
        assert!(!Outcome { lost: 1, ..outcome() }.holds());
        assert!(!Outcome { leaked: 1, ..outcome() }.holds());
        assert!(Outcome { leaked: 1, back: Some(Duration::ZERO), ..outcome() }.holds());
        assert!(!Outcome { said: Some("no".to_owned()), back: Some(Duration::ZERO), ..outcome() }.holds());
    }
}

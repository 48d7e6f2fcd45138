//! Checks as a person reads them: the worst last, where it is seen.

use std::fmt::Write as _;

use super::{Check, Level};
use crate::terminal::Paint;

/// The whole text. O(checks).
pub fn of(checks: &[Check], paint: Paint) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Check> = checks.iter().collect();
    sorted.sort_by_key(|check| check.level);
    for check in sorted {
        let word = match check.level {
            Level::Fine => paint.good("ok     "),
            Level::Unknown => paint.doubtful("unknown"),
            Level::Warning => paint.doubtful("warning"),
            Level::Problem => paint.bad("PROBLEM"),
        };
        let _ = writeln!(text, "{word}  {}: {}", check.about, check.found);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "         fix: {fix}");
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let summary = match (count(Level::Problem), count(Level::Warning)) {
        (0, 0) => paint.good("no problems found"),
        (0, warnings) => paint.doubtful(&format!("no problems, {warnings} warnings")),
        (problems, warnings) => paint.bad(&format!("{problems} problems, {warnings} warnings")),
    };
    let _ = writeln!(text, "\n{summary}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_last_with_their_fix() {
        let checks = [Check::problem("clock", "is wrong", "set it"), Check::fine("node", "n1")];
        let text = of(&checks, Paint::PLAIN);
        let expected =
            "ok       node: n1\nPROBLEM  clock: is wrong\n         fix: set it\n\n1 problems, 0 warnings\n";
        assert_eq!(text, expected);
    }
}

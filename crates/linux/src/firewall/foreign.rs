//! Our rules in chains that are not ours: where they stand, and what moves them.
//!
//! Pure: from the rules of a chain, in order, to positions and commands. "First" means before every rule but others
//! of ours that are first too. "Last" and "anywhere" hold wherever the rule stands, because others may append behind
//! it at any time and moving it each time would be a fight.

use crate::iptables::restore::Line;
use crate::row::Position;

/// Where rule `index` stands in a chain, given which of its rules may stand before a first one, and where it was
/// asked to be.
pub(super) fn position(leading: &[bool], index: usize, asked: Option<Position>) -> Position {
    let first = leading.iter().take(index).all(|leading| *leading);
    match asked {
        Some(Position::First) | None if first => Position::First,
        Some(Position::Last) => Position::Last,
        Some(Position::Anywhere) => Position::Anywhere,
        _ if index + 1 == leading.len() => Position::Last,
        _ => Position::Anywhere,
    }
}

/// Commands that bring a rule to where it is asked to be, or remove it (`None`).
///
/// `texts` and `leading` describe the chain, `found` which of its rules are this one, `text` is how it is written.
/// Surplus copies go. Within one transaction the order of removal and insertion is invisible to packets.
pub(super) fn place(
    chain: &str,
    texts: &[&str],
    leading: &[bool],
    found: &[usize],
    text: &str,
    asked: Option<Position>,
) -> Vec<Line> {
    if let ([one], Some(asked)) = (found, asked)
        && position(leading, *one, Some(asked)) == asked
    {
        return Vec::new();
    }
    let there = found.iter().filter_map(|index| texts.get(*index));
    let mut lines: Vec<Line> = there.map(|text| delete(chain, text)).collect();
    match asked {
        Some(Position::First) => lines.push(Line::new(format!("-I {chain} 1 {text}"))),
        Some(Position::Last | Position::Anywhere) => lines.push(Line::new(format!("-A {chain} {text}"))),
        None => {}
    }
    lines
}

/// `iptables-save` does not print `--ipvs` beside other conditions of that match, but compares it when deleting; so
/// both forms are tried.
fn delete(chain: &str, text: &str) -> Line {
    let otherwise = (text.contains("-m ipvs --v"))
        .then(|| format!("-D {chain} {}", text.replacen("-m ipvs --v", "-m ipvs --ipvs --v", 1)));
    Line { text: format!("-D {chain} {text}"), otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_is_before_all_but_other_firsts() {
        let leading = [true, true, false, true, false];
        assert_eq!(position(&leading, 1, Some(Position::First)), Position::First);
        assert_eq!(position(&leading, 3, Some(Position::First)), Position::Anywhere);
        assert_eq!(position(&leading, 3, Some(Position::Last)), Position::Last);
        assert_eq!(position(&leading, 3, None), Position::Anywhere);
        assert_eq!(position(&[false, true], 1, None), Position::Last);
        assert_eq!(position(&[true], 0, None), Position::First);
    }

    #[test]
    fn a_displaced_rule_is_moved_and_copies_go() {
        let texts = ["-j OTHER", "-j OURS", "-j OURS"];
        let leading = [false, true, true];
        let lines = place("INPUT", &texts, &leading, &[1, 2], "-j OURS", Some(Position::First));
        let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(lines, ["-D INPUT -j OURS", "-D INPUT -j OURS", "-I INPUT 1 -j OURS"]);
        assert!(place("INPUT", &texts, &leading, &[1], "-j OURS", Some(Position::Last)).is_empty());
    }

    #[test]
    fn both_forms_of_an_ipvs_rule_are_deleted() {
        let line = delete("POSTROUTING", "-m ipvs --vdir ORIGINAL -j X");
        assert_eq!(line.otherwise.as_deref(), Some("-D POSTROUTING -m ipvs --ipvs --vdir ORIGINAL -j X"));
        assert_eq!(delete("POSTROUTING", "-j X").otherwise, None);
    }
}

//! Our rules in chains that are not ours: where they stand, and what moves them.
//!
//! Pure: from the rules of a chain, in order, to positions and commands. "First" means before every rule but others
//! of ours that are first too, those of lower rank before it. "Last" and "anywhere" hold wherever the rule stands,
//! because others may append behind it at any time and moving it each time would be a fight.

use crate::iptables::restore::Line;
use crate::row::Position;

/// A rule in a foreign chain, as far as its neighbours are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct There<'a> {
    /// As the tool printed it, by which it is deleted.
    pub(super) printed: &'a str,
    /// As it is written, which may say more than is printed.
    pub(super) written: String,
    /// Its rank, if it is ours and belongs at the head.
    pub(super) rank: Option<u8>,
}

/// Where rule `index` stands, given the ranks of all rules of the chain and where it belongs.
pub(super) fn position(ranks: &[Option<u8>], index: usize, belongs: Position) -> Position {
    let may_lead = |other: &Option<u8>, rank: u8| other.is_some_and(|other| other <= rank);
    match belongs {
        Position::First(rank) if !ranks.iter().take(index).all(|other| may_lead(other, rank)) => {
            if index + 1 == ranks.len() { Position::Last } else { Position::Anywhere }
        }
        belongs => belongs,
    }
}

/// Commands that bring a rule to where it is asked to be, or remove it (`None`).
///
/// `there` describes the chain, `found` which of its rules are this one, `text` is how it is written. Surplus copies
/// go. A rule goes to the head by being inserted there, and after it those that belong before it, again: line numbers
/// would be wrong as soon as another edit of the transaction is refused. Of several such edits the one with the
/// highest rank must come first. Within one transaction removals and insertions are invisible to packets.
pub(super) fn place(
    chain: &str,
    there: &[There<'_>],
    found: &[usize],
    text: &str,
    asked: Option<Position>,
) -> Vec<Line> {
    let ranks: Vec<Option<u8>> = there.iter().map(|rule| rule.rank).collect();
    if let ([one], Some(asked)) = (found, asked)
        && position(&ranks, *one, asked) == asked
    {
        return Vec::new();
    }
    let copies = found.iter().filter_map(|index| there.get(*index));
    let mut lines: Vec<Line> = copies.map(|rule| delete(chain, rule.printed)).collect();
    match asked {
        Some(Position::First(rank)) => {
            lines.push(insert(chain, text));
            let head = there.iter().enumerate().take_while(|(_, rule)| rule.rank.is_some());
            let before = head.filter(|(at, rule)| rule.rank < Some(rank) && !found.contains(at));
            let before: Vec<&There<'_>> = before.map(|(_, rule)| rule).collect();
            for rule in before.into_iter().rev() {
                lines.push(delete(chain, rule.printed));
                lines.push(insert(chain, &rule.written));
            }
        }
        Some(Position::Last | Position::Anywhere) => lines.push(Line::new(format!("-A {chain} {text}"))),
        None => {}
    }
    lines
}

/// The order in which edits of one chain are written: the highest rank first, because each goes to the head; removals
/// last, because what they remove may have been moved before.
pub(super) fn turn(asked: Option<Position>) -> u16 {
    match asked {
        Some(Position::First(rank)) => u16::from(u8::MAX - rank),
        Some(Position::Last | Position::Anywhere) => u16::from(u8::MAX) + 1,
        None => u16::from(u8::MAX) + 2,
    }
}

fn insert(chain: &str, text: &str) -> Line {
    Line::new(format!("-I {chain} 1 {text}"))
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

    fn there<'a>(rules: &[(&'a str, Option<u8>)]) -> Vec<There<'a>> {
        let rule =
            |(printed, rank): &(&'a str, _)| There { printed, written: (*printed).to_owned(), rank: *rank };
        rules.iter().map(rule).collect()
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn first_is_before_all_but_firsts_of_lower_or_equal_rank() {
        let ranks = [Some(0), Some(2), Some(1), None, Some(2)];
        let at = |index: usize| position(&ranks, index, Position::First(ranks[index].unwrap()));
        assert_eq!((at(0), at(1)), (Position::First(0), Position::First(2)));
        assert_eq!(at(2), Position::Anywhere, "behind a higher rank");
        assert_eq!(at(4), Position::Last, "behind a rule of others");
        assert_eq!(position(&[Some(1), Some(1)], 1, Position::First(1)), Position::First(1));
        assert_eq!(position(&ranks, 3, Position::Last), Position::Last);
        assert_eq!(position(&ranks, 3, Position::Anywhere), Position::Anywhere);
    }

    #[test]
    fn a_displaced_rule_is_moved_and_copies_go() {
        let chain = there(&[("-j OTHER", None), ("-j OURS", Some(0)), ("-j OURS", Some(0))]);
        let lines = place("INPUT", &chain, &[1, 2], "-j OURS", Some(Position::First(0)));
        assert_eq!(texts(&lines), ["-D INPUT -j OURS", "-D INPUT -j OURS", "-I INPUT 1 -j OURS"]);
        assert!(place("INPUT", &chain, &[1], "-j OURS", Some(Position::Last)).is_empty());
    }

    #[test]
    fn what_belongs_before_a_rule_is_before_it_again() {
        let chain = there(&[
            ("-j A", Some(0)),
            ("-j B", Some(1)),
            ("-j D", Some(3)),
            ("-j X", None),
            ("-j A2", Some(0)),
        ]);
        let lines = place("INPUT", &chain, &[], "-j C", Some(Position::First(2)));
        let expected =
            ["-I INPUT 1 -j C", "-D INPUT -j B", "-I INPUT 1 -j B", "-D INPUT -j A", "-I INPUT 1 -j A"];
        assert_eq!(texts(&lines), expected);
        let asked = [None, Some(Position::First(0)), Some(Position::Anywhere), Some(Position::First(7))];
        let mut turns = asked;
        turns.sort_by_key(|asked| turn(*asked));
        assert_eq!(turns, [asked[3], asked[1], asked[2], asked[0]]);
    }

    #[test]
    fn both_forms_of_an_ipvs_rule_are_deleted() {
        let line = delete("POSTROUTING", "-m ipvs --vdir ORIGINAL -j X");
        assert_eq!(line.otherwise.as_deref(), Some("-D POSTROUTING -m ipvs --ipvs --vdir ORIGINAL -j X"));
        assert_eq!(delete("POSTROUTING", "-j X").otherwise, None);
    }
}

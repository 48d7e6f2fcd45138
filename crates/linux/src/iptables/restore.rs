//! One `iptables-restore --noflush` transaction, and what to do when it is refused.
//!
//! Decided here: the order of lines, which edit a refused line belongs to, and how the others get through without
//! it. A refused edit leaves its chain as it was, since nothing of a refused transaction is applied. Not here: how
//! the program is run; the caller hands in a function, and a test a fake one.

use std::collections::{BTreeSet, HashMap};

use crate::lane::Refusal;
use crate::row::{FilterTable, Name};

/// The part of a transaction that belongs to one row: refused or applied as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Chain declared before everything else: created if missing, emptied if not.
    pub declare: Option<Name>,
    /// Chains the lines jump to.
    pub refers: Vec<Name>,
    /// `-A`, `-I` and `-D` commands.
    pub lines: Vec<Line>,
    /// Whether the declared chain is deleted at the end.
    pub remove: bool,
}

/// A command, and how else to say it if it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without newline.
    pub text: String,
    /// Tried in its place when the line is refused.
    pub otherwise: Option<String>,
}

impl Line {
    /// A command with one way to say it.
    pub fn new(text: String) -> Line {
        Line { text, otherwise: None }
    }
}

/// Why a transaction did not go through. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another program holds the xtables lock.
    Locked(String),
    /// The program or the kernel refused the input.
    Refused {
        /// Line numbers named, from 1.
        lines: BTreeSet<usize>,
        /// What was printed.
        said: String,
    },
    /// The program could not be run; no edit is to blame.
    Broken(String),
}

impl Failure {
    /// Makes sense of what the program printed. Legacy says `line 4 failed`, both say `Error occurred at line: 4`,
    /// and nft says `line 4: RULE_APPEND failed …`. Exit status 4 means a held lock in legacy and any kernel refusal
    /// in nft, so the words decide.
    pub fn from_output(stderr: &str) -> Failure {
        let said = stderr
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("Try `") && !line.starts_with("# Warning"))
            .collect::<Vec<_>>()
            .join("; ");
        if stderr.contains("xtables lock") {
            return Failure::Locked(said);
        }
        let lines = stderr.match_indices("line").filter_map(|(at, found)| {
            let rest = stderr.get(at + found.len()..)?.trim_start_matches(':').strip_prefix(' ')?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits)?.parse().ok()
        });
        Failure::Refused { lines: lines.collect(), said }
    }
}

/// Applies edits to one table; one outcome for each, in order.
///
/// Every round either applies all that is left, or takes out the edits of the lines named. If no line is named the
/// edits are halved, chains before those that jump to them, so that an edit is never refused for want of another
/// that was merely not tried yet. At most O(refused · log edits) transactions.
pub fn commit(
    table: FilterTable,
    edits: Vec<Edit>,
    run: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Vec<Result<(), Refusal>> {
    let mut outcomes: Vec<Result<(), Refusal>> = edits.iter().map(|_| Ok(())).collect();
    let order = targets_first(&edits);
    let mut edits: Vec<Option<Edit>> = edits.into_iter().map(Some).collect();
    let take = |index: usize| Some((index, edits.get_mut(index)?.take()?));
    let ordered: Vec<(usize, Edit)> = order.into_iter().filter_map(take).collect();
    attempt(table, ordered, &mut outcomes, run);
    outcomes
}

fn attempt(
    table: FilterTable,
    mut edits: Vec<(usize, Edit)>,
    outcomes: &mut [Result<(), Refusal>],
    run: &mut dyn FnMut(&str) -> Result<(), Failure>,
) {
    while !edits.is_empty() {
        let input = assemble(table, &edits);
        let (lines, said) = match run(&input.text) {
            Ok(()) => return,
            Err(Failure::Refused { lines, said }) => (lines, said),
            Err(Failure::Locked(said)) => {
                let reason = format!("another program holds the xtables lock: {said}");
                return refuse_all(&edits, outcomes, &reason);
            }
            Err(Failure::Broken(said)) => return refuse_all(&edits, outcomes, &said),
        };
        let blamed: Vec<(usize, Option<usize>)> = lines
            .iter()
            .filter_map(|line| input.owners.get(line.checked_sub(1)?).copied().flatten())
            .collect();
        if blamed.is_empty() {
            if let [(index, _)] = edits.as_slice() {
                refuse(outcomes, *index, said);
                return;
            }
            let second = edits.split_off(edits.len() / 2);
            attempt(table, edits, outcomes, run);
            edits = second;
            continue;
        }
        let mut out = BTreeSet::new();
        for (place, line) in blamed {
            let Some((index, edit)) = edits.get_mut(place) else { continue };
            let line = line.and_then(|line| edit.lines.get_mut(line));
            let said_by = line.as_ref().map(|line| format!("{said} (in: {})", line.text));
            match line.and_then(|line| Some((line.otherwise.take()?, line))) {
                Some((otherwise, line)) => line.text = otherwise,
                None => {
                    refuse(outcomes, *index, said_by.unwrap_or_else(|| said.clone()));
                    out.insert(*index);
                }
            }
        }
        edits.retain(|(index, _)| !out.contains(index));
    }
}

fn refuse(outcomes: &mut [Result<(), Refusal>], index: usize, reason: String) {
    if let Some(outcome) = outcomes.get_mut(index) {
        *outcome = Err(Refusal::new(reason));
    }
}

fn refuse_all(edits: &[(usize, Edit)], outcomes: &mut [Result<(), Refusal>], reason: &str) {
    for (index, _) in edits {
        refuse(outcomes, *index, reason.to_owned());
    }
}

/// The input, and whose each of its lines is: place of the edit, and which of its lines.
struct Input {
    text: String,
    owners: Vec<Option<(usize, Option<usize>)>>,
}

impl Input {
    fn line(&mut self, text: &str, owner: Option<(usize, Option<usize>)>) {
        self.text.push_str(text);
        self.text.push('\n');
        self.owners.push(owner);
    }
}

fn assemble(table: FilterTable, edits: &[(usize, Edit)]) -> Input {
    let mut input = Input { text: String::new(), owners: Vec::new() };
    input.line(&format!("*{}", table.as_str()), None);
    for (place, (_, edit)) in edits.iter().enumerate() {
        if let Some(chain) = &edit.declare {
            input.line(&format!(":{chain} - [0:0]"), Some((place, None)));
        }
    }
    for (place, (_, edit)) in edits.iter().enumerate() {
        for (number, line) in edit.lines.iter().enumerate() {
            input.line(&line.text, Some((place, Some(number))));
        }
    }
    for (place, (_, edit)) in edits.iter().enumerate().filter(|(_, (_, edit))| edit.remove) {
        if let Some(chain) = &edit.declare {
            input.line(&format!("-X {chain}"), Some((place, None)));
        }
    }
    input.line("COMMIT", None);
    input
}

/// Edits ordered so that a chain comes before every edit that jumps to it; removals come last. O(edits + jumps).
fn targets_first(edits: &[Edit]) -> Vec<usize> {
    let declared: HashMap<&Name, usize> = edits
        .iter()
        .enumerate()
        .filter(|(_, edit)| !edit.remove)
        .filter_map(|(index, edit)| Some((edit.declare.as_ref()?, index)))
        .collect();
    let mut order = Vec::with_capacity(edits.len());
    let mut seen = vec![false; edits.len()];
    let (last, first): (Vec<usize>, Vec<usize>) =
        (0..edits.len()).partition(|index| edits.get(*index).is_some_and(|edit| edit.remove));
    for start in first {
        // Depth first with an explicit stack: an edit is put down once all it refers to is. A loop of jumps, which
        // the kernel refuses anyway, is cut where it closes.
        let mut stack = vec![(start, false)];
        while let Some((index, expanded)) = stack.pop() {
            if expanded {
                order.push(index);
                continue;
            }
            if std::mem::replace(seen.get_mut(index).unwrap_or(&mut true), true) {
                continue;
            }
            stack.push((index, true));
            let refers = edits.get(index).map(|edit| edit.refers.as_slice()).unwrap_or_default();
            stack
                .extend(refers.iter().filter_map(|chain| declared.get(chain)).map(|target| (*target, false)));
        }
    }
    order.extend(last);
    order
}

#[cfg(test)]
mod tests;

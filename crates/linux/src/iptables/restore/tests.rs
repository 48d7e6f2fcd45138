//! Against a fake program that refuses what it is told to, with and without naming the line.
use super::*;

fn chain(name: &str, rules: &[&str], refers: &[&str]) -> Edit {
    Edit {
        declare: Some(name.into()),
        refers: refers.iter().map(|name| Name::from(*name)).collect(),
        lines: rules.iter().map(|rule| Line::new(format!("-A {name} {rule}"))).collect(),
        remove: false,
    }
}

/// Refuses inputs with a line holding "bad", and jumps to chains neither declared nor committed before.
fn kernel(names_lines: bool) -> impl FnMut(&str) -> Result<(), Failure> {
    let mut chains: BTreeSet<String> = BTreeSet::new();
    move |input| {
        let declared = |line: &str| line.strip_prefix(':').map(|rest| rest.replace(" - [0:0]", ""));
        let mut known = chains.clone();
        known.extend(input.lines().filter_map(declared));
        let wrong = |line: &str| {
            line.contains("bad") || line.split_once("-j ").is_some_and(|(_, to)| !known.contains(to))
        };
        let lines: BTreeSet<usize> =
            input.lines().enumerate().filter(|(_, line)| wrong(line)).map(|(at, _)| at + 1).collect();
        match (lines.is_empty(), names_lines) {
            (true, _) => {
                chains = known;
                Ok(())
            }
            (false, true) => Err(Failure::Refused { lines, said: "no".into() }),
            (false, false) => {
                let lines = [input.lines().count()].into();
                Err(Failure::Refused { lines, said: "line of COMMIT failed".into() })
            }
        }
    }
}

fn refused(outcomes: &[Result<(), Refusal>]) -> Vec<usize> {
    outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_err()).map(|(at, _)| at).collect()
}

#[test]
fn a_named_line_takes_out_its_edit_and_those_that_need_it() {
    let edits = vec![
        chain("A", &["-j NEW"], &["NEW"]),
        chain("B", &["-j A"], &["A"]),
        chain("NEW", &["fine", "bad"], &[]),
        chain("C", &["fine"], &[]),
    ];
    let outcomes = commit(FilterTable::Filter, edits, &mut kernel(true));
    // A cannot jump to NEW, and B not to A, which was never there.
    assert_eq!(refused(&outcomes), [0, 1, 2]);
    assert!(outcomes[2].as_ref().unwrap_err().reason.contains("-A NEW bad"));
}

#[test]
fn an_unnamed_line_is_found_by_halving_without_harming_others() {
    for bad in 0..9 {
        let mut edits: Vec<Edit> = (0..9)
            .map(|at| {
                // Each jumps to the next, so the given order is the worst there is.
                let next = format!("C{}", at + 1);
                if at == 8 {
                    chain("C8", &[], &[])
                } else {
                    chain(&format!("C{at}"), &[&format!("-j {next}")], &[&next])
                }
            })
            .collect();
        edits[bad].lines.push(Line::new("bad".into()));
        let outcomes = commit(FilterTable::Filter, edits, &mut kernel(false));
        assert_eq!(refused(&outcomes), (0..=bad).collect::<Vec<_>>(), "bad edit {bad}");
    }
}

#[test]
fn the_other_way_to_say_a_line_is_tried() {
    let line = Line { text: "-D INPUT bad".into(), otherwise: Some("-D INPUT fine".into()) };
    let edit = Edit { lines: vec![line], ..Edit::default() };
    assert!(refused(&commit(FilterTable::Nat, vec![edit], &mut kernel(true))).is_empty());
}

#[test]
fn a_held_lock_refuses_everything_at_once() {
    let mut runs = 0;
    let outcomes = commit(FilterTable::Nat, vec![chain("A", &[], &[]), chain("B", &[], &[])], &mut |_| {
        runs += 1;
        Err(Failure::from_output(
            "Another app is currently holding the xtables lock. Stopped waiting after 5s.\n",
        ))
    });
    assert_eq!((runs, refused(&outcomes)), (1, vec![0, 1]));
}

#[test]
fn line_numbers_of_both_flavours_are_read() {
    let lines = |stderr| match Failure::from_output(stderr) {
        Failure::Refused { lines, .. } => lines.into_iter().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(lines("iptables-restore: line 4 failed\n"), [4]);
    assert_eq!(lines("Set nope doesn't exist.\n\nError occurred at line: 4\nTry `iptables-restore -h'"), [4]);
    let nft = "iptables-nft-restore v1.8.9 (nf_tables): \nline 5: RULE_APPEND failed (Too many links): rule in chain B\n";
    assert_eq!(lines(nft), [5]);
    assert_eq!(
        lines("iptables-nft-restore: line 4 failed: Bad rule (does a matching rule exist in that chain?).\n"),
        [4]
    );
}

#[test]
fn removals_come_last_and_empty_the_chain_first() {
    let gone = Edit { declare: Some("OLD".into()), remove: true, ..Edit::default() };
    let mut seen = String::new();
    commit(FilterTable::Filter, vec![gone, chain("A", &["-p tcp"], &[])], &mut |input| {
        seen = input.to_owned();
        Ok(())
    });
    assert_eq!(seen, "*filter\n:A - [0:0]\n:OLD - [0:0]\n-A A -p tcp\n-X OLD\nCOMMIT\n");
}

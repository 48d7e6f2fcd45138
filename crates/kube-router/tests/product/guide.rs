//! `docs/user-guide.md`: its lists of flags and annotations are those of the binary, with types and defaults.

use std::collections::BTreeMap;

use kube_router::annotations::{node, service};
use kube_router::options;

use crate::file;

/// Flag → type and default.
type Flags = BTreeMap<String, (String, String)>;

/// What `--help` says: `  -v, --v level    text (default 0)`, folded over lines.
fn of_the_binary() -> Flags {
    let usage = options::usage();
    let mut flags = Flags::new();
    let mut last: Option<(String, String)> = None;
    let mut text = String::new();
    for line in usage.lines().chain([""]) {
        let begins = line.trim_start().starts_with('-') && line.starts_with("  ");
        if begins || line.is_empty() || !line.starts_with(' ') {
            if let Some((flag, kind)) = last.take() {
                let default = text.rsplit_once("(default ").unwrap().1.trim_end().trim_end_matches(')');
                flags.insert(flag, (kind, default.to_owned()));
            }
            text.clear();
        }
        if begins {
            let word = line.split_whitespace().find(|word| word.starts_with("--")).unwrap();
            let kind = match word.strip_suffix("[=bool]") {
                Some(_) => "bool",
                None => line.split_whitespace().skip_while(|other| *other != word).nth(1).unwrap(),
            };
            let flag = word.trim_start_matches("--").trim_end_matches("[=bool]");
            last = Some((flag.to_owned(), kind.to_owned()));
        }
        text += &format!("{} ", line.trim());
    }
    flags
}

/// Rows `| \`--flag\` | type | default | effect |`.
fn of_the_guide() -> Flags {
    let page = file("docs/user-guide.md");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let mut flags = Flags::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let flag = cells[0].trim_matches('`').trim_start_matches("--").to_owned();
        let default = cells[2].trim_matches('`').to_owned();
        assert!(cells[3].len() > 10, "{row}");
        assert!(flags.insert(flag, (cells[1].to_owned(), default)).is_none(), "{row} twice");
    }
    flags
}

#[test]
fn flags_are_those_of_the_binary() {
    let binary = of_the_binary();
    assert!(binary.len() > 80, "{binary:#?}");
    assert_eq!(of_the_guide(), binary);
}

#[test]
fn annotations_are_those_of_the_binary() {
    let page = file("docs/user-guide.md");
    let mut listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `kube-router.io/"))
        .filter_map(|rest| rest.split('`').next())
        .collect();
    listed.sort_unstable();
    let known = service::ALL.iter().chain(&node::ALL);
    let mut known: Vec<&str> = known.filter_map(|key| key.strip_prefix("kube-router.io/")).collect();
    known.sort_unstable();
    assert_eq!(listed, known);
}

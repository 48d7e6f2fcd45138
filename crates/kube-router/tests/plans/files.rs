//! Cases in files: `<case>/flags.txt`, the command line, one flag on each line, if there is one; `<case>/objects.yaml` and
//! `<case>/then-*.yaml`, states of the cluster in the order of their names; `<case>/rows.txt`, what comes of them.
//!
//! `UPDATE_GOLDEN=1` writes `rows.txt` anew; a person reads the difference before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kube_router::owner::Owner;
use linux::reconciler::Claim;
use linux::row::{Key, Row};

/// The folders of a folder of `testdata`, by name; those that are no cases are left out. `least` are there.
pub(crate) fn cases(folder: &str, no_cases: &[&str], least: usize) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut cases: Vec<PathBuf> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| !no_cases.iter().any(|name| case.ends_with(name)));
    cases.sort();
    assert!(cases.len() >= least, "{} cases in {}", cases.len(), root.display());
    cases
}

/// What `run` makes of each case is what its `rows.txt` holds.
pub(crate) fn are_as_written(cases: &[PathBuf], run: impl Fn(&Path) -> String) {
    let mut failures = String::new();
    for case in cases {
        let rows = run(case);
        let file = case.join("rows.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, rows).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != rows {
            let _ = writeln!(failures, "=== {} should hold\n{rows}", file.display());
        }
    }
    assert!(failures.is_empty(), "{failures}\nUPDATE_GOLDEN=1 writes them");
}

/// The command line of a case.
pub(crate) fn flags(case: &Path) -> Vec<String> {
    let text = fs::read_to_string(case.join("flags.txt")).unwrap_or_default();
    text.lines().map(|flag| flag.trim().to_owned()).filter(|flag| !flag.is_empty()).collect()
}

/// The states of a case.
pub(crate) fn states(case: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path());
    let mut states: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    states.sort(); // objects.yaml, then-…
    states
}

/// Whether a case shows what is there whatever the objects are.
pub(crate) fn is_about_the_node(case: &Path) -> bool {
    case.file_name().unwrap().to_string_lossy().starts_with("base_")
}

/// Every row wanted by owners for which `shown` holds.
///
/// # Panics
/// When two owners, or two claims of one, want different rows under one key.
pub(crate) fn rows(
    wanted: &BTreeMap<Owner, Vec<Claim>>,
    shown: impl Fn(&Owner) -> bool,
) -> BTreeMap<Key, Row> {
    let mut rows = BTreeMap::new();
    for (owner, claims) in wanted.iter().filter(|(owner, _)| shown(owner)) {
        for claim in claims {
            let before = rows.insert(claim.key.clone(), claim.row.clone());
            assert!(before.is_none_or(|row| row == claim.row), "{owner} disagrees about {:?}", claim.key);
        }
    }
    rows
}

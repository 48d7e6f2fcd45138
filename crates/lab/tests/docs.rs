//! The pages a person reads, held to the tree: links and paths exist, flags are those of the binary, marked commands run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab::process::{command, run};

/// Stands before a code block that is run.
const MARK: &str = "<!-- run -->";
/// What begins like this in a code span is a path of the repository.
const FOLDERS: [&str; 8] =
    ["crates/", "docs/", "examples/", "scripts/", ".ci/", "target/x86_64", "daemonset/", "packaging/"];

/// One page, taken apart.
struct Page {
    path: PathBuf,
    /// Everything outside of code blocks.
    prose: String,
    /// Code blocks and whether they are marked.
    blocks: Vec<(String, bool)>,
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn pages() -> Vec<Page> {
    let mut pages = vec![page(root().join("README.md"))];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                pages.push(page(entry));
            }
        }
    }
    assert!(pages.len() > 10, "only {} pages", pages.len());
    pages
}

fn page(path: PathBuf) -> Page {
    let text = fs::read_to_string(&path).unwrap();
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut block: Option<(String, bool)> = None;
    let mut marked = false;
    for line in text.lines() {
        match (&mut block, line.starts_with("```")) {
            (None, true) => block = Some((String::new(), std::mem::take(&mut marked))),
            (Some(_), true) => blocks.extend(block.take()),
            (Some((code, _)), false) => *code += &format!("{line}\n"),
            (None, false) => {
                marked |= line == MARK;
                prose += &format!("{line}\n");
            }
        }
    }
    assert!(block.is_none() && !marked, "{}: a code block does not end, or a mark has none", path.display());
    Page { path, prose, blocks }
}

impl Page {
    /// Code spans.
    fn spans(&self) -> impl Iterator<Item = &str> {
        self.prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// Targets of links within the repository.
    fn links(&self) -> impl Iterator<Item = &str> {
        let targets = self.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.starts_with("http"))
    }

    /// Headings as link targets.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

/// The agent that was built along with this test.
fn agent() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let agent = test.parent().and_then(Path::parent).unwrap().join("kube-router");
    assert!(agent.is_file(), "{} is missing: `cargo build -p kube-router`", agent.display());
    agent
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for here in pages() {
        for link in here.links() {
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let folder = here.path.parent().unwrap();
            let target = if file.is_empty() { here.path.clone() } else { folder.join(file) };
            let has_anchor = || page(target.clone()).anchors().contains(wanted);
            if !target.exists() || (!wanted.is_empty() && !has_anchor()) {
                wrong.push(format!("{}: {link}", here.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn paths_exist() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for here in pages() {
        for span in here.spans().filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder))) {
            let built = span.starts_with("target/");
            seen += 1;
            if !built && !root().join(span).exists() {
                wrong.push(format!("{}: {span}", here.path.display()));
            }
        }
    }
    assert!(seen > 30 && wrong.is_empty(), "{seen} paths, of which wrong: {wrong:#?}");
}

/// A code span that begins with two dashes names flags of kube-router, and so does a command line that starts it.
#[test]
fn flags_are_those_of_the_binary() {
    let mut help = command(agent()).arg("--help").output().unwrap().stderr;
    for name in ["status", "explain", "monitor", "doctor", "completion"] {
        help.extend(command(agent()).args(["help", name]).output().unwrap().stdout);
    }
    let help = String::from_utf8(help).unwrap();
    let known: BTreeSet<&str> = help.split_whitespace().filter_map(flag).collect();
    assert!(known.len() > 70, "{known:?}");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for here in pages() {
        let spans = here.spans().filter(|span| span.starts_with("--")).map(str::to_owned);
        let code = here.blocks.iter().map(|(code, _)| code.replace("\\\n", " "));
        let lines = code.flat_map(|code| code.lines().map(str::to_owned).collect::<Vec<_>>());
        let starts = lines.filter(|line| {
            let program = line.trim_start_matches("ExecStart=").split(' ').next().unwrap_or_default();
            program.rsplit('/').next() == Some("kube-router")
        });
        for text in spans.chain(starts) {
            for flag in text.split_whitespace().filter_map(flag) {
                seen += 1;
                if !known.contains(flag) {
                    wrong.push(format!("{}: --{flag}", here.path.display()));
                }
            }
        }
    }
    assert!(seen > 60 && wrong.is_empty(), "{seen} flags, of which unknown: {wrong:#?}");
}

/// `--name=value,` is `name`.
fn flag(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--")?;
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().filter(|name| !name.is_empty())
}

#[test]
fn marked_commands_run() {
    let folder = agent().parent().unwrap().to_string_lossy().into_owned();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let pages = pages();
    let marked: Vec<&(String, bool)> =
        pages.iter().flat_map(|page| &page.blocks).filter(|(_, marked)| *marked).collect();
    assert!(marked.len() >= 2, "{} blocks are marked", marked.len());
    for (code, _) in marked {
        let done = run(command("sh").args(["-euc", code]).env("PATH", &path).current_dir(root()));
        assert!(done.is_ok(), "{code}{done:?}");
    }
}

//! The pages a person reads, taken apart: prose, and code blocks with the mark that says where a test runs them.

use std::fs;
use std::path::{Path, PathBuf};

/// Stands before a code block that is run with the programs that were built along.
pub(crate) const HERE: &str = "<!-- run -->";
/// Stands before a code block that is run with `kubectl` and an API server.
pub(crate) const KUBECTL: &str = "<!-- run: kubectl -->";
/// Stands before a code block that is run on a node with an agent, whichever packet filter it uses.
pub(crate) const NODE: &str = "<!-- run: node -->";
/// The same with one packet filter.
pub(crate) const IPTABLES: &str = "<!-- run: node with iptables -->";
pub(crate) const NFTABLES: &str = "<!-- run: node with nftables -->";
/// The same with the service proxy.
pub(crate) const IPVS: &str = "<!-- run: node with ipvs -->";
const MARKS: [&str; 6] = [HERE, KUBECTL, NODE, IPTABLES, NFTABLES, IPVS];

/// One page.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    /// Everything outside of code blocks.
    pub(crate) prose: String,
    /// Code blocks and their marks.
    pub(crate) blocks: Vec<(String, Option<&'static str>)>,
}

impl Page {
    /// The blocks with this mark.
    pub(crate) fn marked(&self, mark: &str) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter(move |(_, its)| *its == Some(mark)).map(|(code, _)| code.as_str())
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// README and everything below `docs`.
pub(crate) fn pages() -> Vec<Page> {
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

/// Reads a page.
pub(crate) fn page(path: PathBuf) -> Page {
    let text = fs::read_to_string(&path).unwrap();
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut block: Option<(String, Option<&'static str>)> = None;
    let mut mark = None;
    for line in text.lines() {
        let wrong = || format!("{}: a block of the shell stands right behind each mark", path.display());
        match (&mut block, line.starts_with("```")) {
            (None, true) => {
                assert!(mark.is_none() || line == "```sh", "{}", wrong());
                block = Some((String::new(), mark.take()));
            }
            (Some(_), true) => blocks.extend(block.take()),
            (Some((code, _)), false) => *code += &format!("{line}\n"),
            (None, false) => {
                assert!(mark.is_none(), "{}", wrong());
                mark = mark_of(line, &path);
                prose += &format!("{line}\n");
            }
        }
    }
    assert!(
        block.is_none() && mark.is_none(),
        "{}: a code block does not end, or a mark has none",
        path.display()
    );
    Page { path, prose, blocks }
}

/// The mark a line is. One that nobody would run is a mistake.
fn mark_of(line: &str, path: &Path) -> Option<&'static str> {
    let known = MARKS.into_iter().find(|mark| *mark == line);
    assert!(known.is_some() || !line.starts_with("<!-- run"), "{}: {line} is no mark", path.display());
    known
}

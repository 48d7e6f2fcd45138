//! The pages a person reads, held to the tree: links and paths exist, flags are those of the binary, marked commands run
//! (those that ask an agent do in the suite `policy`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab::api_server::{ApiServer, Config, Resource};
use lab::cluster::{agent_program, kubeconfig_text};
use lab::process::{command, run};
use serde_json::json;

use pages::{HERE, KUBECTL, Page, page, pages, root};

/// What begins like this in a code span is a path of the repository.
const FOLDERS: [&str; 8] =
    ["crates/", "docs/", "examples/", "scripts/", ".ci/", "target/x86_64", "daemonset/", "packaging/"];

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
    let agent = agent_program().unwrap();
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

/// Runs a block as a reader would type it, from the repository's root, with the built programs on the path.
fn type_in(code: &str, environment: &[(&str, &Path)]) {
    let folder = agent().parent().unwrap().to_string_lossy().into_owned();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let mut shell = command("sh");
    shell.args(["-euc", code]).env("PATH", &path).envs(environment.iter().copied()).current_dir(root());
    let done = run(&mut shell);
    assert!(done.is_ok(), "{code}{done:?}");
}

#[test]
fn marked_commands_run() {
    let pages = pages();
    let marked: Vec<&str> = pages.iter().flat_map(|page| page.marked(HERE)).collect();
    assert!(marked.len() >= 2, "{} blocks are marked", marked.len());
    marked.iter().for_each(|code| type_in(code, &[]));
}

/// Each page against an API server of its own, with the Nodes and the Service that pages name and no cluster behind it.
#[tokio::test(flavor = "multi_thread")]
async fn marked_kubectl_commands_run() {
    let mut run = 0;
    for page in pages() {
        let marked: Vec<&str> = page.marked(KUBECTL).collect();
        if marked.is_empty() {
            continue;
        }
        let server = api_server().await;
        let home = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(home.path(), &server);
        let environment = [("KUBECONFIG", &*kubeconfig), ("HOME", home.path())];
        marked.iter().for_each(|code| type_in(code, &environment));
        run += marked.len();
    }
    assert!(run >= 3, "{run} blocks are marked");
}

async fn api_server() -> ApiServer {
    let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let server = ApiServer::start(config).await.unwrap();
    let api = server.handle();
    for name in ["node-1", "node-2", "node-3"] {
        api.create(Resource::Nodes, json!({ "metadata": { "name": name } })).unwrap();
    }
    let service = json!({
        "metadata": { "namespace": "default", "name": "web" },
        "spec": { "ports": [{ "port": 80 }], "selector": { "app": "web" } },
    });
    api.create(Resource::Services, service).unwrap();
    server
}

fn kubeconfig(folder: &Path, server: &ApiServer) -> PathBuf {
    let url = format!("http://{}", server.addresses().first().unwrap());
    let text = kubeconfig_text(&json!({ "server": url }), &json!({}));
    let path = folder.join("kubeconfig");
    fs::write(&path, text).unwrap();
    path
}

//! docs/first-hour.md is what `scripts/first-hour.sh` does and prints: the same commands in the same order, and each says
//! what the page says of it. Names, addresses and times differ from run to run and are left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::path::Path;
use std::process::Stdio;

/// What must be read in each section of the script's output.
const TOLD: [(&str, &[&str]); 6] = [
    (
        "Install",
        &["clusterrole.rbac.authorization.k8s.io/kube-router created", "PROBLEM  kube-proxy", "1 problems"],
    ),
    ("Start", &["kube-proxy's rules are on this node", "then run: iptables-"]),
    ("Look", &["\nOK\n", "everything is programmed", "shop/web", "{\"name\":\"web-"]),
    (
        "Read why",
        &[
            "not used: Service shop/web metadata.annotations[kube-router.io/service.scheduler] \"fastest\"",
            "denied: shop/web-for-clients restricts what",
            "restricted by shop/web-for-clients",
            "no problems, 1 warnings",
        ],
    ),
    ("Break: the agent dies", &["no kube-router answers", "{\"name\":\"web-", "\nOK\n"]),
    ("Clean up", &["removed link kube-dummy-if", "removed virtual server", "link kube-bridge stays"]),
];

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Sections and commands, without what differs from run to run.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with("# ") || line.starts_with("## "));
    lines.map(|line| line.split(' ').map(bare).collect::<Vec<_>>().join(" ")).collect()
}

/// A word as it is in every run: names of pods, addresses and the flavour of iptables are not.
fn bare(word: &str) -> String {
    let pod = ["web-", "shop/web-"].iter().any(|head| word.starts_with(head));
    let address = word.starts_with(|sign: char| sign.is_ascii_digit()) && word.contains('.');
    match word {
        _ if pod => "POD".to_owned(),
        _ if address || word.starts_with("http://") => "ADDRESS".to_owned(),
        _ => word.replace("iptables-nft-", "iptables-").replace("iptables-legacy-", "iptables-"),
    }
}

/// The page's blocks of output, each below its section.
fn page() -> String {
    const MARK: &str = "<!-- output: section \"";
    let text = std::fs::read_to_string(repository().join("docs/first-hour.md")).unwrap();
    let block = |part: &str| {
        let (section, rest) = part.split_once('"').expect("the section's name");
        let (_, rest) = rest.split_once("```text\n").expect("its output");
        format!("## {section}\n{}", rest.split("```").next().unwrap_or_default())
    };
    text.split(MARK).skip(1).map(block).collect()
}

#[test]
#[ignore = "vm: needs IPVS"]
fn the_page_is_what_the_script_does() {
    let run = lab::process::command(env!("CARGO_BIN_EXE_lab"))
        .args([
            "up",
            "--no-agents",
            "--nodes",
            "1",
            "-f",
            "examples/00-namespace.yaml",
            "-f",
            "examples/web.yaml",
        ])
        .args(["-c", "scripts/first-hour.sh"])
        .current_dir(repository())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let all = format!("{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{all}", run.status);
    assert_eq!(commands(&said), commands(&page()), "{all}");
    for (section, told) in TOLD {
        let from = said.find(&format!("## {section}\n")).unwrap_or_else(|| panic!("{section}\n{all}"));
        let rest = &said[from + 3..];
        let text = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
        for words in told {
            assert!(text.contains(words), "{section} does not say '{words}': {text}");
        }
    }
}
